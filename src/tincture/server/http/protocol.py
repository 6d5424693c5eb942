"""How uvicorn speaks HTTP here: with limits, and with patience that ends."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.h11_impl import H11Protocol

from tincture.server.http.asgi import HEAD_BYTES
from tincture.server.http.proxy import BehindProxy
from tincture.settings.server import ServerSettings

HEADERS_WITHIN_S = 15.0
TICKS = 15
MOST_CONNECTIONS = 512
IDLE_S = 20
ENDS_WITHIN_S = 3  # for answers that are still being given; jobs have all the time that they need to save


class PatientProtocol(H11Protocol):
    """Closes a connection whose request's headers are not complete in time; uvicorn itself would wait for ever.

    Time is counted in ticks: while this process is busy, one goes by and not many.
    """

    headers_within_s = HEADERS_WITHIN_S
    _awaited: asyncio.TimerHandle | None = None
    _ticks = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # asyncio does so itself, but not for sockets that were made without the number of the protocol, as Python's
        # own create_server makes them: each answer's body then waits 40 ms for the client's system to confirm the head.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """The clock runs from the first byte, however many follow, until there is a whole request."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget()
        elif self._awaited is None:
            self._ticks = 0
            self._await()

    def _await(self) -> None:
        self._awaited = self.loop.call_later(self.headers_within_s / TICKS, self._ticked)

    def _ticked(self) -> None:
        self._ticks += 1
        if self._ticks < TICKS:
            self._await()
        else:
            self._give_up()

    def _forget(self) -> None:
        if self._awaited is not None:
            self._awaited.cancel()
            self._awaited = None

    def _give_up(self) -> None:
        self._awaited = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


def uvicorn_config(app: FastAPI, settings: ServerSettings) -> uvicorn.Config:
    """How the app is served: with limits, and no word of what serves it."""
    # Here and not by uvicorn itself, since what it does hides who asks.
    known: Any = app
    if settings.proxy:
        known = ProxyHeadersMiddleware(known, list(settings.proxy))
    return uvicorn.Config(
        cast(Any, BehindProxy(known, settings.root_path, settings.proxy)),
        http=PatientProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=ENDS_WITHIN_S,
        h11_max_incomplete_event_size=HEAD_BYTES,
    )
