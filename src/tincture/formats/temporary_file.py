"""A file while it is being written: locked, synced, and found again if its process was killed over it.

Such a file is hidden and has a suffix that no listing of adapters looks for. Its writer holds a lock on it, which the
system frees when the writer ends, however it ends; so what another process can lock belongs to nobody.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from io import BufferedWriter
from pathlib import Path

UNLOCKED_S = 24 * 3600.0
"""Where there are no locks, a file that was not written to for so long belongs to nobody."""
# On Windows there is none, and nobody deletes a file that another one has open.
_fcntl = importlib.import_module("fcntl") if os.name == "posix" else None
_NAME = re.compile(r"\.tincture-[0-9a-f]+\.tmp")
_HELD = frozenset({errno.EAGAIN, errno.EACCES, errno.EDEADLK})
# What a file system answers that knows no syncing of this kind of file: nothing was lost by that. EIO, ENOSPC and
# EDQUOT mean that something was.
_NOT_SYNCED_HERE = frozenset(
    {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EACCES, errno.EPERM, errno.ENOSYS}
    | {errno.EISDIR, errno.ENOTTY}
)


class TemporaryFile:
    """A new file in ``folder``, open for writing; ``close`` removes it unless ``move`` gave it its place.

    Attributes:
        file: what its content is written to.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        while True:
            self._path = folder / f".tincture-{secrets.token_hex(8)}.tmp"
            self.file: BufferedWriter = self._path.open("xb")
            # A sweeper that came before the lock has taken the file away, and another one is needed.
            if _lock(self.file.fileno()) is not False and self._path.exists():
                return
            self.file.close()

    def move(self, target: Path, *, durably: bool) -> None:
        """Puts the file in the place of ``target``; where ``durably``, once it is on the disk."""
        self.file.flush()
        if durably:
            sync(self.file.fileno())
        if _fcntl is None:
            self.file.close()
        # Before it is closed, so that no moment is left in which nobody holds it.
        self._path.replace(target)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.file.close()
        with contextlib.suppress(OSError):
            self._path.unlink()


def sync(descriptor: int) -> None:
    """Waits until a file is on the disk; where the file system knows no such thing, does nothing.

    Raises:
        OSError: the disk failed, or is full.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_SYNCED_HERE:
            raise


def sync_folder(folder: Path) -> None:
    """Makes a rename inside ``folder`` survive a power cut, where the system can open and sync folders.

    Raises:
        OSError: the disk failed, or is full.
    """
    if os.name != "posix":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        if error.errno in _NOT_SYNCED_HERE:
            return
        raise
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def is_temporary(name: str) -> bool:
    """Whether a file of this name is one that was being written."""
    return _NAME.fullmatch(name) is not None


def sweep(folder: Path, *, inner: bool = False) -> None:
    """Removes the files that processes left in ``folder`` which were killed while they wrote them.

    Those of living processes stay, of other programs too. What cannot be read or removed is left.

    Args:
        inner: in the folders inside it too; links are not followed.
    """
    for found in _temporaries(folder, inner):
        with contextlib.suppress(OSError):
            _remove_if_left(found)


def _temporaries(folder: Path, inner: bool) -> Iterator[Path]:
    for directory, subdirectories, names in os.walk(folder):
        yield from (Path(directory, name) for name in names if is_temporary(name))
        if not inner:
            subdirectories.clear()


def _remove_if_left(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    try:
        locked = _lock(descriptor)
        old = time.time() - os.fstat(descriptor).st_mtime > UNLOCKED_S
        # Removed while it is locked: a writer that has just made it finds that out, see ``TemporaryFile``.
        if _fcntl is not None and (locked or (locked is None and old)):
            path.unlink()
    finally:
        os.close(descriptor)
    if _fcntl is None and old:
        path.unlink()


def _lock(descriptor: int) -> bool | None:
    """Whether the file is ours now, or another one's (False); None where there are no locks."""
    if _fcntl is None:
        return None
    try:
        _fcntl.flock(descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in _HELD else None
    return True
