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
    frozen_for_good = [object()]
    gc.freeze()
    try:
        with heavy_imports():
            pass
        assert not any(found is frozen_for_good for found in gc.get_objects())  # that list leaves out what is frozen
    finally:
        gc.unfreeze()
