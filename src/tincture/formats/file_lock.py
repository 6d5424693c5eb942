"""A lock that says whether a process lives: the system frees it when its holder ends, however it ends.

On a folder that several machines share, most systems hold such locks for all of them. ``SharedLock`` is for those which
do not: its holder gives signs of life, and who finds the lock free waits whether any come from another machine.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from tincture.errors import StorageError

_fcntl = importlib.import_module("fcntl") if os.name == "posix" else None
_msvcrt = importlib.import_module("msvcrt") if os.name == "nt" else None
_HELD = frozenset({errno.EAGAIN, errno.EACCES, errno.EDEADLK})
BEAT_S = 5.0
"""Seconds between two signs of life of who holds a shared lock."""
SILENT_S = 30.0
"""Seconds without one after which a holder on another machine is taken to have ended."""
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_LOCKED_BYTE = 2**30  # far behind what is written: on Windows nobody reads the bytes that another one has locked


class FileLock:
    """Held from when it is taken until it is freed, or until the process ends.

    A process that is started with ``files`` passed on holds it too, and goes on holding it when this one leaves it:
    libraries of locks know no such thing. Two locks of one process on the same file exclude each other as well.

    Raises:
        StorageError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    @property
    def files(self) -> tuple[int, ...]:
        """Open files that hold it."""
        return () if self._file is None else (self._file,)

    def take(self) -> bool:
        """Takes the lock, unless another one holds it; returns whether this one holds it now."""
        while self._file is None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            except OSError as error:
                raise StorageError(f"{self.path} could not be written: {error.strerror or error}.") from error
            if not _locked(file):
                os.close(file)
                return False
            if _is_gone(file, self.path):  # its holder removed it between the opening and the locking
                os.close(file)
            else:
                self._file = file
        return True

    def name_holder(self, process: int, **facts: str) -> None:
        """Writes down which process holds it, and what else whoever finds it held is to know; a full disk goes without.

        Args:
            process: its number.
            facts: texts by name.
        """
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, 0)
                os.lseek(self._file, 0, os.SEEK_SET)
                os.write(self._file, json.dumps({"process": process, "host": this_host(), **facts}).encode())

    def holder(self) -> int | None:
        """The process of this machine that was written down last; None when there is none, or it is another's."""
        facts = self.facts()
        process = facts.get("process")
        here = facts.get("host") in (None, this_host())  # it was not written down once
        return process if here and isinstance(process, int) and process else None

    def facts(self) -> dict[str, Any]:
        """What was written down last, the holder's number under ``process``; empty when there is nothing."""
        try:
            found = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {"process": found}  # a number, as it was once

    def free(self, *, remove: bool = False) -> None:
        """Gives the lock back, so that another one can take it at once; ``remove``: and takes its file away."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                if remove and _msvcrt is None:
                    self.path.unlink()
            # Closing is not enough: a process that another thread starts in this moment has a copy until it is
            # replaced.
            with contextlib.suppress(OSError):
                _unlock(self._file)
        self.leave()

    def leave(self) -> None:
        """Leaves the lock to the process that it was passed on to."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


class SharedLock(FileLock):
    """The same on a folder that several machines share, with locks that may hold on one of them only.

    Who holds it writes its name down, has a ``Pulse`` beat for it, and wipes it before it frees it. Who takes it from
    a holder of another machine that did not wipe it waits until no sign of life has come for ``SILENT_S`` seconds by
    its own clock, so clocks need not agree. An instance that is asked again and again remembers since when.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._last: tuple[object, float] | None = None

    def take(self) -> bool:
        if self._file is None and super().take() and self._lives_elsewhere():
            self.free()
        return self._file is not None

    def wipe(self) -> None:
        """Forgets who held it: the next one need not wait."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, 0)

    def _lives_elsewhere(self) -> bool:
        facts = self.facts()
        if not facts or facts.get("host") in (None, this_host()):
            return False
        assert self._file is not None
        sign = (os.fstat(self._file).st_mtime_ns, facts)
        if self._last is None or self._last[0] != sign:
            self._last = sign, time.monotonic()
        return time.monotonic() - self._last[1] < SILENT_S


class Pulse:
    """Signs of life of who holds a shared lock: while it is open, the lock's file is touched every ``BEAT_S``."""

    def __init__(self, path: Path) -> None:
        self._path, self._ended = path, threading.Event()
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            with contextlib.suppress(OSError):
                os.utime(self._path)


def this_host() -> str:
    """This machine's name, and what tells it from others of that name since it was started."""
    with contextlib.suppress(OSError):
        return f"{socket.gethostname()} {_BOOT.read_text(encoding='ascii')[:8]}"
    return socket.gethostname()


def _locked(file: int) -> bool:
    """Locks an open file against all others; False when another one holds it, True where there are no locks."""
    try:
        if _fcntl is not None:
            _fcntl.flock(file, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
        elif _msvcrt is not None:
            os.lseek(file, _LOCKED_BYTE, os.SEEK_SET)
            _msvcrt.locking(file, _msvcrt.LK_NBLCK, 1)
    except OSError as error:
        return error.errno not in _HELD
    return True


def _unlock(file: int) -> None:
    if _fcntl is not None:
        _fcntl.flock(file, _fcntl.LOCK_UN)
    elif _msvcrt is not None:
        os.lseek(file, _LOCKED_BYTE, os.SEEK_SET)
        _msvcrt.locking(file, _msvcrt.LK_UNLCK, 1)


def _is_gone(file: int, path: Path) -> bool:
    """Whether the open file is no longer the one at ``path``."""
    try:
        return not os.path.samestat(os.fstat(file), path.stat())
    except OSError:
        return True
