"""numpy's numbers and arrays in torch files, and tensors of a Mac, which older versions of torch wrote as such."""

from __future__ import annotations

import io
import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tincture.errors import FileFormatError
from tincture.formats.embedding_file import read_embedding_file
from tincture.formats.files import parse_torch
from tincture.formats.hypernetwork_file import read_hypernetwork_file
from tincture.formats.tensor_file import open_tensors

FROM_NUMPY = torch._utils._rebuild_device_tensor_from_numpy
FROM_CPU = torch._utils._rebuild_device_tensor_from_cpu_tensor
NUMPY_1, NUMPY_2 = b"cnumpy.core.multiarray\n", b"cnumpy._core.multiarray\n"


class Call:
    """A pickle of this calls ``function(*arguments)`` when it is loaded."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.result = (function, arguments)

    def __reduce__(self) -> Any:
        return self.result


def saved(value: object, *, zipped: bool = True, core: bytes = NUMPY_2) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    content = buffer.getvalue()
    if not zipped:
        return content.replace(NUMPY_2, core)
    changed = io.BytesIO()
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(changed, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name).replace(NUMPY_2, core))
    return changed.getvalue()


def on_a_mac(array: np.ndarray[Any, Any], dtype: torch.dtype = torch.float32) -> Call:
    return Call(FROM_NUMPY, array, dtype, "mps:0", False)


def embedding(vectors: object, **others: object) -> dict[str, object]:
    return {"string_to_token": {"*": 265}, "string_to_param": {"*": vectors}, "name": "amy", **others}


ROWS = np.arange(16, dtype="f4").reshape(2, 8)


@pytest.mark.parametrize("core", [NUMPY_1, NUMPY_2])
@pytest.mark.parametrize(
    "vectors",
    [
        on_a_mac(ROWS),
        on_a_mac(ROWS, torch.bfloat16),
        on_a_mac(ROWS.astype("f2"), torch.float16),
        on_a_mac(np.asfortranarray(ROWS)),
        on_a_mac(ROWS.astype(">f4")),
        Call(FROM_CPU, torch.from_numpy(ROWS), torch.float32, "xla:0", False),
        ROWS,
        ROWS.astype("f8"),
    ],
    ids=["float32", "bfloat16", "float16", "columns first", "other order of bytes", "xla", "array", "float64"],
)
def test_vectors_of_other_devices_and_of_numpy_are_read(vectors: object, core: bytes, tmp_path: Path) -> None:
    (tmp_path / "amy.pt").write_bytes(saved(embedding(vectors), core=core))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        file = read_embedding_file(tmp_path / "amy.pt")
    assert torch.equal(file.vectors["clip_l"], torch.from_numpy(ROWS))


def test_a_hypernetwork_and_a_model_of_a_mac_are_read(tmp_path: Path) -> None:
    state = {
        "linear.0.weight": on_a_mac(np.ones((8, 8), "f4")),
        "linear.0.bias": on_a_mac(np.ones(8, "f4")),
    }
    structure = {"layer_structure": np.array([1, 1]), "is_layer_norm": np.bool_(False), "activate_output": 1}
    (tmp_path / "x.pt").write_bytes(saved({8: (state, state), "step": np.int64(7), **structure}))
    read = read_hypernetwork_file(tmp_path / "x.pt")
    assert (read.step, read.layer_structure, read.add_layer_norm, read.activate_output) == (7, (1, 1), False, True)

    (tmp_path / "x.ckpt").write_bytes(saved({"global_step": np.int64(7), "state_dict": state}))
    assert open_tensors(tmp_path / "x.ckpt").tensor("linear.0.bias").tolist() == [1] * 8


STEPS = [500, 500.0, torch.tensor(500), torch.tensor([500.0]), torch.tensor(500, dtype=torch.int32)]
STEPS += [np.int64(500), np.float32(500), np.float64(500), np.uint16(500), np.array(500), np.array([500], ">i4")]


@pytest.mark.parametrize("core", [NUMPY_1, NUMPY_2])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("step", STEPS, ids=repr)
def test_a_step_of_any_kind_of_number_is_one(step: object, zipped: bool, core: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(saved(embedding(torch.ones(1, 8), step=step), zipped=zipped, core=core))
    assert (read_embedding_file(tmp_path / "a.pt").step, type(read_embedding_file(tmp_path / "a.pt").step)) == (
        500,
        int,
    )


NO_STEPS = ["500", True, -1, 500.5, float("nan"), float("inf"), 1e300, torch.ones(2), torch.tensor(-3), [500], b"5"]
NO_STEPS += [np.bool_(True), np.str_("500"), np.float64("nan"), np.array([1, 2]), {"a": 1}]


@pytest.mark.parametrize("step", NO_STEPS, ids=repr)
def test_anything_else_is_refused_and_never_taken_for_0(step: object, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(saved(embedding(torch.ones(1, 8), step=step)))
    with pytest.raises(FileFormatError, match=r"step is .*; a whole number of 0 or more is needed\.$") as error:
        read_embedding_file(tmp_path / "a.pt")
    assert "\n" not in str(error.value)


def test_texts_of_numpy_are_texts(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(saved(embedding(torch.ones(1, 8)) | {"name": np.str_("möon")}))
    assert read_embedding_file(tmp_path / "a.pt").name == "möon"


# --- what no honest file does -----------------------------------------------------------------------------------------


def refusal(content: bytes) -> str:
    with pytest.raises(FileFormatError) as error:
        parse_torch("file.pt", content)
    return str(error.value)


def test_objects_in_arrays_and_other_kinds_are_not_read() -> None:
    assert "numpy values of the kind 'O8' are not read" in refusal(saved({"a": np.array([None])}))
    assert "posix.system, which could run code" in refusal(saved({"a": np.array([Call(os.system, "true")])}))
    assert "'M8' are not read" in refusal(saved({"a": np.datetime64("2024-01-01")}))
    assert "'V8' are not read" in refusal(saved({"a": np.zeros(2, "i4,i4")}))


@pytest.mark.parametrize("codec", ["bz2_codec", "idna", "rot13", "utf-8", "punycode"])
def test_texts_are_encoded_as_numpy_does_and_not_otherwise(codec: str) -> None:
    import _codecs

    assert "it encodes texts in another way" in refusal(saved({"a": Call(_codecs.encode, "x", codec)}))
    assert parse_torch("file.pt", saved({"a": Call(_codecs.encode, "x", "latin1")})) == {"a": b"x"}


@pytest.mark.parametrize(
    ("function", "data", "dtype"),
    [
        (FROM_NUMPY, np.zeros(4, "u1"), torch.float64),
        (FROM_NUMPY, np.zeros(4, "f4"), torch.float64),
        (FROM_CPU, torch.zeros(1).expand(4), torch.float64),
        (FROM_CPU, torch.zeros(1).expand(4), torch.int32),
        (FROM_CPU, torch.zeros(4), torch.bfloat16),
    ],
)
def test_numbers_do_not_become_others_that_take_more_memory(function: Any, data: object, dtype: torch.dtype) -> None:
    assert "turns numbers of one kind into another" in refusal(saved({"a": Call(function, data, dtype, "mps", False)}))


LONG = "a" * 2**20


@pytest.mark.parametrize(
    "often",
    [
        b"c_codecs\nencode\n" + b"q\x01" + b"h\x01h\x02\x86R" * 20,
        b"c_codecs\nencode\nq\x01h\x02\x86Rq\x03" + b"cnumpy\nndarray\n)R(K\x01K\x02NNh\x03tb" * 20,
    ],
    ids=["encoded", "put into arrays"],
)
def test_the_same_bytes_are_not_copied_over_and_over(often: bytes) -> None:
    text = pickle.dumps((LONG, "latin1"), protocol=2)[2:-1]
    text = text.replace(b"q\x02.", b"")
    begin = b"\x80\x02(X" + len(LONG).to_bytes(4, "little") + LONG.encode() + b"q\x04X\x06\0\0\0latin1q\x05"
    often = often.replace(b"h\x02\x86", b"h\x04h\x05\x86")
    content = begin + often + b"t."
    buffer = io.BytesIO(saved({}))
    changed = io.BytesIO()
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(changed, "w") as target:
        for name in source.namelist():
            target.writestr(name, content if name.endswith("data.pkl") else source.read(name))
    assert "it copies the same bytes over and over" in refusal(changed.getvalue())
