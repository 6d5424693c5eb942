"""One run at a time in a folder. The system frees the lock when its holder ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from tincture.errors import StorageError, UsageError

LOCK = ".preprocess.lock"


@contextlib.contextmanager
def sole_use(folder: Path) -> Iterator[None]:
    """Hold the folder, which is made if it is not there, against other runs; where the system has no locks, do nothing.

    Raises:
        UsageError: another run holds it.
        StorageError: it cannot be written.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(f"The destination {folder} cannot be written: {reason}. Choose another folder.") from error
    try:
        if not (try_lock(file) and _is_at(path, file)):
            raise UsageError(
                f"Another run is writing to {folder}; wait until it ends, and call again, or choose another folder."
            )
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()
    finally:
        os.close(file)


def _is_at(path: Path, file: int) -> bool:
    """Whether the file is still there: a run that ends removes its own, also when another has just opened it."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except OSError:
        return False


def try_lock(file: int) -> bool:
    """Lock an open file against other processes; False when another one holds it, True where there are no locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
    return True


def unlock(file: int) -> None:
    """Give the lock back at once, also where a process that is being started still has a copy of the open file."""
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file, msvcrt.LK_UNLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_UN)
