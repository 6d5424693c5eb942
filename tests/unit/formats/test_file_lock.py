from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tincture.formats import file_lock
from tincture.formats.file_lock import FileLock, Pulse, SharedLock, this_host

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


def test_a_process_of_another_machine_is_nobody_here(path: Path) -> None:
    """Its number may be that of any process on this one."""
    lock = FileLock(path)
    assert lock.take()
    lock.name_holder(os.getpid())
    assert (lock.holder(), lock.facts()["host"]) == (os.getpid(), this_host())
    lock.name_holder(os.getpid(), host="mars 0123abcd")
    assert lock.holder() is None
    path.write_text(f'{{"process": {os.getpid()}}}')  # as an earlier version wrote it
    assert lock.holder() == os.getpid()
    lock.free()


def left_by(path: Path, host: str) -> None:
    """A lock that the system has freed, or never held for this machine, with who held it written down still."""
    lock = FileLock(path)
    assert lock.take()
    lock.name_holder(4711, host=host)
    lock.free()


def test_a_holder_on_another_machine_is_waited_for_while_it_gives_signs_of_life(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system holds locks for one machine only."""
    now = [0.0]
    monkeypatch.setattr(file_lock.time, "monotonic", lambda: now[0])
    left_by(path, "mars 0123abcd")
    lock = SharedLock(path)
    for beat in range(3):
        os.utime(path, ns=(beat, beat))  # by its own clock, however wrong
        assert not lock.take()
        now[0] += file_lock.SILENT_S - 1
        assert not lock.take()
        other = FileLock(path)
        assert other.take()  # nobody else is kept from it meanwhile
        other.free()
    now[0] += 2
    assert lock.take()
    lock.name_holder(os.getpid())
    lock.free()
    assert SharedLock(path).take()


@pytest.mark.parametrize("case", ["this-host", "wiped", "nobody"])
def test_who_held_it_here_or_wiped_it_is_not_waited_for(path: Path, case: str) -> None:
    if case != "nobody":
        left_by(path, this_host() if case == "this-host" else "mars 0123abcd")
    if case == "wiped":
        path.write_bytes(b"")
    assert SharedLock(path).take()


def test_a_shared_lock_is_held_by_one_at_a_time_too(path: Path) -> None:
    one, other = SharedLock(path), SharedLock(path)
    assert one.take() and one.take()
    assert not other.take()
    one.name_holder(os.getpid())
    one.wipe()
    assert one.facts() == {}
    one.free()
    assert other.take()


def test_signs_of_life_end_with_who_gives_them(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_lock, "BEAT_S", 0.01)
    left_by(path, "mars 0123abcd")
    os.utime(path, ns=(1, 1))
    pulse = Pulse(path)
    deadline = time.monotonic() + PATIENCE
    while path.stat().st_mtime_ns == 1:
        assert time.monotonic() < deadline
    pulse.close()
    os.utime(path, ns=(1, 1))
    time.sleep(0.05)
    assert path.stat().st_mtime_ns == 1
