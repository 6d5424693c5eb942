"""The sha256 of large files, remembered between runs by path, inode, size and times of change.

One small file per remembered hash lies in ``tincture/hashes`` of the user's cache folder, so that programs that run at
once do not disturb each other. A folder that cannot be read or written means that hashes are worked out each time.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from tincture.errors import FileFormatError, StorageError, TinctureError
from tincture.formats.file_state import FileState, state_of
from tincture.formats.files import write_text
from tincture.formats.user_cache import user_cache

# Reading a smaller file takes less time than looking its hash up is worth.
SMALL_FILE = 32 * 2**20
_BLOCK = 2**20
_HASH = re.compile(r"[0-9a-f]{64}")


def cache_folder() -> Path:
    """Where hashes are remembered."""
    return user_cache("hashes")


def sha256_of(paths: Sequence[Path]) -> str:
    """The sha256 over the contents of ``paths`` in that order, 64 hex digits.

    Raises:
        FileFormatError: there is no such file.
        StorageError: the system refuses to read one.
    """
    found = [_state(path) for path in paths]
    if sum(state.size for _, state in found) <= SMALL_FILE:
        return _digest(paths)
    entry = _entry(found)
    remembered = _remembered(entry)
    if remembered is not None:
        return remembered
    digest = _digest(paths)
    if [_state(path) for path in paths] == found:
        _remember(entry, digest)
    return digest


def remembered_sha256(path: Path) -> str | None:
    """The sha256 of a file as it is now, if it was worked out before and is remembered; takes no time."""
    try:
        return _remembered(_entry([_state(path)]))
    except TinctureError:
        return None


def _entry(found: Sequence[tuple[str, FileState]]) -> Path:
    return cache_folder() / hashlib.sha256(repr(found).encode()).hexdigest()


def _state(path: Path) -> tuple[str, FileState]:
    """A file's real path, and what tells it apart from what it was."""
    try:
        real = os.path.realpath(path)
        return real, state_of(os.stat(real))
    except FileNotFoundError as error:
        raise FileFormatError(f"There is no file {path}; check its name and folder.") from error
    except OSError as error:
        raise StorageError(f"{path} could not be read: {error.strerror or error}.") from error


def _digest(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
        except OSError as error:
            raise StorageError(f"{path} could not be read: {error.strerror or error}.") from error
    return digest.hexdigest()


def _remembered(entry: Path) -> str | None:
    try:
        text = entry.read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    return text if _HASH.fullmatch(text) else None


def _remember(entry: Path, digest: str) -> None:
    try:
        write_text(entry, digest)
    except (TinctureError, OSError):
        return
