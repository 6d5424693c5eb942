"""Who may use the server: user and password for people, a token for programs; wrong ones are slowed down."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from tincture.server.http.asgi import ALLOWED, address_of, header_of, headers_of, refuse

FREE_TRIES = 5
LONGEST_WAIT_S = 60.0
FORGOTTEN_AFTER_S = 900.0
MOST_ADDRESSES = 10_000
OPEN_PATHS = frozenset({"/health"})
CHALLENGE = {"WWW-Authenticate": 'Basic realm="Tincture", charset="UTF-8"'}


class Credentials:
    """User, password and token; compared as digests of equal length, in a time that gives nothing away.

    Args:
        auth: ``USER:PASSWORD``; empty: none.
        token: what programs may give instead; people too, as password of any user. Empty: none.
    """

    def __init__(self, auth: str, token: str) -> None:
        self._pair = _digest(auth) if auth else None
        self._token = _digest(token) if token else None

    def __bool__(self) -> bool:
        return bool(self._pair or self._token)

    def judge(self, scope: Scope) -> bool | None:
        """Whether the request gives the right ones; None when it gives none."""
        given = [_is(value, self._token) for value in headers_of(scope, b"x-api-key")[:1]]
        scheme, _, value = header_of(scope, b"authorization").strip().partition(" ")
        if scheme.lower() == "bearer":
            given.append(_is(value.strip(), self._token))
        elif scheme.lower() == "basic":
            pair = _decoded(value.strip())
            right = (_is(pair, self._pair), _is(pair.partition(":")[2], self._token))  # both, always
            given.append(any(right))
        elif scheme:
            given.append(False)
        return any(given) if given else None


class Throttle:
    """How long an address has to wait after wrong tries: from the sixth on 1 s, 2 s, 4 s, at most a minute.

    At most ``MOST_ADDRESSES`` are kept; of more, the one that was idle longest is forgotten.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tries: OrderedDict[str, tuple[int, float]] = OrderedDict()  # address → wrong tries, time of the last

    def wait_s(self, address: str) -> float:
        """Seconds until its next try counts; 0: now."""
        tries, last = self._tries.get(address, (0, 0.0))
        over = tries - FREE_TRIES
        if over < 0:
            return 0.0
        wait = min(LONGEST_WAIT_S, 2.0 ** min(over, 10))
        return max(0.0, last + wait - self._clock())

    def failed(self, address: str) -> None:
        """A wrong try."""
        now = self._clock()
        tries, last = self._tries.pop(address, (0, now))
        self._tries[address] = (tries + 1 if now - last < FORGOTTEN_AFTER_S else 1, now)
        while len(self._tries) > MOST_ADDRESSES:
            self._tries.popitem(last=False)

    def succeeded(self, address: str) -> None:
        """A right try."""
        self._tries.pop(address, None)

    def __len__(self) -> int:
        return len(self._tries)


class CheckAccess:
    """Middleware: only those who give the right credentials get further; all do where none are set.

    Paths of ``OPEN_PATHS`` may be asked by everybody; ``scope[ALLOWED]`` tells them how much to say.
    """

    def __init__(self, app: ASGIApp, credentials: Credentials, throttle: Throttle | None = None) -> None:
        self._app, self._credentials = app, credentials
        self._throttle = throttle or Throttle()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        if not self._credentials:
            scope[ALLOWED] = True
            return await self._app(scope, receive, send)
        address = address_of(scope)
        wait = self._throttle.wait_s(address)
        judged = None if wait else self._credentials.judge(scope)
        open_to_all = scope["path"] in OPEN_PATHS
        if judged is False:
            self._throttle.failed(address)
        if judged:
            self._throttle.succeeded(address)
        if judged or open_to_all:
            scope[ALLOWED] = bool(judged)
            return await self._app(scope, receive, send)
        if wait and _gives_any(scope):
            sentence = f"Too many wrong passwords or tokens; try again in {math.ceil(wait)} s."
            return await refuse(
                scope, receive, send, 429, "TooManyTriesError", sentence, {"Retry-After": str(math.ceil(wait))}
            )
        wrong = "are wrong" if judged is False else "are missing"
        sentence = f"User and password, or the token, {wrong}; give them by HTTP Basic, Bearer or X-API-Key."
        await refuse(scope, receive, send, 401, "AccessError", sentence, CHALLENGE)


def _gives_any(scope: Scope) -> bool:
    return bool(headers_of(scope, b"authorization") or headers_of(scope, b"x-api-key"))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _is(given: str, right: bytes | None) -> bool:
    """Compares in constant time, also when there is nothing to compare with."""
    same = hmac.compare_digest(_digest(given), right or _digest(""))
    return same and right is not None


def _decoded(value: str) -> str:
    """``USER:PASSWORD`` from a Basic header; empty for what is none."""
    try:
        return base64.b64decode(value, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return ""
