from __future__ import annotations

from pathlib import Path

import pytest

from tincture.errors import UsageError
from tincture.preprocessing import lock
from tincture.preprocessing.lock import LOCK, sole_use


def test_a_folder_is_held_against_others_and_left_clean(tmp_path: Path) -> None:
    folder = tmp_path / "out" / "crops"
    with sole_use(folder):
        assert (folder / LOCK).exists()
        with pytest.raises(UsageError, match="Another run is writing to"), sole_use(folder):
            pass
    assert list(folder.iterdir()) == []


def test_a_file_that_was_removed_before_it_was_locked_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_time = lock.try_lock

    def late(file: int) -> bool:
        (tmp_path / LOCK).unlink()  # as a run does that ends now
        return in_time(file)

    monkeypatch.setattr(lock, "try_lock", late)
    with pytest.raises(UsageError, match="call again"), sole_use(tmp_path):
        pass
    monkeypatch.undo()
    with sole_use(tmp_path):
        pass
