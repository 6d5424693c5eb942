"""Headers of every answer: what the browser may do with it."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tincture.server.http.asgi import API_PATHS

# The page's own scripts stand partly in its HTML, and Gradio makes functions of texts (`js=` of an event).
PAGE_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    )
)
# Answers of the API, pictures and downloads are no pages: should a browser take one for a page, it can do nothing.
DATA_POLICY = "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; frame-ancestors 'self'; sandbox"
DATA_PATHS = (*API_PATHS, "/gradio_api/", "/metrics", "/health", "/openapi.json")
ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
NEVER = ("server", "x-powered-by")


class SecureHeaders:
    """Middleware: adds the headers above, and takes away those by which other sites could read answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                _complete(MutableHeaders(scope=message), str(scope["path"]))
            await send(message)

        await self._app(scope, receive, with_headers)


def _complete(headers: MutableHeaders, path: str) -> None:
    for name in list(headers.keys()):
        if name in NEVER or name.startswith("access-control-"):
            del headers[name]
    for name, value in ALWAYS.items():
        headers[name] = value
    data = path.startswith(DATA_PATHS)
    headers["Content-Security-Policy"] = DATA_POLICY if data else PAGE_POLICY
    if data and "cache-control" not in headers:
        headers["Cache-Control"] = "no-store"
