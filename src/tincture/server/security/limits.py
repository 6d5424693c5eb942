"""How much one address may ask for, and how large, slow or odd a body may be."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tincture.server.http.asgi import (
    API_PATHS,
    HEAD_BYTES,
    UNSAFE_METHODS,
    address_of,
    has_body,
    header_of,
    media_type,
    refuse,
)

MOST_ADDRESSES = 10_000
MOST_HEADERS = 100
PATIENCE_S = 30.0
TICKS = 30  # of a client's patience: it is counted in these
SLOWEST = 1000  # bytes a second, on average, once patience is over
DEEPEST = 64  # lists and objects in each other
MOST_VALUES = 10**6  # of JSON: each takes a hundred bytes of memory once it is read, however few it has here
FORM_ROOM = 2**20  # what multipart/form-data needs beside the files
FORM = "multipart/form-data"
PICTURE_BYTES = 32 * 2**20  # a picture of 2048 × 2048 pixels in base64
PICTURES = ("/sdapi/v1/png-info", "/sdapi/v1/interrogate")
UPLOADS = re.compile(r"/api/v1/datasets(/.*)?|/gradio_api/upload/?")

_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_PAIR = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_ESCAPED = re.compile(rb"\\[^u]", re.DOTALL)


class CheckHead:
    """Middleware: address and headers of bounded size; uvicorn bounds only those that do not come in one piece."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            size = len(scope["path"]) + len(scope["query_string"])
            size += sum(len(name) + len(value) for name, value in scope["headers"])
            if size > HEAD_BYTES or len(scope["headers"]) > MOST_HEADERS:
                sentence = f"The headers have more than {HEAD_BYTES // 2**10} kB, or are more than {MOST_HEADERS}."
                return await refuse(scope, receive, send, 431, "HeadersError", sentence)
        await self._app(scope, receive, send)


class CheckRate:
    """Middleware: each address has ``per_minute`` requests in hand, and gets as many back over a minute."""

    def __init__(self, app: ASGIApp, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._app, self._most, self._clock = app, float(per_minute), clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address → requests in hand, as of when

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        wait = self._take(address_of(scope))
        if wait <= 0:
            return await self._app(scope, receive, send)
        seconds = str(math.ceil(wait))
        sentence = f"More than {self._most:.0f} requests in a minute came from your address; try again in {seconds} s."
        await refuse(scope, receive, send, 429, "TooManyRequestsError", sentence, {"Retry-After": seconds})

    def _take(self, address: str) -> float:
        """Seconds to wait; 0 when the request may pass."""
        now = self._clock()
        left, since = self._left.pop(address, (self._most, now))
        left = min(self._most, left + (now - since) * self._most / 60)
        allowed = left >= 1
        self._left[address] = (left - 1 if allowed else left, now)
        while len(self._left) > MOST_ADDRESSES:
            self._left.popitem(last=False)
        return 0.0 if allowed else (1 - left) * 60 / self._most


class CheckBody:
    """Middleware: bodies of bounded size, that come in time, and of the type that the address takes.

    JSON is read whole before it is handed on, since it must be looked at: its size is that of ``most`` bytes at most.
    Everything else streams through and is counted.

    Args:
        most: bytes of a body.
        most_upload: bytes of an upload.
        received: called with how many bytes of an upload came, piece by piece.
        patience_s: seconds that a client may take for a piece.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        most: int,
        most_upload: int,
        received: Callable[[int], None] = lambda count: None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._app, self._most, self._most_upload = app, most, most_upload
        self._received, self._patience_s = received, patience_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        upload = is_upload(scope)
        most = self._most_upload + FORM_ROOM if upload else self._most
        if scope["path"] in PICTURES:
            most = max(most, PICTURE_BYTES)
        try:
            _check_announced(scope, upload, most)
            bounded = self._bounded(receive, most, self._received if upload else lambda count: None)
            if has_body(scope) and not upload and media_type(scope).endswith("json"):
                body = await whole_body(bounded)
                if body is None:
                    return
                check_json(body)
                bounded = replayed(body, receive)
        except HTTPException as error:
            return await refuse(scope, receive, send, error.status_code, "BodyError", str(error.detail))
        await self._app(scope, bounded, send)

    def _bounded(self, receive: Receive, most: int, received: Callable[[int], None]) -> Receive:
        waited, count, more = 0.0, 0, True

        async def bounded() -> Message:
            nonlocal waited, count, more
            if not more:
                return await receive()
            message, seconds = await _in_time(receive, self._patience_s)
            waited += seconds
            if message["type"] == "http.request":
                piece = len(message.get("body", b""))
                count, more = count + piece, bool(message.get("more_body", False))
                received(piece)
                if count > most:
                    raise HTTPException(413, _too_large(most))
                if waited > self._patience_s + count / SLOWEST:
                    raise HTTPException(408, f"The body comes slower than {SLOWEST} bytes a second.")
            return message

        return bounded


def is_upload(scope: Scope) -> bool:
    """Whether the body may be as large as an upload: files for a data set, or for the page."""
    return scope["method"] in UNSAFE_METHODS and media_type(scope) == FORM and bool(UPLOADS.fullmatch(scope["path"]))


def check_json(body: bytes) -> None:
    """Refuses JSON that only an attack would send: HTTPException with status 400.

    What is no JSON at all is left to those who read it.
    """
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        raise HTTPException(400, "The body is no UTF-8 text; JSON must be.") from None
    if b"\0" in body:
        raise HTTPException(400, "The body has a NUL character; JSON has none.")
    if body.count(b",") + body.count(b"[") + body.count(b"{") > MOST_VALUES:
        raise HTTPException(400, f"The body has more than {MOST_VALUES:,} values.")
    if _is_deep(body):
        raise HTTPException(400, f"The body has lists or objects in each other, more than {DEEPEST} deep.")
    if _SURROGATE.search(body) and _SURROGATE.search(_PAIR.sub(b"", _ESCAPED.sub(b"", body))):
        raise HTTPException(400, "The body has half a surrogate pair; send whole characters.")


def _is_deep(body: bytes) -> bool:
    """Takes off the innermost brackets again and again: every round is one level at least, and runs in C."""
    brackets = _STRING.sub(b"", body).translate(None, _NOT_BRACKETS)
    for _ in range(DEEPEST):
        fewer = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if len(fewer) == len(brackets):
            return False  # nothing left, or no JSON
        brackets = fewer
    return bool(brackets)


def _check_announced(scope: Scope, upload: bool, most: int) -> None:
    """Checks what the headers announce."""
    length = header_of(scope, b"content-length")
    if length.isdecimal() and int(length[:20]) > most:
        raise HTTPException(413, _too_large(most))
    if not has_body(scope) or upload or not scope["path"].startswith(API_PATHS):
        return
    given = media_type(scope)
    if given != "application/json" and scope["method"] in UNSAFE_METHODS:
        named = repr(given[:100]) if given else "not told"
        raise HTTPException(415, f"The body's type is {named}; this address takes application/json.")


def _too_large(most: int) -> str:
    size = f"{most / 2**20:.0f} MB" if most >= 2**20 else f"{most / 2**10:.0f} kB"
    return f"The body has more than {size}, which is the most that this server takes here."


async def _in_time(receive: Receive, patience_s: float) -> tuple[Message, float]:
    """The next part of the body, and how many seconds the client took for it; HTTPException when it takes too long.

    What this process itself is late by does not count: while it is busy, one tick goes by and not many.
    """
    tick, ticks, began = patience_s / TICKS, 0, time.monotonic()
    coming = asyncio.ensure_future(receive())
    try:
        while not (await asyncio.wait({coming}, timeout=tick))[0]:
            ticks += 1
            if ticks >= TICKS:
                raise HTTPException(408, f"No part of the body came for {patience_s:g} s.")
    finally:
        coming.cancel()
    return coming.result(), min(time.monotonic() - began, (ticks + 1) * tick)


async def whole_body(receive: Receive) -> bytes | None:
    """The body; None when the client went before its end: half a body may look like a whole one."""
    pieces = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(pieces)


def replayed(body: bytes, receive: Receive) -> Receive:
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again
