from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tincture.formats.file_lock import FileLock

PATIENCE = 60


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "lock"


def test_one_at_a_time_holds_it(path: Path) -> None:
    one, other = FileLock(path), FileLock(path)
    assert one.take() and one.take()
    assert not other.take()
    one.free()
    assert other.take()
    other.free()


def test_it_is_free_at_once_though_a_process_that_is_being_started_has_a_copy(path: Path) -> None:
    lock = FileLock(path)
    assert lock.take()
    copy = os.dup(lock.files[0])  # as between fork and exec of whatever another thread starts
    lock.free()
    assert lock.take()
    lock.free()
    os.close(copy)


def test_a_process_that_it_was_passed_on_to_holds_it_until_it_ends(path: Path) -> None:
    lock = FileLock(path)
    assert lock.take()
    holder = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=lock.files)
    lock.name_holder(holder.pid)
    lock.leave()
    assert not lock.take()
    assert lock.holder() == holder.pid
    holder.communicate(timeout=PATIENCE)
    assert lock.take()
    lock.free()
