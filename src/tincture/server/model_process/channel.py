"""How the server and its own child process talk: pickled messages, each behind its length, over two pipes.

Only a process and the child that it started itself use this; what comes from anywhere else is never unpickled.
"""

from __future__ import annotations

import pickle
import struct
import threading
from typing import IO, Any

_LENGTH = struct.Struct(">Q")


class Channel:
    """One end of the line; several threads may send, one may receive."""

    def __init__(self, incoming: IO[bytes], outgoing: IO[bytes]) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self._sending = threading.Lock()

    def send(self, *message: Any) -> None:
        """Sends a message; OSError or ValueError when the other end is gone."""
        content = pickle.dumps(message)
        with self._sending:
            self._outgoing.write(_LENGTH.pack(len(content)) + content)
            self._outgoing.flush()

    def receive(self) -> tuple[Any, ...]:
        """The next message; EOFError when the other end is gone."""
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        message: tuple[Any, ...] = pickle.loads(self._exactly(length))
        return message

    def _exactly(self, count: int) -> bytes:
        content = b""
        while len(content) < count:
            more = self._incoming.read(count - len(content))
            if not more:
                raise EOFError
            content += more
        return content
