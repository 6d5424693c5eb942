"""What the groups of endpoints share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import anyio
import anyio.to_thread
from fastapi import Request
from fastapi.responses import FileResponse, Response

from tincture.formats.file_state import state_of
from tincture.server.http.errors import documented
from tincture.server.http.proxy import BELOW

PREFIX = "/api/v1"
AT_ONCE = 8
"""Requests of one kind that wait in threads for a model's process; the others wait without one."""

Value = TypeVar("Value")


class Patient:
    """Runs calls that take long in threads of their own, so that they take none from the quick ones."""

    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(AT_ONCE)

    async def call(self, function: Callable[[], Value]) -> Value:
        """What the function returns, once it has."""
        return await anyio.to_thread.run_sync(function, limiter=self._limiter)


def url(*parts: str) -> str:
    """The address of something, from the server's root on, and below a proxy's path where the request came so."""
    return BELOW.get() + "/".join([PREFIX, *(quote(part, safe="") for part in parts)])


def file_answers(media_type: str, *errors: int) -> dict[int | str, dict[str, Any]]:
    """What a route that sends a file says of its answers."""
    return {
        200: {"content": {media_type: {"schema": {"type": "string", "format": "binary"}}}, "description": "The file."},
        206: {"content": {media_type: {}}, "description": "The part that Range asked for."},
        304: {"description": "It is what If-None-Match says."},
        416: {"content": {"text/plain": {}}, "description": "Range leads behind the file's end."},
        **documented(*errors),
    }


def send_file(request: Request, path: Path, media_type: str, *, download: bool = False) -> Response:
    """A file with its ETag, or 304 where the client has it already.

    Args:
        download: browsers save it, rather than show it.
    """
    found = path.stat()
    tag = f'"{"-".join(f"{number:x}" for number in state_of(found))}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if tag in [given.strip().removeprefix("W/") for given in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=headers)
    name = path.name if download else None
    return FileResponse(path, media_type=media_type, headers=headers, stat_result=found, filename=name)
