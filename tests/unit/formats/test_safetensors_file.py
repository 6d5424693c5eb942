from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from tincture.errors import FileFormatError
from tincture.formats.safetensors_file import is_safetensors, modelspec, read_safetensors, write_safetensors

SPEC = modelspec(architecture="a", implementation="i", title="t", author="", license="CC0-1.0")


def test_the_library_reads_what_is_written(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(3.0), "a": torch.eye(2, dtype=torch.float16), "c": torch.tensor(2.0)}
    write_safetensors(tmp_path / "f.safetensors", tensors, SPEC | {"own": "ü"})
    with safe_open(tmp_path / "f.safetensors", "pt") as file:
        assert sorted(file.keys()) == ["a", "b", "c"]
        assert all(torch.equal(file.get_tensor(name), tensors[name]) for name in tensors)
        metadata = file.metadata()
    read, known = read_safetensors(tmp_path / "f.safetensors")
    assert known == metadata
    assert all(torch.equal(read[name], tensors[name]) and read[name].dtype == tensors[name].dtype for name in tensors)
    assert {key: text for key, text in metadata.items() if key != "modelspec.hash_sha256"} == {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "a",
        "modelspec.implementation": "i",
        "modelspec.title": "t",
        "modelspec.license": "CC0-1.0",
        "own": "ü",
    }


def test_the_hash_is_that_of_all_bytes_behind_the_header(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "f.safetensors", {"a": torch.arange(5.0)}, SPEC)
    content = (tmp_path / "f.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    expected = hashlib.sha256(content[8 + length :]).hexdigest()
    assert json.loads(content[8 : 8 + length])["__metadata__"]["modelspec.hash_sha256"] == f"0x{expected}"


def test_equal_contents_give_equal_bytes(tmp_path: Path) -> None:
    metadata = SPEC | {f"key{n}": "x" for n in range(8)}
    for name, order in (("a", 1), ("b", -1)):
        tensors = dict([("x", torch.zeros(2)), ("y", torch.ones(3))][::order])
        write_safetensors(tmp_path / name, tensors, dict(list(metadata.items())[::order]))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_tensors_that_share_memory_are_written(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    write_safetensors(tmp_path / "f", {"a": whole[:4], "b": whole[2:]}, {})
    tensors, _ = read_safetensors(tmp_path / "f")
    assert tensors["b"].tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize("length", [0, 5, 9, 40, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, length: int) -> None:
    write_safetensors(tmp_path / "f", {"a": torch.arange(5.0)}, SPEC)
    (tmp_path / "f").write_bytes((tmp_path / "f").read_bytes()[:length])
    with pytest.raises(FileFormatError, match="damaged or truncated"):
        read_safetensors(tmp_path / "f")


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4 * 10**12]}},
        {"a": {"dtype": "F8_E8M0", "shape": [4], "data_offsets": [0, 4]}},
        {"__metadata__": {"a": 1}, "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
        {"__metadata__": []},
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, header: object) -> None:
    text = json.dumps(header).encode()
    content = len(text).to_bytes(8, "little") + text + bytes(4)
    assert is_safetensors(content)
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(FileFormatError, match="damaged or truncated"):
        read_safetensors(tmp_path / "f")


def test_a_header_that_takes_seconds_to_read_is_refused(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "f", {"a": torch.zeros(1)}, {"key": "x" * 5 * 2**20})
    with pytest.raises(FileFormatError, match="header has 5243"):
        read_safetensors(tmp_path / "f")


def test_other_files_are_told_apart(tmp_path: Path) -> None:
    for name, zipped in (("zip", True), ("legacy", False)):
        torch.save({"a": torch.zeros(2)}, tmp_path / name, _use_new_zipfile_serialization=zipped)
        assert not is_safetensors((tmp_path / name).read_bytes())
    assert not is_safetensors(b"")


@pytest.mark.parametrize("length", range(9))
def test_numbers_begin_at_a_multiple_of_eight_bytes(length: int, tmp_path: Path) -> None:
    write_safetensors(tmp_path / "x", {"a": torch.ones(1)}, {"name": "n" * length})
    assert int.from_bytes((tmp_path / "x").read_bytes()[:8], "little") % 8 == 0
