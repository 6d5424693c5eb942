from __future__ import annotations

import errno
import hashlib
import io
import os
import pickle
import resource
import signal
import stat
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch

from tests.unit.formats.webui_gate import refusals
from tincture.errors import FileFormatError, StorageError
from tincture.formats.files import (
    atomic_torch_save,
    parse_torch,
    read_bytes,
    require_own_values,
    require_place,
    safe_torch_load,
    sha256_file,
    short_hash,
    write_atomically,
    write_new,
)
from tincture.run.memory.whole_process import FILES_OF_A_STATE

VALUES = {
    "tensor": torch.arange(6.0).reshape(2, 3),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "long": torch.arange(3),
    "nested": [1, "two", None, (True, 2.5)],
    7: {"parameter": torch.nn.Parameter(torch.ones(2))},
}


class Payload:
    """Unpickling this runs code."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.endswith(".tmp")]


def in_child(act: Callable[[], None]) -> int:
    """Runs ``act`` in a child process; its exit status, or minus the signal that ended it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn of forks beside torch's threads
        pid = os.fork()
    if pid == 0:
        try:
            act()
        except BaseException:
            os._exit(99)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# --- writing ----------------------------------------------------------------------------------------------------------


def test_what_is_written_takes_the_place_of_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    write_atomically(path, lambda file: file.write(b"new") and None)
    assert path.read_bytes() == b"new"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt(), ValueError("no")])
def test_an_old_file_outlives_a_write_that_raises_midway(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(file: BinaryIO) -> None:
        file.write(b"half of the new")
        assert path.read_bytes() == b"old"
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, write)
    assert path.read_bytes() == b"old"
    assert leftovers(tmp_path) == []


def test_an_old_file_outlives_a_process_killed_midway(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(file: BinaryIO) -> None:
        file.write(b"half of the new")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(lambda: write_atomically(path, write)) == -signal.SIGKILL
    assert path.read_bytes() == b"old"


def test_no_file_appears_when_the_first_write_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        write_atomically(tmp_path / "file", lambda file: file.write(b"x" * (1 // 0)) and None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "no permission"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "input/output error"),
    ],
)
def test_what_the_system_refuses_is_told_in_a_sentence(tmp_path: Path, number: int, words: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(file: BinaryIO) -> None:
        file.write(b"half of the new")
        raise OSError(number, os.strerror(number))

    with pytest.raises(StorageError) as error:
        write_atomically(path, write)
    assert str(path) in str(error.value)
    assert words in str(error.value)
    assert path.read_bytes() == b"old"
    assert leftovers(tmp_path) == []


def test_a_disk_that_fills_up_while_syncing_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.pt"
    atomic_torch_save({"step": 1}, path)

    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageError, match="the disk is full"):
        atomic_torch_save({"step": 2}, path)
    assert safe_torch_load(path) == {"step": 1}
    assert leftovers(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="other systems open no folders")
def test_a_durable_write_waits_for_the_file_and_then_for_its_new_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    synced: list[tuple[int, bool]] = []
    sizes: list[int] = []

    def fsync(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_ino, path.exists()))
        sizes.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomically(path, lambda file: None, durably=False)
    assert not synced
    path.unlink()
    write_atomically(path, lambda file: file.write(b"content") and None)
    assert sizes[0] == len(b"content")
    assert synced == [(path.stat().st_ino, False), (tmp_path.stat().st_ino, True)]


def test_a_limit_of_the_system_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    atomic_torch_save({"step": 1}, path)

    def save_beyond_the_limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        with pytest.raises(StorageError, match="could not be written"):
            atomic_torch_save({"step": 2, "tensor": torch.zeros(10000)}, path)

    assert in_child(save_beyond_the_limit) == 0
    assert safe_torch_load(path) == {"step": 1}
    assert leftovers(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="no permission"):
        write_atomically(tmp_path / "file", lambda file: None)


def test_a_file_where_a_folder_is_needed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(StorageError, match="a file stands where a folder is needed"):
        write_atomically(tmp_path / "file" / "inner", lambda file: None)


def test_a_folder_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "name").mkdir()
    with pytest.raises(StorageError, match="a folder of that name"):
        write_atomically(tmp_path / "name", lambda file: None)
    assert leftovers(tmp_path) == []


def test_missing_folders_are_made(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b" / "file", lambda file: file.write(b"new") and None)
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"new"


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "file"
    target.write_bytes(b"old")
    (tmp_path / "link").symlink_to(target)
    write_atomically(tmp_path / "link", lambda file: file.write(b"new") and None)
    assert (tmp_path / "link").is_symlink()
    assert target.read_bytes() == b"new"


def test_a_new_file_takes_the_place_of_none(tmp_path: Path) -> None:
    assert write_new(tmp_path / "new", b"first")
    assert not write_new(tmp_path / "new", b"second")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    assert not write_new(tmp_path / "link", b"x") and not write_new(tmp_path / "folder", b"x")
    assert (tmp_path / "new").read_bytes() == b"first" and not (tmp_path / "nowhere").exists()
    with pytest.raises(StorageError, match="could not be written: no such file or directory"):
        write_new(tmp_path / "missing" / "new", b"x")


def test_a_new_file_that_cannot_be_written_whole_is_taken_away(tmp_path: Path) -> None:
    def write() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
        with pytest.raises(StorageError):
            write_new(tmp_path / "new", bytes(100))

    assert in_child(write) == 0
    assert list(tmp_path.iterdir()) == []


def test_others_may_read_the_file_as_far_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_atomically(tmp_path / "file", lambda file: None)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


# --- torch files ------------------------------------------------------------------------------------------------------


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return type(a) is type(b) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    return bool(a == b)


def test_torch_files_round_trip(tmp_path: Path) -> None:
    atomic_torch_save(VALUES, tmp_path / "file.pt")
    assert equal(safe_torch_load(tmp_path / "file.pt"), VALUES)
    assert equal(torch.load(tmp_path / "file.pt", weights_only=True), VALUES)


def test_torch_files_pass_the_webuis_gate(tmp_path: Path) -> None:
    atomic_torch_save(VALUES, tmp_path / "file.pt")
    assert refusals(tmp_path / "file.pt") == []
    torch.save(VALUES, tmp_path / "plain.pt")
    assert refusals(tmp_path / "plain.pt"), "the gate in this test does not close"


def test_equal_objects_give_equal_bytes(tmp_path: Path) -> None:
    atomic_torch_save(VALUES, tmp_path / "a.pt")
    atomic_torch_save(VALUES, tmp_path / "b.pt")
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}, "the time of day is in the file"


def test_the_legacy_format_is_read(tmp_path: Path) -> None:
    torch.save(VALUES, tmp_path / "file.pt", _use_new_zipfile_serialization=False)
    assert equal(safe_torch_load(tmp_path / "file.pt"), VALUES)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_torch_file_never_runs(tmp_path: Path, zipped: bool) -> None:
    marker = tmp_path / "ran"
    torch.save({"x": Payload(marker)}, tmp_path / "file.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(FileFormatError, match=r"file\.pt is not loaded.*posix\.system, which could run code") as error:
        safe_torch_load(tmp_path / "file.pt")
    assert not marker.exists()
    assert "weights_only" not in str(error.value), "torch's advice to load it all the same is passed on"


@pytest.mark.parametrize("protocol", range(6))
def test_code_in_a_plain_pickle_never_runs(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "ran"
    (tmp_path / "file.pt").write_bytes(pickle.dumps(Payload(marker), protocol=protocol))
    with pytest.raises(FileFormatError, match=r"file\.pt"):
        safe_torch_load(tmp_path / "file.pt")
    assert not marker.exists()


def test_code_beside_a_parameter_dict_never_runs(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    torch.save([torch.nn.ParameterDict({"*": torch.ones(2)}), Payload(marker)], tmp_path / "file.pt")
    with pytest.raises(FileFormatError, match=r"could run code"):
        safe_torch_load(tmp_path / "file.pt")
    assert not marker.exists()


def test_reading_a_parameter_dict_leaves_torchs_own_list_of_safe_classes(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    torch.save(torch.nn.ParameterDict({"*": torch.ones(2)}), tmp_path / "file.pt")
    assert torch.equal(safe_torch_load(tmp_path / "file.pt")._parameters["*"], torch.ones(2))
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\0" * 100, "file.pt"),
        (b"hello", "file.pt"),
        (b"PK\x03\x04" + b"\0" * 60, "file.pt"),
        (b"<html>not found</html>", "file.pt"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 60, "file.pt"),
    ],
)
def test_what_is_no_torch_file_is_refused_in_a_sentence(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(FileFormatError, match=words) as error:
        safe_torch_load(tmp_path / "file.pt")
    assert str(error.value).endswith(".")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_file_cut_anywhere_is_refused(tmp_path: Path, zipped: bool) -> None:
    buffer = io.BytesIO()
    torch.save(VALUES, buffer, _use_new_zipfile_serialization=zipped)
    content = buffer.getvalue()
    path = tmp_path / "file.pt"
    for length in range(0, len(content) - 1, 37):
        path.write_bytes(content[:length])
        with pytest.raises(FileFormatError):
            safe_torch_load(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_file_with_wrong_bytes_is_read_or_refused(tmp_path: Path, zipped: bool) -> None:
    buffer = io.BytesIO()
    torch.save(VALUES, buffer, _use_new_zipfile_serialization=zipped)
    path = tmp_path / "file.pt"
    generator = torch.Generator().manual_seed(0)
    refused = 0
    for _ in range(150):
        content = bytearray(buffer.getvalue())
        for position in torch.randint(len(content), (3,), generator=generator).tolist():
            content[position] = int(torch.randint(256, (1,), generator=generator))
        path.write_bytes(content)
        try:
            safe_torch_load(path)
        except FileFormatError:
            refused += 1
    assert refused > 20


def test_a_file_made_to_fill_the_memory_is_refused(tmp_path: Path) -> None:
    atomic_torch_save({"tensor": torch.zeros(1_000_000)}, tmp_path / "honest.pt")
    with (
        zipfile.ZipFile(tmp_path / "honest.pt") as source,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(FileFormatError, match="would unpack to"):
        safe_torch_load(tmp_path / "bomb.pt")


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for read in (safe_torch_load, sha256_file, short_hash):
        with pytest.raises(FileFormatError, match=r"There is no file .*nowhere\.pt"):
            read(tmp_path / "nowhere.pt")
        with pytest.raises(FileFormatError, match="is a folder"):
            read(tmp_path)


def test_hashes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_file(tmp_path / "file") == hashlib.sha256(b"abc").hexdigest()
    assert short_hash(tmp_path / "file") == "ba7816bf8f"


# --- limits at their edges --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 7, 2**20])
def test_a_file_may_have_as_many_bytes_as_are_allowed(tmp_path: Path, most: int) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(most))
    assert read_bytes(path, most) == read_bytes(path) == bytes(most)
    path.write_bytes(bytes(most + 1))
    with pytest.raises(FileFormatError, match=r"more than .* MiB, far more than a file of this kind needs"):
        read_bytes(path, most)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int8])
def test_a_tensor_may_claim_as_many_numbers_as_its_storage_has(dtype: torch.dtype) -> None:
    there = torch.zeros(6, dtype=dtype)
    require_own_values("x", "a", there)
    require_own_values("x", "a", there.as_strided((2, 3), (1, 2)))
    with pytest.raises(FileFormatError, match=r"x: a claims the shape \(7,\), but the file holds fewer numbers"):
        require_own_values("x", "a", there.as_strided((7,), (0,)))


def test_a_torch_file_may_unpack_to_four_times_its_size() -> None:
    saved = io.BytesIO()
    torch.save({"step": 1}, saved)
    unpacked = sum(entry.file_size for entry in zipfile.ZipFile(saved).infolist())
    size = next(size for size in range(1, 10**5) if unpacked + size > 4 * len(filled(saved, size)))
    assert parse_torch("x", filled(saved, size - 1)) == {"step": 1}
    with pytest.raises(FileFormatError, match=r"would unpack to \d+, more than 4 times as many"):
        parse_torch("x", filled(saved, size))


def filled(saved: io.BytesIO, size: int) -> bytes:
    """The torch file with ``size`` zeros in it, packed."""
    content = io.BytesIO(saved.getvalue())
    with zipfile.ZipFile(content, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/filling", bytes(size))
    return content.getvalue()


def test_a_file_where_a_folder_is_needed_is_found_out_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for there in (tmp_path, tmp_path / "new" / "newer"):
        require_place(there)
    for blocked in (tmp_path / "file", tmp_path / "file" / "new" / "newer"):
        with pytest.raises(StorageError, match=r"could not be written: a file stands where a folder is needed"):
            require_place(blocked)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_is_saved_lies_in_memory_as_often_as_the_plan_of_a_run_says(tmp_path: Path) -> None:
    content = {number: torch.zeros(2**17) for number in range(16)}
    atomic_torch_save(content, tmp_path / "warm.pt")
    tracemalloc.start()
    try:
        atomic_torch_save(content, tmp_path / "a.pt")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.2 * FILES_OF_A_STATE * sum(tensor.nbytes for tensor in content.values())
