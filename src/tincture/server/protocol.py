"""HTTP with patience that ends: uvicorn itself waits for a request's headers for ever."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADERS_WITHIN_S = 15.0


class PatientProtocol(H11Protocol):
    """Closes a connection whose request's headers are not complete some seconds after it began."""

    headers_within_s = HEADERS_WITHIN_S
    _awaited: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
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
            self._awaited = self.loop.call_later(self.headers_within_s, self._give_up)

    def _forget(self) -> None:
        if self._awaited is not None:
            self._awaited.cancel()
            self._awaited = None

    def _give_up(self) -> None:
        self._awaited = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
