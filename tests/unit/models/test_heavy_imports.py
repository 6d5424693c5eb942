from __future__ import annotations

import gc

import pytest

from tincture.models.heavy_imports import heavy_imports


def test_nothing_is_searched_inside_and_all_is_as_before_afterwards() -> None:
    with pytest.raises(ValueError, match="broken"), heavy_imports():
        assert not gc.isenabled()
        raise ValueError("broken")
    assert gc.isenabled() and not gc.get_freeze_count()


def test_who_searches_not_or_froze_something_keeps_that() -> None:
    gc.disable()
    try:
        with heavy_imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        with heavy_imports():
            pass
        assert gc.get_freeze_count() >= frozen > 0
    finally:
        gc.unfreeze()
