"""A lock that says whether a process lives: the system frees it when its holder ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
from pathlib import Path
from typing import Any

from tincture.errors import StorageError

_fcntl = importlib.import_module("fcntl") if os.name == "posix" else None
_msvcrt = importlib.import_module("msvcrt") if os.name == "nt" else None
_HELD = frozenset({errno.EAGAIN, errno.EACCES, errno.EDEADLK})
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
                os.write(self._file, json.dumps({"process": process, **facts}).encode())

    def holder(self) -> int | None:
        """The process that was written down last; None when there is none."""
        process = self.facts().get("process")
        return process if isinstance(process, int) and process else None

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
