"""A real server on a port of its own, in a thread of the tests, and requests that no well-behaved client makes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from tincture.server.http.protocol import uvicorn_config
from tincture.settings.server import ServerSettings

PATIENCE_S = 60.0


class _Server(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


@contextmanager
def live(app: FastAPI, settings: ServerSettings | None = None) -> Iterator[int]:
    """The port that the app is served at; ``settings`` say how."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = _Server(uvicorn_config(app, settings or ServerSettings()))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
        thread.start()
        assert server.listening.wait(PATIENCE_S)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


def request(method: str = "GET", path: str = "/", *headers: str, body: bytes = b"") -> bytes:
    """The bytes of a request; the headers are added to those that any has."""
    given = {line.partition(":")[0].lower() for line in headers}
    lines = [f"{method} {path} HTTP/1.1", *headers, "Connection: close"]
    lines += [] if "host" in given else ["Host: 127.0.0.1"]
    lines += [] if given & {"content-length", "transfer-encoding"} or not body else [f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body


def send(port: int, content: bytes) -> tuple[int, str, bytes]:
    """Status, headers and body of the answer; status 0 when the server closed without one."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may be refused before its end
            connection.sendall(content)
        return answer(connection)


def answer(connection: socket.socket) -> tuple[int, str, bytes]:
    """What the server says until it closes."""
    told = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            told += piece
    head, _, body = told.partition(b"\r\n\r\n")
    return (int(head.split(b" ")[1]) if head else 0), head.decode("latin-1"), body
