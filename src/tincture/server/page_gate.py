"""What of Gradio's own addresses is open, and what may be asked of them.

Gradio brings addresses that the page does not need: a proxy to other machines, logins, recordings, an assistant. Only
those that the page needs are open. Files are served by their path: it must lie where requests may read, links resolved.
And Gradio fetches what a request names as a file by a URL: nothing here fetches anything from anywhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from tincture.errors import UsageError
from tincture.server.asgi import media_type, refuse
from tincture.server.http_errors import status_of
from tincture.server.limits import replayed, whole_body

FILES = "/gradio_api/file="
GRADIO = re.compile(
    r"/gradio_api/(info|app_id|startup-events|theme\.css|reset|cancel|upload|upload_progress|queue/(join|data)"
    r"|(heartbeat|call|run|api)/.+|file=.+)/?",
    re.DOTALL,
)
# What lies at the root, beside the page itself, its scripts and pictures.
CLOSED = re.compile(r"/(login|logout|monitoring|svelte|dev|user|token|gradio_api)(/.*)?", re.DOTALL)
URL = re.compile(r"\s*([a-zA-Z][a-zA-Z0-9+.-]+:|//|\\\\)")


class PageGate:
    """Middleware before Gradio.

    Args:
        place: gives the path that a text names, with links resolved; UsageError when requests may not read it.
    """

    def __init__(self, app: ASGIApp, place: Callable[[str], Path]) -> None:
        self._app, self._place = app, place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        path = str(scope["path"])
        if CLOSED.fullmatch(path) and not GRADIO.fullmatch(path):
            return await refuse(scope, receive, send, 404, "NotFoundError", "There is nothing at this address.")
        if path.startswith(FILES):
            try:
                self._place(path.removeprefix(FILES))
            except UsageError as error:
                return await refuse(scope, receive, send, status_of(error), type(error).__name__, str(error))
        if path.startswith("/gradio_api/") and media_type(scope).endswith("json"):
            body = await whole_body(receive)
            if body is None:
                return
            if names_url(body):
                sentence = "The request names a file by a URL; upload the file itself."
                return await refuse(scope, receive, send, 422, "UsageError", sentence)
            receive = replayed(body, receive)
        await self._app(scope, receive, send)


def names_url(body: bytes) -> bool:
    """Whether anything in the JSON is an object whose ``path`` is a URL; False for what is no JSON."""
    found = False

    def look(value: dict[str, Any]) -> dict[str, Any]:
        nonlocal found
        path = value.get("path")
        found = found or (isinstance(path, str) and bool(URL.match(path)))
        return value

    try:
        json.loads(body, object_hook=look)
    except (ValueError, RecursionError):
        return False
    return found
