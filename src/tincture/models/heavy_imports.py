"""Importing torch, diffusers and transformers without searching for garbage meanwhile."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Imports inside leave a million objects, all of which stay: to look for unused ones takes a fifth of the time.

    What is made inside counts as old afterwards, so that not every later search goes through it either.
    """
    searches = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if searches:
            if not gc.get_freeze_count():  # else it would thaw what somebody froze for good
                gc.freeze()
                gc.unfreeze()  # into the oldest generation
            gc.enable()
