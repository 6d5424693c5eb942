"""Large files of tensors: containers, what is refused, and that nothing in them is run."""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
import types
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tincture.errors import FileFormatError
from tincture.formats.tensor_file import Shape, open_tensors

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3, dtype=torch.float16)}
SHAPES = {"a.weight": Shape((2, 3), torch.float32), "b": Shape((3,), torch.float16)}


class Call:
    """A pickle of this calls ``function(*arguments)`` when it is loaded."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.result = (function, arguments)

    def __reduce__(self) -> Any:
        return self.result


def write_safetensors(path: Path) -> None:
    save_file(STATE, path, {"modelspec.title": "tiny"})


def write_torch(path: Path, content: object = STATE, zipped: bool = True) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)


WRITERS: dict[str, Callable[[Path], None]] = {
    "safetensors": write_safetensors,
    "torch": write_torch,
    "torch-legacy": lambda path: write_torch(path, zipped=False),
}


@pytest.mark.parametrize("container", WRITERS)
def test_tensors_are_read_by_name(container: str, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"  # the content counts, not the suffix
    WRITERS[container](path)

    file = open_tensors(path)

    assert (file.container, file.shapes) == (container, SHAPES)
    assert all(torch.equal(file.tensor(name), value) for name, value in STATE.items())
    assert file.metadata == ({"modelspec.title": "tiny"} if container == "safetensors" else {})


def test_tensors_under_state_dict_are_found_at_any_depth(tmp_path: Path) -> None:
    write_torch(tmp_path / "a.ckpt", {"epoch": 3, "state_dict": {"state_dict": STATE, "loss": 1.5}})

    assert open_tensors(tmp_path / "a.ckpt").shapes == SHAPES


def test_files_beyond_four_gigabytes_are_read(tmp_path: Path) -> None:
    """Most of the numbers are a hole in the file."""
    header = b'{"big":{"dtype":"F16","shape":[65536,32768],"data_offsets":[0,4294967296]},"small":{"dtype":"F16",'
    header += b'"shape":[2],"data_offsets":[4294967296,4294967300]}}'
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + 2**32)
        file.seek(0, os.SEEK_END)
        file.write(torch.tensor([1.0, 2.0]).half().numpy().tobytes())

    assert open_tensors(path).tensor("small").tolist() == [1, 2]


# --- what training programs leave behind ------------------------------------------------------------------------------


@pytest.fixture
def lightning() -> Iterator[types.ModuleType]:
    """A module that stands for Lightning's, whose class would tell when it is made."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    names = ["pytorch_lightning", "pytorch_lightning.callbacks", name]
    modules = {part: types.ModuleType(part) for part in names}
    made: list[object] = []

    class ModelCheckpoint:
        def __init__(self) -> None:
            self.best = 1.5

        def __setstate__(self, state: object) -> None:
            made.append(state)

    ModelCheckpoint.__module__, ModelCheckpoint.__qualname__ = name, "ModelCheckpoint"
    modules[name].ModelCheckpoint, modules[name].made = ModelCheckpoint, made  # type: ignore[attr-defined]
    sys.modules.update(modules)
    yield modules[name]
    for part in names:
        del sys.modules[part]


@pytest.mark.parametrize("zipped", [True, False])
def test_callbacks_of_lightning_are_passed_over_and_not_made(
    zipped: bool, lightning: types.ModuleType, tmp_path: Path
) -> None:
    callback = lightning.ModelCheckpoint
    content = {"callbacks": {callback: {"best": torch.tensor(1.0)}, "own": callback()}, "state_dict": STATE}
    write_torch(tmp_path / "a.ckpt", content, zipped)

    assert open_tensors(tmp_path / "a.ckpt").shapes == SHAPES
    assert lightning.made == []


def test_numbers_of_numpy_are_passed_over(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    write_torch(tmp_path / "a.ckpt", {"best": numpy.float64(0.5), "state_dict": STATE})

    assert open_tensors(tmp_path / "a.ckpt").shapes == SHAPES


# --- refused ----------------------------------------------------------------------------------------------------------


def huge_header(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 90_000_000) + b"{" + b" " * 100)


def truncated(path: Path) -> None:
    write_safetensors(path)
    path.write_bytes(path.read_bytes()[:-3])


def truncated_zip(path: Path) -> None:
    write_torch(path)
    path.write_bytes(path.read_bytes()[:-30])


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


def zip_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a/data.pkl", "w") as entry:
        for _ in range(300):
            entry.write(bytes(2**20))


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.touch(), r"is empty \(0 bytes\)"),
    "text": (lambda path: path.write_text("hello world, I am a text"), "cannot be read as a torch or safetensors file"),
    "huge header": (huge_header, "claims a header of 90000000 bytes"),
    "truncated": (truncated, "damaged or truncated safetensors file"),
    "truncated zip": (truncated_zip, "cannot be read as a torch or safetensors file"),
    "other zip": (other_zip, "cannot be read as a torch or safetensors file"),
    "zip bomb": (zip_bomb, "unpacks to 314572800 bytes"),
    "no tensors": (lambda path: write_torch(path, {"step": 3}), "holds no tensors by name"),
    "a list": (lambda path: write_torch(path, [torch.ones(1)]), "holds no tensors by name"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_by_a_sentence(case: str, tmp_path: Path) -> None:
    write, message = REFUSED[case]
    write(tmp_path / "model")

    with pytest.raises(FileFormatError, match=message) as caught:
        open_tensors(tmp_path / "model")

    assert str(tmp_path / "model") in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("function", [os.system, print, exec, __import__, bytearray])
def test_code_is_refused_and_does_not_run(
    function: Any, zipped: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_torch(tmp_path / "a.ckpt", {"state_dict": STATE, "x": Call(function, "echo pwned")}, zipped)

    with pytest.raises(FileFormatError, match="is not loaded: it holds the Python object"):
        open_tensors(tmp_path / "a.ckpt")
    assert capfd.readouterr().out == ""


def test_a_name_that_passes_runs_nothing_either(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Names under a package that is passed over stand for nothing, whatever they mean."""
    pickled = (
        b"\x80\x02}X\x01\x00\x00\x00xcnumpy.testing._private.utils\nrunstring\nX\x0b\x00\x00\x00print('hi')}\x86Rs."
    )
    buffer = io.BytesIO()
    write_torch(tmp_path / "b", {"x": 1})
    with zipfile.ZipFile(tmp_path / "b") as source, zipfile.ZipFile(buffer, "w") as target:
        for name in source.namelist():
            target.writestr(name, pickled if name.endswith("data.pkl") else source.read(name))
    (tmp_path / "a.ckpt").write_bytes(buffer.getvalue())

    with pytest.raises(FileFormatError, match="holds no tensors by name"):
        open_tensors(tmp_path / "a.ckpt")
    assert capfd.readouterr().out == ""


def test_a_plain_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(pickle.dumps({"state_dict": 1}, protocol=2))

    with pytest.raises(FileFormatError, match=r"a pickle that torch.save did not write; save it by torch.save"):
        open_tensors(tmp_path / "a.ckpt")
