"""A lock that says whether a process lives: the system frees it when its holder ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from tincture.errors import StorageError


class FileLock:
    """Held from when it is taken until it is freed, or until the process ends.

    A process that is started with ``files`` passed on holds it too, and goes on holding it when this one leaves it:
    libraries of locks know no such thing.

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
        if self._file is not None:
            return True
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StorageError(f"{self.path} could not be written: {error.strerror or error}.") from error
        if not _locked(file):
            os.close(file)
            return False
        self._file = file
        return True

    def name_holder(self, process: int) -> None:
        """Writes down which process holds it; a full disk goes without."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, 0)
                os.pwrite(self._file, str(process).encode(), 0)

    def holder(self) -> int | None:
        """The process that was written down last; None when there is none."""
        try:
            return int(self.path.read_bytes()) or None
        except (OSError, ValueError):
            return None

    def free(self) -> None:
        """Gives the lock back, so that another one can take it at once."""
        # Closing is not enough: a process that another thread starts in this moment has a copy until it is replaced.
        if self._file is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(self._file, fcntl.LOCK_UN)
        self.leave()

    def leave(self) -> None:
        """Leaves the lock to the process that it was passed on to."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _locked(file: int) -> bool:
    """Locks an open file against other processes; False when another one holds it, True where there are no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
    return True
