from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tincture.formats import pickle_check
from tincture.formats.pickle_check import (
    MOST_STEPS,
    PARAMETER_DICT,
    ForbiddenPickleError,
    names_in_pickles,
    without_module_source,
)


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


def counted_work(content: bytes, monkeypatch: pytest.MonkeyPatch) -> int:
    """Steps that are looked at before ``content`` is refused."""
    looked_at, steps = 0, pickletools.genops

    def counted(stream: Any) -> Any:
        nonlocal looked_at
        for step in steps(stream):
            looked_at += 1
            yield step

    monkeypatch.setattr(pickle_check.pickletools, "genops", counted)
    with pytest.raises(ForbiddenPickleError, match="more than 400000 steps"):
        names_in_pickles(content)
    return looked_at


def test_of_ten_million_tiny_steps_a_fraction_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"\x80\x02" + b"N0" * 5_000_000 + b"N."
    assert counted_work(content, monkeypatch) == MOST_STEPS + 1


def test_many_entries_have_no_more_steps_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for n in range(9):
            archive.writestr(f"a/{n}.pkl", b"\x80\x02" + b"N0" * 50_000 + b"N.")
    assert counted_work(buffer.getvalue(), monkeypatch) == MOST_STEPS + 1


def test_many_entries_unpack_to_no_more_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/1.pkl", pickle.dumps(1, protocol=2))
        archive.writestr("a/2.pkl", pickle.dumps(2, protocol=2))
    size = len(pickle.dumps(1, protocol=2))
    monkeypatch.setattr(pickle_check, "_LARGEST_PICKLE", 2 * size)
    assert names_in_pickles(buffer.getvalue()) == set()
    monkeypatch.setattr(pickle_check, "_LARGEST_PICKLE", 2 * size - 1)
    with pytest.raises(ForbiddenPickleError, match=r"2\.pkl unpacks to"):
        names_in_pickles(buffer.getvalue())


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


# --- limits at their edges --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [2**128, -(2**128), -(2**40_000)], ids=["least", "negative", "thousands of digits"])
def test_numbers_too_long_to_write_out_are_refused(number: int) -> None:
    with pytest.raises(ForbiddenPickleError, match="128 bits"):
        names_in_pickles(saved({"step": number}, zipped=True))
    assert names_in_pickles(saved({"step": 2**128 - 1, "other": 1 - 2**128}, zipped=True)) == set()


def test_a_pickle_may_take_as_many_steps_as_are_allowed() -> None:
    content = pickle.dumps({"a": [1, 2, (3,)]}, protocol=2)
    steps = 5 * len(list(pickletools.genops(content)))
    assert names_in_pickles(content * 5, most_steps=steps) == set()
    with pytest.raises(ForbiddenPickleError, match=f"more than {steps - 1} steps"):
        names_in_pickles(content * 5, most_steps=steps - 1)


def test_a_tuple_may_have_as_many_items_as_are_allowed() -> None:
    """Itself is one, and so is each number."""
    assert names_in_pickles(saved([(7,) * 99_999], zipped=True)) == set()
    with pytest.raises(ForbiddenPickleError, match="tuples within tuples"):
        names_in_pickles(saved([(7,) * 100_000], zipped=True))


def test_an_entry_may_unpack_to_as_much_as_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    content = saved({"a": 1}, zipped=True)
    (size,) = [entry.file_size for entry in zipfile.ZipFile(io.BytesIO(content)).infolist() if ".pkl" in entry.filename]
    monkeypatch.setattr(pickle_check, "_LARGEST_PICKLE", size)
    assert names_in_pickles(content) == set()
    monkeypatch.setattr(pickle_check, "_LARGEST_PICKLE", size - 1)
    with pytest.raises(ForbiddenPickleError, match=f"data.pkl unpacks to {size} bytes"):
        names_in_pickles(content)


# --- modules in legacy files ------------------------------------------------------------------------------------------


def test_a_parameter_dict_is_named_without_its_source() -> None:
    with_source = saved([torch.nn.ParameterDict({"*": torch.ones(2)})], zipped=False)
    plain = without_module_source(with_source)
    assert b"class ParameterDict" in with_source and b"class ParameterDict" not in plain
    assert names_in_pickles(plain) == names_in_pickles(with_source)
    *_, content, _ = (list(pickletools.genops(io.BytesIO(part))) for part in pickles(plain))
    assert "BINPERSID" not in [opcode.name for opcode, argument, _ in content if argument == "module"]
    with torch.serialization.safe_globals([(SimpleNamespace, PARAMETER_DICT)]):
        (loaded,) = torch.load(io.BytesIO(plain), weights_only=True)
    assert torch.equal(loaded._parameters["*"], torch.ones(2))


@pytest.mark.parametrize("value", [{"*": 1}, ("module", torch.nn.ParameterDict, "file", "source")])
def test_what_only_looks_like_a_module_stays_as_it_is(value: object) -> None:
    content = b"".join(pickle.dumps(part, protocol=2) for part in (1, 1001, {}, value, []))
    try:
        assert without_module_source(content) == content
    except (ValueError, LookupError):
        assert isinstance(value, dict)  # nothing of the kind is in it


def pickles(content: bytes) -> list[bytes]:
    """The five pickles of a legacy file."""
    stream, found = io.BytesIO(content), []
    for _ in range(5):
        start = stream.tell()
        list(pickletools.genops(stream))
        found.append(content[start : stream.tell()])
    return found
