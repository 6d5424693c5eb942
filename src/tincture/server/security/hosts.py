"""Which names the server goes by, and which pages' requests it takes.

A page of another site that is open in the user's browser can send requests to this machine. Two checks keep it out:

- *DNS rebinding*: the attacker's own name is made to lead here, so that the browser takes both for one site. Its
  ``Host`` header then names the attacker's site, which is none of ours.
- *Cross-site requests*: the browser says by ``Sec-Fetch-Site`` or ``Origin`` where a request comes from. The order of
  the checks is that of Go's ``http.CrossOriginProtection``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from tincture.server.http.asgi import SAFE_METHODS, header_of, headers_of, refuse
from tincture.settings.server import is_loopback

HOST_HEADER = re.compile(r"(?P<name>\[[0-9a-f:.]{2,45}\]|[a-z0-9_.-]{1,253})(:[0-9]{1,5})?", re.ASCII)
OWN_SITE = frozenset({"same-origin", "none"})  # none: typed by the user, or a bookmark


class Names:
    """The names that a server is reached under.

    Args:
        host: what it listens on.
        more: further names, as the user gave them; a port behind them does not count.
    """

    def __init__(self, host: str, more: Iterable[str] = ()) -> None:
        self._only_this_machine = is_loopback(host)
        self._names = {"localhost", *(_name(name) for name in (host, *more))} - {""}

    def __contains__(self, host_header: str) -> bool:
        """Whether a ``Host`` header is one of ours, with any port.

        An address in numbers cannot be rebound: it only counts whether it is of this machine where the server
        listens to nothing else.
        """
        name = _name(host_header)
        if name in self._names:
            return True
        try:
            address = ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self._only_this_machine


def _name(host_header: str) -> str:
    """Without port and brackets, in lower case; empty for what is no name."""
    text = host_header.strip().lower()
    if text.count(":") > 1 and not text.startswith("["):
        text = f"[{text}]"  # an IPv6 address that stands alone, as flags may
    match = HOST_HEADER.fullmatch(text)
    return match["name"].strip("[]").removesuffix(".") if match else ""


class CheckHost:
    """Middleware: refuses requests for names that are not the server's, and websockets, which nothing here uses."""

    def __init__(self, app: ASGIApp, names: Names) -> None:
        self._app, self._names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        given = headers_of(scope, b"host")
        if len(given) != 1 or given[0] not in self._names:
            named = repr(given[0][:100]) if given else "no name"
            sentence = (
                f"The request is for {named}, which is none of this server's names; "
                "start it by tincture serve --allow-host NAME, if that is how it is reached."
            )
            return await refuse(scope, receive, send, 403, "ForbiddenHostError", sentence)
        await self._app(scope, receive, send)


class CheckSite:
    """Middleware: what the page of another site asks for is refused, except to open the page itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not _from_own_site(scope):
            sentence = "The request comes from a page of another site, which this server does not take."
            return await refuse(scope, receive, send, 403, "ForbiddenSiteError", sentence)
        await self._app(scope, receive, send)


def _from_own_site(scope: Scope) -> bool:
    safe = scope["method"] in SAFE_METHODS
    site = header_of(scope, b"sec-fetch-site").lower()
    if site:
        opened = header_of(scope, b"sec-fetch-mode").lower() == "navigate"
        return site in OWN_SITE or (safe and opened)
    origin = header_of(scope, b"origin")
    if safe or not origin:
        return True  # an answer without CORS headers cannot be read by others; programs send no origin
    try:
        return urlsplit(origin).netloc.lower() == header_of(scope, b"host").lower() != ""
    except ValueError:
        return False
