"""The path of a reverse proxy below which the server lies, such as ``/tincture``.

Some proxies take it off each request, others leave it in: both are understood. All that stands before the routes sees
the server's own address, ``/api/v1/jobs``; the routes know the whole one, as ASGI has it, so that what they answer
leads below the path too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextvars import ContextVar
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tincture.server.http.asgi import SAFE_METHODS, header_of, headers_of
from tincture.settings.server import ROOT_PATH

BELOW: ContextVar[str] = ContextVar("below", default="")
"""The path that the request at hand came below, without a slash at its end."""
PREFIX = "tincture.prefix"
"""Key of the scope: the same."""
FORWARDED = b"x-forwarded-prefix"
_FROM_ROUTES = ("route", "endpoint", "path_params")


class BehindProxy:
    """Outermost: takes the proxy's path off each request.

    Args:
        root_path: the path; empty: what a trusted proxy says in ``X-Forwarded-Prefix``.
        proxies: addresses and networks whose word counts.
    """

    def __init__(self, app: ASGIApp, root_path: str, proxies: Iterable[str]) -> None:
        self._app, self._root_path = app, root_path.rstrip("/")
        self._proxies: list[IPv4Network | IPv6Network] = [ip_network(text) for text in proxies]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        prefix = (self._root_path or self._forwarded(scope)) if scope["type"] == "http" else ""
        if not prefix:
            return await self._app(scope, receive, send)
        path = str(scope["path"])
        if path == prefix and scope["method"] in SAFE_METHODS:  # else the page's own addresses would lead out
            query = scope["query_string"].decode("latin-1")
            return await RedirectResponse(f"{prefix}/{query and '?' + query}", 308)(scope, receive, send)
        own = path[len(prefix) :] if path.startswith(f"{prefix}/") else path
        BELOW.set(prefix)
        await self._app({**scope, "path": own, PREFIX: prefix}, receive, send)

    def _forwarded(self, scope: Scope) -> str:
        """What the header says, if it comes from a proxy that is trusted and is a path; else empty."""
        given = headers_of(scope, FORWARDED)
        if len(given) != 1 or not self._trusts(str((scope.get("client") or ("",))[0])):
            return ""
        prefix = given[0].strip().rstrip("/")
        return prefix if ROOT_PATH.fullmatch(prefix) else ""

    def _trusts(self, host: str) -> bool:
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._proxies)


class RoutesBelow:
    """Innermost: gives the routes the whole address back, and the name that the proxy goes by."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        prefix = scope.get(PREFIX, "")
        if not prefix:
            return await self._app(scope, receive, send)
        path = f"{prefix}{scope['path']}"
        whole = {**scope, "root_path": prefix, "path": path, "raw_path": path.encode(), "headers": _headers(scope)}

        async def with_route(message: Message) -> None:
            scope.update({key: whole[key] for key in _FROM_ROUTES if key in whole})
            await send(message)

        await self._app(whole, receive, with_route)


def _headers(scope: Scope) -> list[tuple[bytes, bytes]]:
    """With the path behind ``X-Forwarded-Host``: where that is given, Gradio makes its own address of it alone."""
    host = header_of(scope, b"x-forwarded-host")
    if not re.fullmatch(r"[\w.:\[\]-]+", host, re.ASCII):
        return list(scope["headers"])
    others = [(name, value) for name, value in scope["headers"] if name != b"x-forwarded-host"]
    return [*others, (b"x-forwarded-host", f"{host}{scope[PREFIX]}".encode())]


def own_path(scope: Scope) -> str:
    """The server's own address of a request that the routes have, without the proxy's path."""
    return str(scope["path"]).removeprefix(str(scope.get("root_path", "")))
