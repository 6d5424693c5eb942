"""A file system that cannot sync loses nothing by that, and what killed processes left is swept, never more."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tincture.errors import StorageError
from tincture.formats import temporary_file
from tincture.formats.files import write_atomically
from tincture.formats.temporary_file import TemporaryFile, is_temporary, sweep

WRITER = """
import sys
from pathlib import Path
from tincture.formats.files import write_atomically
def write(file):
    file.write(b"half of the new")
    file.flush()
    print("writing", flush=True)
    sys.stdin.read()
write_atomically(Path(sys.argv[1]) / "file", write)
"""


def failing(number: int, when: Callable[[int], bool]) -> Callable[[int], None]:
    def fsync(descriptor: int) -> None:
        if when(descriptor):
            raise OSError(number, os.strerror(number))

    return fsync


def is_folder(descriptor: int) -> bool:
    return os.path.isdir(f"/proc/self/fd/{descriptor}")


def temporaries(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if is_temporary(path.name)]


# --- syncing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EACCES])
@pytest.mark.parametrize("when", [is_folder, lambda descriptor: True])
def test_a_disk_that_knows_no_syncing_is_no_failed_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, when: Callable[[int], bool]
) -> None:
    monkeypatch.setattr(os, "fsync", failing(number, when))
    write_atomically(tmp_path / "file", lambda file: file.write(b"new") and None)
    assert (tmp_path / "file").read_bytes() == b"new"
    assert temporaries(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("when", [is_folder, lambda descriptor: not is_folder(descriptor)])
def test_a_disk_that_fails_is_a_failed_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, when: Callable[[int], bool]
) -> None:
    monkeypatch.setattr(os, "fsync", failing(number, when))
    with pytest.raises(StorageError, match="could not be written"):
        write_atomically(tmp_path / "file", lambda file: None)
    assert temporaries(tmp_path) == []


def test_a_folder_that_cannot_be_opened_is_no_failed_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that may be written and entered, but not listed."""
    opened = os.open

    def refusing(path: str | Path, flags: int, *rest: int) -> int:
        if Path(path) == tmp_path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, flags, *rest)

    monkeypatch.setattr(os, "open", refusing)
    write_atomically(tmp_path / "file", lambda file: file.write(b"new") and None)
    assert (tmp_path / "file").read_bytes() == b"new"


# --- what is left over ------------------------------------------------------------------------------------------------


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is in the middle of writing ``file``."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout and process.stdout.readline() == "writing\n"
        yield process
        process.kill()


def test_what_a_killed_process_left_goes_with_the_next_write(writer: subprocess.Popen[str], tmp_path: Path) -> None:
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert len(temporaries(tmp_path)) == 1
    write_atomically(tmp_path / "other", lambda file: None)
    assert temporaries(tmp_path) == []


def test_what_a_living_process_writes_stays(writer: subprocess.Popen[str], tmp_path: Path) -> None:
    (written,) = temporaries(tmp_path)
    os.utime(written, (1, 1))
    sweep(tmp_path)
    write_atomically(tmp_path / "other", lambda file: None)
    assert temporaries(tmp_path) == [written]
    assert writer.stdin
    writer.stdin.close()
    assert writer.wait() == 0
    assert (tmp_path / "file").read_bytes() == b"half of the new"
    assert temporaries(tmp_path) == []


def test_only_files_of_this_kind_are_swept(tmp_path: Path) -> None:
    others = [".tincture-notes.txt", ".tincture-0.tmp.bak", "tincture-0.tmp", ".other-0.tmp", ".tincture-xyz.tmp"]
    for name in (*others, ".tincture-0123456789abcdef.tmp"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / ".tincture-00.tmp").symlink_to(tmp_path / ".tincture-notes.txt")
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, ".tincture-00.tmp"])


def test_inner_folders_are_swept_where_that_is_asked_for(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b" / ".tincture-0.tmp"
    inner.parent.mkdir(parents=True)
    inner.touch()
    sweep(tmp_path)
    assert inner.exists()
    sweep(tmp_path, inner=True)
    assert not inner.exists()
    sweep(tmp_path / "none", inner=True)


def test_a_file_that_was_swept_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, calls = temporary_file._lock, list[int]()

    def late(descriptor: int) -> bool | None:
        calls.append(descriptor)
        if len(calls) == 1:
            sweep(tmp_path)
        return lock(descriptor)

    monkeypatch.setattr(temporary_file, "_lock", late)
    file = TemporaryFile(tmp_path)
    file.file.write(b"content")
    file.move(tmp_path / "file", durably=False)
    file.close()
    assert (tmp_path / "file").read_bytes() == b"content"
    assert temporaries(tmp_path) == []


def test_where_there_are_no_locks_only_old_files_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporary_file, "_lock", lambda descriptor: None)
    young, old = tmp_path / ".tincture-0.tmp", tmp_path / ".tincture-1.tmp"
    young.touch()
    old.touch()
    os.utime(old, (time.time() - 2 * temporary_file.UNLOCKED_S,) * 2)
    sweep(tmp_path)
    assert temporaries(tmp_path) == [young]
