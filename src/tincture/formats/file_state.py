"""What tells a file apart from what it was, without reading it."""

from __future__ import annotations

import os
from typing import NamedTuple


class FileState(NamedTuple):
    """Another one whenever a file is written anew.

    Times of writing can be set by anybody, and are by programs that unpack or copy. The time of the last change of
    anything cannot, and a file that is moved into a place has an inode of its own.

    Attributes:
        inode: its number on the disk.
        size: in bytes.
        written_ns: when its content changed last.
        changed_ns: when anything of it changed last.
    """

    inode: int
    size: int
    written_ns: int
    changed_ns: int


def state_of(found: os.stat_result) -> FileState:
    """The state that the system tells of."""
    return FileState(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
