"""Hashes of large files are remembered as long as the file is the same, and nothing depends on that."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from tincture.errors import FileFormatError
from tincture.formats import hash_cache
from tincture.formats.hash_cache import cache_folder, remembered_sha256, sha256_of


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(hash_cache, "SMALL_FILE", 3)
    return tmp_path / "cache" / "tincture" / "hashes"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[list[Path]]:
    """What was read in order to work out a hash."""
    read: list[list[Path]] = []
    digest = hash_cache._digest
    monkeypatch.setattr(hash_cache, "_digest", lambda paths: read.append(list(paths)) or digest(paths))
    return read


def write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def test_a_file_is_read_once(tmp_path: Path, folder: Path, reads: list[list[Path]]) -> None:
    digest = write(tmp_path / "a", b"weights")

    assert [sha256_of([tmp_path / "a"]) for _ in range(3)] == [digest] * 3
    assert len(reads) == 1
    assert cache_folder() == folder and len(list(folder.iterdir())) == 1


def test_what_is_remembered_is_told_without_reading(tmp_path: Path, reads: list[list[Path]]) -> None:
    digest = write(tmp_path / "a", b"weights")
    assert remembered_sha256(tmp_path / "a") is None
    assert remembered_sha256(tmp_path / "none") is None
    assert not reads
    sha256_of([tmp_path / "a"])
    assert remembered_sha256(tmp_path / "a") == digest
    write(tmp_path / "a", b"other weights")
    assert remembered_sha256(tmp_path / "a") is None


def test_several_files_have_one_hash(tmp_path: Path) -> None:
    write(tmp_path / "a", b"wei")
    write(tmp_path / "b", b"ghts")

    assert sha256_of([tmp_path / "a", tmp_path / "b"]) == hashlib.sha256(b"weights").hexdigest()


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    write(tmp_path / "a", b"weights")
    sha256_of([tmp_path / "a"])
    digest = write(tmp_path / "a", b"weightz")
    os.utime(tmp_path / "a", ns=(1, 1))

    assert sha256_of([tmp_path / "a"]) == digest


def test_small_files_are_not_remembered(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, reads: list[list[Path]]
) -> None:
    monkeypatch.setattr(hash_cache, "SMALL_FILE", 100)
    digest = write(tmp_path / "a", b"weights")

    assert [sha256_of([tmp_path / "a"]) for _ in range(2)] == [digest] * 2
    assert not folder.exists() and len(reads) == 2


def test_a_damaged_entry_is_not_believed(tmp_path: Path, folder: Path) -> None:
    digest = write(tmp_path / "a", b"weights")
    sha256_of([tmp_path / "a"])
    for entry in folder.iterdir():
        entry.write_bytes(b"\xff\xfe nonsense")

    assert sha256_of([tmp_path / "a"]) == digest


def test_a_folder_that_cannot_be_written_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "file", b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    digest = write(tmp_path / "a", b"weights")

    assert [sha256_of([tmp_path / "a"]) for _ in range(2)] == [digest] * 2


def test_a_relative_cache_folder_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As the XDG standard has it."""
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    monkeypatch.setenv("HOME", str(tmp_path))

    assert cache_folder() == tmp_path / ".cache" / "tincture" / "hashes"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"There is no file .*/a"):
        sha256_of([tmp_path / "a"])


@pytest.mark.parametrize("way", ["written in place", "moved into its place"])
def test_a_file_of_the_same_size_and_time_is_read_again(tmp_path: Path, way: str) -> None:
    """Programs that copy or unpack set the time of writing to what it was elsewhere."""
    write(tmp_path / "a", b"weights")
    os.utime(tmp_path / "a", ns=(1, 1))
    sha256_of([tmp_path / "a"])
    place = tmp_path / ("a" if way == "written in place" else "b")
    digest = write(place, b"weightz")
    os.utime(place, ns=(1, 1))
    place.replace(tmp_path / "a")

    assert remembered_sha256(tmp_path / "a") is None
    assert sha256_of([tmp_path / "a"]) == digest
