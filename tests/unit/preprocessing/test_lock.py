from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tincture.errors import StorageError, UsageError
from tincture.preprocessing.lock import LOCK, sole_use

HOLDER = """
import pathlib, sys, time
from tincture.preprocessing.lock import sole_use
with sole_use(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_folder_is_held_against_others_and_left_clean(tmp_path: Path) -> None:
    folder = tmp_path / "out" / "crops"
    with sole_use(folder):
        assert (folder / LOCK).exists()
        with pytest.raises(UsageError, match="Another run is writing to"), sole_use(folder):
            pass
    assert list(folder.iterdir()) == []


def test_a_process_holds_it_until_it_ends_and_what_a_killed_one_leaves_holds_nothing(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE)
    assert holder.stdout and holder.stdout.readline() == b"held\n"
    with pytest.raises(UsageError, match="Another run is writing to"), sole_use(tmp_path):
        pass
    holder.kill()
    holder.communicate(timeout=60)
    assert (tmp_path / LOCK).exists()
    with sole_use(tmp_path):
        pass
    assert not (tmp_path / LOCK).exists()


def test_a_file_that_was_removed_before_it_was_locked_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_time = fcntl.flock

    def late(file: int, operation: int) -> Any:
        (tmp_path / LOCK).unlink()  # as a run does that ends now
        return in_time(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(UsageError, match="call again"), sole_use(tmp_path):
        pass
    monkeypatch.undo()
    with sole_use(tmp_path):
        pass


def test_a_disk_without_locks_is_used_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", lacking)
    with sole_use(tmp_path):
        (tmp_path / "picture.png").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "file" / "crops"
    folder.parent.touch()
    with pytest.raises(StorageError, match=r"file/crops cannot be written: .*Choose another folder"), sole_use(folder):
        pass
