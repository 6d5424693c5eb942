"""One run at a time in a folder. The system frees the lock when its holder ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from tincture.errors import StorageError, UsageError

LOCK = ".preprocess.lock"
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}


@contextlib.contextmanager
def sole_use(folder: Path) -> Iterator[None]:
    """Hold the folder, which is made if it is not there, against other runs; where the disk has no locks, do nothing.

    Raises:
        UsageError: another run holds it.
        StorageError: it cannot be written.
    """
    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        raise UsageError(
            f"Another run is writing to {folder}; wait until it ends, and call again, or choose another folder."
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            reason = error.strerror or error
            raise StorageError(
                f"The destination {folder} cannot be written: {reason}. Choose another folder."
            ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / LOCK).unlink()  # while it is held: another run that has just opened it tries anew
        lock.release()
