from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from tincture.errors import FileFormatError, StorageError
from tincture.formats.checked_file import read_checked, write_checked

TENSORS = {"a": torch.tensor([[1.0, -0.0], [float("nan"), 1e-45]]), "b": torch.arange(3)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_checked(tmp_path / "folder" / "x.bin", TENSORS, {"for": "a cat"})
    return tmp_path / "folder" / "x.bin"


def test_what_is_written_is_read_bit_for_bit(path: Path) -> None:
    tensors, metadata = read_checked(path)
    assert metadata == {"for": "a cat"}
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name].view(torch.uint8), tensor.view(torch.uint8))
    assert [entry.name for entry in path.parent.iterdir()] == ["x.bin"]


def test_every_changed_byte_shows(path: Path) -> None:
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(FileFormatError):
            read_checked(path)


def test_every_cut_shows(path: Path) -> None:
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(FileFormatError):
            read_checked(path)


@pytest.mark.parametrize("content", [b"", b"hello", bytes(100), safetensors.torch.save(TENSORS)])
def test_other_files_are_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"x\.bin"):
        read_checked(path)


def test_a_file_that_is_too_large_is_not_read_whole(path: Path) -> None:
    with pytest.raises(FileFormatError):
        read_checked(path, most=100)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="no file"):
        read_checked(tmp_path / "x")


def test_tensors_may_share_their_memory(tmp_path: Path) -> None:
    both = torch.arange(4.0)
    write_checked(tmp_path / "x", {"all": both, "half": both[::2]}, {})
    assert read_checked(tmp_path / "x")[0]["half"].tolist() == [0.0, 2.0]


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="a file stands where a folder is needed"):
        write_checked(tmp_path / "file" / "x", {}, {})
