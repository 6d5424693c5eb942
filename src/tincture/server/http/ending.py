"""Streams of the page that end with the server: else each open page would keep it waiting for as long as it may."""

from __future__ import annotations

import asyncio
import threading

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOKS_EVERY_S = 0.25


class EndWithServer:
    """Middleware: once the server stops, whoever waits for a client to leave is told that it has left.

    Args:
        app: what keeps streams open by itself.
        stopping: is set when the server is about to end.
    """

    def __init__(self, app: ASGIApp, stopping: threading.Event) -> None:
        self._app, self._stopping = app, stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            return await self._app(scope, receive, send)

        async def or_the_end() -> Message:
            message = asyncio.ensure_future(receive())
            try:
                while not self._stopping.is_set():
                    if (await asyncio.wait({message}, timeout=LOOKS_EVERY_S))[0]:
                        return message.result()
                return {"type": "http.disconnect"}
            finally:
                message.cancel()

        await self._app(scope, or_the_end, send)
