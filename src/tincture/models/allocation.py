"""What becomes of memory that a tensor on a processor no longer needs: a run keeps it for the next tensor.

glibc gives blocks above a bound, at most 32 MiB, back to the system as soon as they are free, and the system hands out
the next one page by page, each filled with zeros. A step of Stable Diffusion on a processor makes such blocks by the
hundred, and spent a sixth of its time so. Nothing here loads torch; where there is no glibc, nothing happens.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from typing import Any

# of glibc's malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_HIGH = {_MMAP_THRESHOLD: 2**30, _TRIM_THRESHOLD: 2**30}
# the most that glibc comes to by itself
_USUAL = {_MMAP_THRESHOLD: 2**25, _TRIM_THRESHOLD: 2**26}
_VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


@contextlib.contextmanager
def keeping_freed_memory() -> Iterator[None]:
    """Inside, freed blocks of up to 1 GiB stay with the process; afterwards they go back to the system.

    The most that the process takes does not grow. A user who set one of glibc's own variables is not overruled.
    """
    library = None if any(os.environ.get(name) for name in _VARIABLES) else _glibc()
    if library is None:
        yield
        return
    _bound(library, _HIGH)
    try:
        yield
    finally:
        _give_back(library)


@contextlib.contextmanager
def usual_memory() -> Iterator[None]:
    """Inside ``keeping_freed_memory``, glibc's own way again; for what is measured beside a run."""
    library = _glibc()
    if library is None:
        yield
        return
    _give_back(library)
    try:
        yield
    finally:
        _bound(library, _HIGH)


def _give_back(library: Any) -> None:
    _bound(library, _USUAL)
    library.malloc_trim(0)


def _bound(library: Any, bounds: dict[int, int]) -> None:
    for parameter, value in bounds.items():
        library.mallopt(parameter, value)


def _glibc() -> Any:
    """The C library of this process; None where it is another than glibc."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    is_glibc = all(hasattr(library, name) for name in ("gnu_get_libc_version", "mallopt", "malloc_trim"))
    return library if is_glibc else None
