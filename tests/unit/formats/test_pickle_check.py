from __future__ import annotations

import io
import pickle
import zipfile
from typing import Any

import pytest
import torch

from tincture.formats.pickle_check import PARAMETER_DICT, ForbiddenPickleError, names_in_pickles


class Call:
    """A pickle of this calls ``function(*arguments)`` when it is loaded."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.result = (function, arguments)

    def __reduce__(self) -> Any:
        return self.result


def saved(value: object, zipped: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


@pytest.mark.parametrize("zipped", [True, False])
def test_what_adapter_files_need_is_named(zipped: bool) -> None:
    plain = {"a": torch.ones(2), 7: [torch.ones(1, dtype=torch.bfloat16), "text", None, (1.5, True)]}
    assert {"torch.FloatStorage", "torch.BFloat16Storage"} < names_in_pickles(saved(plain, zipped))
    assert PARAMETER_DICT in names_in_pickles(saved(torch.nn.ParameterDict({"*": torch.ones(2)}), zipped))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Call(bytearray, 10**12), "bytearray"),
        (Call(torch.UntypedStorage, 10**12), "torch.storage.UntypedStorage"),
        (Call(torch.FloatTensor, 10**9), "torch.FloatTensor"),
        (Call(print, "x"), "print"),
        (torch.zeros(2).to_sparse(), "torch._utils._rebuild_sparse_tensor"),
        (torch.zeros(2, device="meta"), "torch._utils._rebuild_meta_tensor_no_storage"),
    ],
)
def test_what_could_run_code_or_fill_the_memory_is_refused(value: object, name: str, zipped: bool) -> None:
    with pytest.raises(ForbiddenPickleError, match=rf"the Python object \S*{name}, "):
        names_in_pickles(saved([value], zipped))


def test_a_pickle_hidden_behind_another_name_is_found() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("a/DATA.PKL", pickle.dumps(Call(print), protocol=2))
    with pytest.raises(ForbiddenPickleError, match="print"):
        names_in_pickles(buffer.getvalue())


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_of_too_many_steps_is_refused(zipped: bool) -> None:
    content = saved([{} for _ in range(1000)], zipped)
    assert names_in_pickles(content) == set()
    with pytest.raises(ForbiddenPickleError, match="more than 1000 steps"):
        names_in_pickles(content, most_steps=1000)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_plain_pickles_with_code_are_refused(protocol: int) -> None:
    with pytest.raises(ForbiddenPickleError, match="could run code"):
        names_in_pickles(pickle.dumps(Call(print), protocol=protocol))


def test_tuples_that_share_their_parts_are_refused() -> None:
    pairs: tuple[Any, ...] = ()
    for _ in range(60):
        pairs = (pairs, pairs)
    with pytest.raises(ForbiddenPickleError, match="tuples within tuples"):
        names_in_pickles(saved([pairs], zipped=True))


def test_honest_tuples_pass() -> None:
    betas = (0.9, 0.999)
    assert names_in_pickles(saved({"a": [betas, betas], "b": ((1, (2, 3)), [betas] * 50)}, zipped=True)) == set()
    assert names_in_pickles(saved([(1, 2)] * 100_000, zipped=True)) == set()


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"\x80\x02", b"hello", pickle.dumps(1, protocol=2), b"\x80\x02s.", b"h\x05."]
)
def test_damaged_content_raises(content: bytes) -> None:
    with pytest.raises((ValueError, LookupError, zipfile.BadZipFile, EOFError)):
        names_in_pickles(content)


@pytest.mark.parametrize("number", [2**128, -(2**40_000)], ids=["128 bits", "thousands of digits"])
def test_numbers_too_long_to_write_out_are_refused(number: int) -> None:
    with pytest.raises(ForbiddenPickleError, match="128 bits"):
        names_in_pickles(saved({"step": number}, zipped=True))
    assert names_in_pickles(saved({"step": 2**127}, zipped=True)) == set()
