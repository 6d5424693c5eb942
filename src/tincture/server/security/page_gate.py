"""What of Gradio's own addresses is open, and what may be asked of them.

Gradio brings addresses that the page does not need: a proxy to other machines, logins, recordings, an assistant. Only
those that the page needs are open (``OPEN``); all others are shut, those too that a later Gradio brings. Files are
served by their path: it must lie where requests may read, links resolved. Gradio's errors get the common shape.

An input that takes a file gets the path of what was uploaded before, and the browser says that path. Gradio makes sure
that it is an upload only where it runs as a server of its own, and it fetches what is named by a URL. Here both are
refused: a request's files are uploads.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tincture.errors import UsageError
from tincture.server.http.asgi import media_type, refuse
from tincture.server.http.errors import InCommonShape, status_of
from tincture.server.http.proxy import own_path
from tincture.server.security.limits import replayed, whole_body


def _pattern(route: str) -> str:
    """``{name:path}`` of a route stands for anything, ``{name}`` for a part without a slash."""
    parts = re.split(r"(\{[^}]*\})", route.rstrip("/"))
    texts = (
        ".*" if part.endswith(":path}") else "[^/]+" if part.startswith("{") else re.escape(part) for part in parts
    )
    return "".join(texts) + "/?"


FILES = "/gradio_api/file="
UPLOAD = "/gradio_api/upload"
UPLOADS_AT_ONCE = 8
"""Gradio keeps each file of an upload open until the last one has come, up to a thousand of them."""
OPEN = (
    # the page itself, with its scripts, looks and pictures
    *("/", "/config", "/static/{path:path}", "/assets/{path:path}", "/theme.css", "/gradio_api/theme.css"),
    *("/favicon.ico", "/manifest.json", "/pwa_icon", "/pwa_icon/{size}", "/robots.txt"),
    # requests and their answers; what goes around the queue is refused by Gradio itself, unless an extension allows it
    *("/gradio_api/queue/join", "/gradio_api/queue/data", "/gradio_api/cancel", "/gradio_api/reset"),
    *("/gradio_api/run/{api_name}", "/gradio_api/heartbeat/{session_hash}"),
    # what a page that lost its server asks
    *("/gradio_api/app_id", "/gradio_api/info", "/gradio_api/startup-events"),
    # files
    *("/gradio_api/file={path_or_url:path}", "/gradio_api/upload", "/gradio_api/upload_progress"),
)
"""Addresses as Gradio's routes name them, each also with a slash at its end."""
_ACTS = re.compile(r"/gradio_api/(queue/join|run/[^/]+)/?")
_OPEN = re.compile("|".join(f"(?:{_pattern(route)})" for route in OPEN), re.DOTALL)


class PageGate:
    """Stands before Gradio's own app, and before nothing else.

    Args:
        place: gives the path that a text names, with links resolved; UsageError when requests may not read it.
        uploads: the folder that Gradio keeps uploads in.
        events: the numbers of the page's events, which requests name; None: any is handed on.
    """

    def __init__(
        self, app: ASGIApp, place: Callable[[str], Path], uploads: Path, events: Collection[int] | None = None
    ) -> None:
        self._app, self._place, self._uploads, self._events = app, place, uploads, events
        self._coming = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        send = InCommonShape(scope, receive, send)
        path = own_path(scope)
        if path == "/" and scope.get("root_path"):
            scope, send = _uncompressed(scope), _LinksBelow(send, str(scope["root_path"]))
        if not is_open(path):
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
            if not all(is_upload(path, self._uploads) for path in named_files(body)):
                sentence = "The request names a file that was not uploaded; upload the file itself."
                return await refuse(scope, receive, send, 403, "ForbiddenPathError", sentence)
            if _ACTS.fullmatch(path) and self._events is not None and named_event(body) not in self._events:
                return await refuse(scope, receive, send, 404, "NotFoundError", "The page has no such event.")
            receive = replayed(body, receive)
        if path.rstrip("/") == UPLOAD:
            return await self._upload(scope, receive, send)
        await self._app(scope, receive, send)

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._coming >= UPLOADS_AT_ONCE:
            sentence = f"{UPLOADS_AT_ONCE} uploads are coming already; try again when one is done."
            return await refuse(scope, receive, send, 429, "TooManyRequestsError", sentence, {"Retry-After": "5"})
        self._coming += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._coming -= 1


class _LinksBelow:
    """Gradio's page names its manifest from the root of the machine on: it gets the proxy's path before it."""

    def __init__(self, send: Send, prefix: str) -> None:
        self._send, self._prefix = send, prefix
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
        elif message["type"] == "http.response.body" and self._start is not None:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                body = self._body.replace(b'href="/manifest.json"', f'href="{self._prefix}/manifest.json"'.encode())
                if "content-length" in (headers := MutableHeaders(scope=self._start)) and self._body:  # not of HEAD
                    headers["content-length"] = str(len(body))
                await self._send(self._start)
                await self._send({**message, "body": body})
        else:
            await self._send(message)


def _uncompressed(scope: Scope) -> Scope:
    return {**scope, "headers": [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]}


def is_open(path: str) -> bool:
    """Whether the page needs this address of Gradio's."""
    return _OPEN.fullmatch(path) is not None


def named_files(body: bytes) -> list[str]:
    """The ``path`` of every object in the JSON that has one; none for what is no JSON, which Gradio does not read."""
    found: list[str] = []

    def note(value: dict[str, Any]) -> dict[str, Any]:
        if isinstance(path := value.get("path"), str):
            found.append(path)
        return value

    try:
        json.loads(body, object_hook=note)
    except (ValueError, RecursionError):
        return []
    return found


def named_event(body: bytes) -> int | None:
    """The event that a request to the page is for; None where it names none."""
    try:
        number = json.loads(body).get("fn_index")
    except (ValueError, RecursionError, AttributeError):
        return None
    return number if isinstance(number, int) and not isinstance(number, bool) else None


def is_upload(path: str, uploads: Path) -> bool:
    """Whether a path leads into the folder of uploads, links resolved; a URL does not."""
    try:
        real = Path(os.path.realpath(path))
    except (ValueError, OSError):  # a zero byte, or a place that nobody may look at
        return False
    return real != (folder := Path(os.path.realpath(uploads))) and real.is_relative_to(folder)
