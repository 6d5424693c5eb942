"""A child process that does work which takes a model: the server itself never loads torch.

A crash there, of a library or for want of memory, ends one call and nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

from tincture.errors import TinctureError
from tincture.server.child_environment import child_environment
from tincture.server.errors import QueueFullError, StoppedError
from tincture.server.model_process.channel import Channel
from tincture.workspace import Workspace

TARGETS = "tincture.server.model_process.targets"
MOST_WAITING = 16
LONGEST_S = 3600.0
END_S = 5.0
GIVE_WAY_S = 0.05
TAIL = 2000
"""So many last bytes of what a process that crashed wrote go to the log."""
logger = logging.getLogger("tincture.server")


class ModelProcess:
    """A child process, begun at the first call, which does one thing at a time; other callers wait.

    May be used from several threads.

    Args:
        workspace: where models and adapters lie; also the process's current folder.
        idle_s: after so many seconds without a call the process ends, and gives its memory back.
        targets: the module with what can be called.
        longest_s: a call that takes longer is ended, with its process.
        most_waiting: callers that may wait at a time.
        allow_hub: whether the process may ask the Hugging Face hub for models.
    """

    def __init__(
        self,
        workspace: Workspace,
        *,
        idle_s: float,
        targets: str = TARGETS,
        longest_s: float = LONGEST_S,
        most_waiting: int = MOST_WAITING,
        allow_hub: bool = False,
    ) -> None:
        self.workspace, self.idle_s, self.longest_s = workspace, idle_s, longest_s
        self._allow_hub = allow_hub
        self._targets = targets
        self._most_waiting = most_waiting
        self._turn = threading.Lock()  # held while a call is at work, and while the process is begun or ended
        self._count = threading.Lock()  # guards what follows, and is never held for long
        self._waiting = 0
        self._first = 0  # of those, the ones that others give way to
        self._latest: dict[str, _Yielding] = {}  # by key, the newest of the calls that give way
        self._gives_way: _Yielding | None = None  # the call at work, if it is one of those
        self._child: _Child | None = None
        self._progress: dict[str, Any] | None = None
        self._idle: threading.Timer | None = None
        self._closed = False

    def call(self, name: str, /, **arguments: Any) -> Any:
        """What the target ``name`` returns for ``arguments``; what it warns of is logged.

        Raises:
            QueueFullError: too many callers wait already.
            StoppedError: it was stopped by ``interrupt``.
            TinctureError: as the target raised it; and of this class itself, when the process crashed.
        """
        result, remarks = self.call_with_remarks(name, **arguments)
        for remark in remarks:
            logger.warning("%s: %s", name, remark)
        return result

    def call_with_remarks(self, name: str, /, **arguments: Any) -> tuple[Any, list[str]]:
        """The same, and what the target warned of, as sentences."""
        with self._waits(), self._goes_first(), self._turn:
            return self._call(name, arguments)

    def call_while_latest(self, key: str, name: str, /, **arguments: Any) -> Any:
        """As ``call``, for what is asked for as somebody types: it gives way to all other calls.

        A newer one of the same ``key`` takes its place, whether it waits or is at work. After any other call it begins
        anew.

        Raises:
            StoppedError: a newer one was made, or ``forget`` was called.
        """
        own = _Yielding(key)
        with self._count:
            self._latest[key] = own
        self._let_give_way(key)
        try:
            with self._waits():
                while True:
                    with self._turn, contextlib.suppress(StoppedError):
                        return self._call(name, arguments, own)[0]
                    with self._count:
                        self._require_latest(own)
                    time.sleep(GIVE_WAY_S)
        finally:
            with self._count:
                if self._latest.get(key) is own:
                    del self._latest[key]

    def forget(self, key: str) -> None:
        """Nobody waits any more for what ``call_while_latest`` was asked for under ``key``."""
        with self._count:
            self._latest.pop(key, None)
        self._let_give_way(key)

    def _require_latest(self, call: _Yielding) -> None:
        if self._latest.get(call.key) is not call:
            raise StoppedError("A newer request took its place.")

    def _send_yielding(self, child: _Child, own: _Yielding, *call: Any) -> None:
        """Under the lock, so that whoever wants it to stop comes before, and is seen here, or behind."""
        with self._count:
            self._require_latest(own)
            if self._first:
                raise StoppedError("Others go first.")
            child.channel.send("call", *call)
            self._gives_way = own

    @contextlib.contextmanager
    def _goes_first(self) -> Iterator[None]:
        """What gives way is stopped, and does not begin anew before."""
        with self._count:
            self._first += 1
        self._let_give_way()
        try:
            yield
        finally:
            with self._count:
                self._first -= 1

    def _let_give_way(self, key: str = "") -> None:
        """Stops the call at work if it gives way: that of ``key``, or any."""
        with self._count:
            at_work = self._gives_way
            child = self._child if at_work and key in ("", at_work.key) else None
        if child is not None:
            with contextlib.suppress(OSError, ValueError):
                child.channel.send("stop")

    @contextlib.contextmanager
    def _waits(self) -> Iterator[None]:
        """Counts a caller; QueueFullError where there are too many."""
        with self._count:
            if self._waiting > self._most_waiting:
                raise QueueFullError(f"{self._most_waiting} requests wait for this already; try again later.")
            self._waiting += 1
        try:
            yield
        finally:
            with self._count:
                self._waiting -= 1

    def _call(self, name: str, arguments: dict[str, Any], own: _Yielding | None = None) -> tuple[Any, list[str]]:
        if self._closed:
            raise TinctureError("The server is being stopped; try again when it is back.")
        self._stop_idling()
        if self._child is None or not self._child.is_alive():
            self._end()
            self._child = _Child([self._targets, str(self.workspace.root)], self.workspace, self._allow_hub)
        child, remarks = self._child, list[str]()
        late = threading.Timer(self.longest_s, child.kill)
        late.daemon = True
        late.start()
        try:
            with self._count:
                self._progress = {}
            if own is None:
                child.channel.send("call", name, arguments)
            else:
                self._send_yielding(child, own, name, arguments)
            while True:
                kind, *values = child.channel.receive()
                if kind == "progress":
                    with self._count:
                        self._progress = values[0]
                elif kind == "remark":
                    remarks.append(values[0])
                else:
                    return _result(name, kind, values), remarks
        except (EOFError, OSError, ValueError) as error:
            if isinstance(error, TinctureError):
                raise
            raise self._crash(child, name) from None
        finally:
            late.cancel()
            with self._count:
                self._progress = self._gives_way = None
            self._idle_from_now()

    def interrupt(self) -> None:
        """Asks the call at work to end, which then raises StoppedError where it was made; without one, does nothing."""
        with self._count:
            child = self._child if self._progress is not None else None
        if child is not None:
            with contextlib.suppress(OSError, ValueError):
                child.channel.send("stop")

    def progress(self) -> dict[str, Any] | None:
        """What the call at work reported last, empty before that; None while there is no call."""
        with self._count:
            return None if self._progress is None else dict(self._progress)

    def rest(self) -> bool:
        """Ends the process now if no call is at work, so that its memory is free; the next call gets a new one.

        Returns:
            Whether there is no process any more.
        """
        if not self._turn.acquire(blocking=False):
            return False
        try:
            self._stop_idling()
            self._end()
        finally:
            self._turn.release()
        return True

    def close(self) -> None:
        """Ends the process, with the call at work if there is one; later calls raise."""
        self._closed = True
        while not self._turn.acquire(timeout=0.1):
            if (child := self._child) is not None:
                child.kill()  # its caller sees that it is gone, and gives the turn back
        try:
            self._stop_idling()
            self._end()
        finally:
            self._turn.release()

    # --- the process -------------------------------------------------------------------------------------------------

    def _crash(self, child: _Child, name: str) -> TinctureError:
        code, tail = child.end()
        self._child = None
        if self._closed:  # it was ended on purpose
            return TinctureError("The server is being stopped; try again when it is back.")
        logger.error("The process for %r ended with code %s; it wrote last:\n%s", name, code, tail)
        if child.was_killed:
            return TinctureError(f"This took longer than {self.longest_s:g} s and was ended; ask for less at a time.")
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        hint = " Most likely memory ran out." if code == -9 else ""
        return TinctureError(f"The process that did this {how}.{hint} The next request gets a new one.")

    def _end(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None

    def _idle_from_now(self) -> None:
        """Called with the turn held: lets the process end when nobody calls for a while."""
        if self._child is None:
            return
        self._idle = threading.Timer(self.idle_s, self._idled, args=(self._child,))
        self._idle.daemon = True
        self._idle.start()

    def _stop_idling(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _idled(self, child: _Child) -> None:
        # Whoever has the turn now makes the process idle again later.
        if self._turn.acquire(blocking=False):
            try:
                if self._child is child and self._idle is threading.current_thread():
                    self._end()
            finally:
                self._turn.release()


@dataclass(eq=False)
class _Yielding:
    """A call that gives way, for whom."""

    key: str


class _Child:
    """The process and the connection to it."""

    def __init__(self, arguments: Sequence[str], workspace: Workspace, allow_hub: bool) -> None:
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by _tail
        self.was_killed = False
        own, other = multiprocessing.Pipe()
        # -P: what lies in the workspace is never imported.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tincture.server.model_process.process", *arguments, str(other.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            cwd=workspace.root,
            env=child_environment(allow_hub=allow_hub),
            pass_fds=[other.fileno()],
        )
        other.close()  # so that the child's end is closed when the child ends
        self.channel = Channel(own)

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """Ends it at once, whatever it does."""
        self.was_killed = True
        self._process.kill()

    def end(self) -> tuple[int, str]:
        """Ends it; its exit code, and the end of what it wrote."""
        self.channel.close()
        try:
            code = self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return code, self._tail()

    def _tail(self) -> str:
        with self._output as output:
            size = output.seek(0, 2)
            output.seek(max(0, size - TAIL))
            return output.read().decode("utf-8", "replace").strip()


def _result(name: str, kind: str, values: list[Any]) -> Any:
    if kind == "result":
        return values[0]
    if kind == "error":
        raise values[0]
    what, text, trace = values
    logger.error("%r failed:\n%s", name, trace)
    raise TinctureError(f"This failed for a reason that was not foreseen ({what}); the server's log says more.") from (
        RuntimeError(text)
    )
