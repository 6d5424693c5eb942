"""How the server and its own child process exchange messages: pickled, over a connection that only the two have.

Only a process and the child that it started itself use this; what comes from anywhere else is never unpickled.
"""

from __future__ import annotations

import pickle
import threading
from multiprocessing.connection import Connection
from typing import Any

MOST_BYTES = 2**30
"""Of a message: far more than any call or answer has."""


class Channel:
    """One end of the connection; several threads may send, one may receive."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, *message: Any) -> None:
        """Sends a message; OSError when the other end is gone, ValueError when the message is too large."""
        content = pickle.dumps(message)
        if len(content) > MOST_BYTES:
            raise ValueError(f"the message has {len(content):,} bytes; allowed are {MOST_BYTES:,}")
        with self._sending:
            self._connection.send_bytes(content)

    def receive(self) -> tuple[Any, ...]:
        """The next message; EOFError or OSError when the other end is gone, or sends what is no message."""
        message: tuple[Any, ...] = pickle.loads(self._connection.recv_bytes(MOST_BYTES))
        return message

    def close(self) -> None:
        """Ends the connection, which the other end notices."""
        self._connection.close()
