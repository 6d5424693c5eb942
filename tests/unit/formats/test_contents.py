"""The kind of a file is told by what it holds."""

from __future__ import annotations

import contextlib
import tracemalloc
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.unit.formats.webui_gate import ENTRY
from tincture.errors import FileFormatError
from tincture.formats.contents import read_contents
from tincture.formats.files import atomic_torch_save
from tincture.formats.hypernetwork_file import read_hypernetwork_file, write_hypernetwork_safetensors

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.mark.parametrize(
    ("name", "kind", "container", "tensors"),
    [
        ("gold-one.pt", "embedding", "torch", 1),
        ("gold-one.pixels-only.png", "embedding", "png", 0),
        ("plain-121.pt", "hypernetwork", "torch", 16),
        ("relu-optim.pt.optim", "optimizer", "torch", 24),
        ("gold-one.pt.optim", "optimizer", "torch", 3),
    ],
)
def test_golden_files(name: str, kind: str, container: str, tensors: int) -> None:
    found = read_contents(GOLDEN / name)
    assert (found.kind, found.container, len(list(found.tensors()))) == (kind, container, tensors)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"cat": torch.ones(2, 8)}, "embedding"),
        ({"clip_l": torch.ones(2, 768), "clip_g": torch.ones(2, 1280)}, "embedding"),
        ({"lora_unet_a_to_k.lora_down.weight": torch.ones(2, 8)}, "lora"),
        ({"unet.a.to_k.lora_A.weight": torch.ones(2, 8)}, "lora"),
        ({"unet.a.processor.to_k_lora.down.weight": torch.ones(2, 8)}, "lora"),
    ],
)
@pytest.mark.parametrize("container", ["torch", "torch-legacy", "safetensors"])
def test_containers(values: dict[str, torch.Tensor], kind: str, container: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    if container == "safetensors":
        save_file(values, path)
    else:
        torch.save(values, path, _use_new_zipfile_serialization=container == "torch")
    found = read_contents(path)
    assert (found.kind, found.container) == (kind, container)


def test_a_hypernetwork_as_safetensors(tmp_path: Path) -> None:
    write_hypernetwork_safetensors(tmp_path / "x", read_hypernetwork_file(GOLDEN / "plain-121.pt"))
    assert read_contents(tmp_path / "x").kind == "hypernetwork"


def test_a_webp_is_one(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "x", "WEBP")
    assert read_contents(tmp_path / "x").container == "webp"


def test_what_the_webui_refuses_is_told(tmp_path: Path) -> None:
    torch.save({"cat": torch.ones(2, 8)}, tmp_path / "a")
    refused = read_contents(tmp_path / "a").refused_entries
    assert refused and not any(ENTRY.fullmatch(name) for name in refused)
    atomic_torch_save({"cat": torch.ones(2, 8)}, tmp_path / "b")
    assert read_contents(tmp_path / "b").refused_entries == ()


@pytest.mark.parametrize(
    ("value", "told"),
    [([1, 2], "a value of type list"), ({f"a{n}": torch.ones(1) for n in range(200)}, "200 entries, as a whole model")],
)
def test_what_is_no_adapter_is_refused(value: Any, told: str, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "x")
    with pytest.raises(FileFormatError, match=told):
        read_contents(tmp_path / "x")


def test_values_that_hold_one_another_many_times_are_walked_once(tmp_path: Path) -> None:
    values: list[Any] = [torch.ones(1)]
    for _ in range(8):
        values = [values] * 100
    torch.save({"string_to_param": values}, tmp_path / "x")
    # No more than two are asked for: without the care there would be 100 ** 8.
    assert len(list(islice(read_contents(tmp_path / "x").tensors(), 2))) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\1\2hello", "neither a torch nor a safetensors file, nor a PNG or WebP"),
        (b"hello", "it is a text, which begins 'hello'"),
        (b"{}", "a text of JSON"),
        (b"\xff\xd8\xff\xe0 a JPEG", "a JPEG picture; give the file of an embedding, a hypernetwork or a LoRA"),
    ],
)
def test_other_files_are_called_so(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(FileFormatError, match=words):
        read_contents(tmp_path / "x")


@pytest.mark.parametrize("start", [b"hello", b"\x89PNG\r\n\x1a\n"])
def test_of_other_files_and_pictures_only_the_beginning_is_read(start: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(start + bytes(20_000_000))
    tracemalloc.start()
    try:
        with contextlib.suppress(FileFormatError):
            read_contents(tmp_path / "x")
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
