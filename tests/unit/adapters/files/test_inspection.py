"""What `inspect_file` says of files of each kind."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tincture import inspect_file
from tincture.adapters.hypernetwork import Hypernetwork
from tincture.errors import FileFormatError
from tincture.formats.embedding_content import EmbeddingFile
from tincture.formats.embedding_file import EMBEDDING_WRITERS
from tincture.formats.files import atomic_torch_save
from tincture.formats.picture_text import save_png

GOLDEN = Path(__file__).parents[3] / "golden"
CASES = {case["name"]: case for case in json.loads((GOLDEN / "embeddings.json").read_text())}


def vectors(width: int = 768) -> torch.Tensor:
    return torch.randn(2, width, generator=torch.Generator().manual_seed(0))


def strict(report: dict[str, Any]) -> dict[str, Any]:
    """`report` after a way through JSON as other programs read it."""
    read: dict[str, Any] = json.loads(json.dumps(report, allow_nan=False, ensure_ascii=False).encode())
    assert read == report
    return read


# --- kinds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_a_golden_embedding(name: str) -> None:
    case, path = CASES[name], GOLDEN / f"{name}.pt"
    report = strict(inspect_file(path))
    content = path.read_bytes()
    wanted = {
        "path": str(path),
        "kind": "embedding",
        "format": "pt",
        "container": "torch",
        "name": name,
        "step": case["step"],
        "num_vectors": case["vectors"],
        "widths": {"clip_l": case["dim"]},
        "parameters": case["vectors"] * case["dim"],
        "dtype": "float32",
        "checksum": case["checksum"],
        "model_name": "v1-5-pruned-emaonly",
        "model_hash": "6ce0161689",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "short_hash": hashlib.sha256(content).hexdigest()[:10],
        "lost": [],
    }
    assert {key: report[key] for key in wanted} == wanted
    assert len(report["norms"]["clip_l"]) == case["vectors"]
    # Written by a newer torch's own torch.save.
    assert any("check of unsafe files refuses it" in note for note in report["notes"])
    assert report["read_by"] == ["ComfyUI", "SD.Next", "diffusers", "Tincture"]


@pytest.mark.parametrize("kind", EMBEDDING_WRITERS)
def test_every_format_of_embeddings(kind: str, tmp_path: Path) -> None:
    own = {"clip_l": vectors(768), "clip_g": vectors(1280)} if kind == "sdxl" else {"clip_l": vectors()}
    path = tmp_path / f"cat.{kind if kind in ('pt', 'bin', 'png', 'webp') else 'safetensors'}"
    EMBEDDING_WRITERS[kind](path, EmbeddingFile(own, "cat", 3, provenance={"author": "A"}))
    report = strict(inspect_file(path))
    assert (report["format"], report["name"], report["num_vectors"], report["notes"]) == (kind, "cat", 2, [])
    assert report["widths"] == {encoder: rows.shape[1] for encoder, rows in own.items()}
    assert report["dtype"] == "float32"
    assert "Tincture" in report["read_by"]
    assert (report["step"], report["provenance"]) == ((0, {}) if kind == "bin" else (3, {"author": "A"}))


@pytest.mark.parametrize(
    ("content", "layout", "lost"),
    [
        ({"emb_params": torch.ones(1, 768).half()}, "kohya", False),
        ({"emp_params": torch.ones(1, 768).half(), "emp_params_out": torch.ones(1, 768).half()}, "onetrainer", True),
        ({"string_to_param": {"*": torch.ones(1, 2048).half()}}, "hcp", False),
        ({"cat": torch.ones(768).half()}, "bin", False),
    ],
)
def test_foreign_embeddings(content: dict[str, Any], layout: str, lost: bool, tmp_path: Path) -> None:
    atomic_torch_save(content, tmp_path / "cat.pt")
    report = strict(inspect_file(tmp_path / "cat.pt"))
    assert (report["format"], report["dtype"], bool(report["lost"])) == (layout, "float16", lost)


def test_a_golden_hypernetwork() -> None:
    report = strict(inspect_file(GOLDEN / "swish-ln-dropout.pt"))
    file = Hypernetwork.load(GOLDEN / "swish-ln-dropout.pt")
    assert report["widths"] == sorted(file.pairs)
    for key in ("name", "step", "layer_structure", "activation_func", "weight_init", "add_layer_norm"):
        assert report[key] == getattr(file, key)
    assert report["dropout_structure"] == file.dropout_structure
    assert (report["kind"], report["format"], report["dtype"]) == ("hypernetwork", "pt", "float32")
    assert report["parameters"] == sum(parameter.numel() for parameter in file.parameters())
    assert (report["model_name"], report["model_hash"]) == (file.model_name, file.model_hash)


def test_a_hypernetwork_as_safetensors_is_read_by_us_alone(tmp_path: Path) -> None:
    Hypernetwork("ink", (32,), activation_func="mish", provenance={"author": "A"}).save(tmp_path / "ink.safetensors")
    report = strict(inspect_file(tmp_path / "ink.safetensors"))
    assert (report["format"], report["read_by"], report["notes"]) == ("safetensors", ["Tincture"], [])
    assert report["provenance"] == {"author": "A"}


def test_the_legacy_rule_of_dropout_is_worked_out(tmp_path: Path) -> None:
    state = {"linear.0.weight": torch.ones(4, 4), "linear.0.bias": torch.ones(4)}
    state |= {"linear.3.weight": torch.ones(4, 4), "linear.3.bias": torch.ones(4)}
    atomic_torch_save(
        {4: (state, state), "layer_structure": [1, 1, 1], "use_dropout": True, "last_layer_dropout": True},
        tmp_path / "a.pt",
    )
    assert inspect_file(tmp_path / "a.pt")["dropout_structure"] == [0, 0.3, 0]


@pytest.mark.parametrize("up", ["lora_up", "lora_B"])
def test_a_lora(up: str, tmp_path: Path) -> None:
    start, down = ("lora_unet_a", "lora_down") if up == "lora_up" else ("unet.a", "lora_A")
    tensors = {f"{start}.{down}.weight": torch.ones(4, 8).half(), f"{start}.{up}.weight": torch.ones(6, 4).half()}
    metadata = {"modelspec.title": "ink", "ss_steps": "12", "ss_sd_model_name": "m", "modelspec.author": "A"}
    save_file(tensors, tmp_path / "x.safetensors", metadata)
    report = strict(inspect_file(tmp_path / "x.safetensors"))
    assert (report["kind"], report["format"]) == ("lora", "kohya" if up == "lora_up" else "diffusers")
    assert (report["name"], report["step"], report["model_name"]) == ("ink", 12, "m")
    assert (report["layers"], report["ranks"], report["parameters"], report["dtype"]) == (1, [4], 56, "float16")
    assert report["provenance"]["author"] == "A"
    assert "diffusers" in report["read_by"]


def test_biases_and_broken_numbers_of_a_lora(tmp_path: Path) -> None:
    tensors = {"lora_unet_a.lora_down.weight": torch.ones(1, 2), "lora_unet_a.lora_up.weight": torch.ones(2, 1)}
    save_file({**tensors, "lora_unet_a.diff_b": torch.tensor([1.0, torch.nan])}, tmp_path / "x.safetensors")
    report = strict(inspect_file(tmp_path / "x.safetensors"))
    assert "diffusers" not in report["read_by"]
    assert any("NaN" in note for note in report["notes"])
    save_file({"lora_unet_a.lora_down.weight": torch.ones(1, 2)}, tmp_path / "y.safetensors")
    with pytest.raises(FileFormatError, match="damaged LoRA"):
        inspect_file(tmp_path / "y.safetensors")


@pytest.mark.parametrize(
    ("name", "belongs_to"), [("relu-optim.pt.optim", "hypernetwork"), ("gold-one.pt.optim", "embedding")]
)
def test_optimizer_states(name: str, belongs_to: str, tmp_path: Path) -> None:
    report = strict(inspect_file(GOLDEN / name))
    assert (report["kind"], report["belongs_to"], report["fits"]) == ("optimizer", belongs_to, True)
    assert report["optimizer_name"] == "AdamW"
    assert report["step"] > 0
    alone = shutil.copy(GOLDEN / name, tmp_path)
    assert inspect_file(alone)["fits"] is None
    other = "plain-121.pt" if belongs_to == "hypernetwork" else "gold-three.pt"
    shutil.copy(GOLDEN / other, tmp_path / name.removesuffix(".optim"))
    assert inspect_file(alone)["fits"] is False


def test_a_generated_picture(tmp_path: Path) -> None:
    save_png(np.zeros((8, 8, 3), np.uint8), tmp_path / "a.png", "a moon\nNegative prompt: blur\nSteps: 20, Seed: 1")
    report = strict(inspect_file(tmp_path / "a.png"))
    assert (report["kind"], report["prompt"], report["negative_prompt"]) == ("picture", "a moon", "blur")
    assert report["settings"] == {"Steps": "20", "Seed": "1"}


# --- what is odd, and what is nothing ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "name", "told"),
    [
        ({"string_to_param": {"*": torch.zeros(1, 768)}}, "cat.pt", "All numbers for clip_l are 0"),
        ({"string_to_param": {"*": torch.ones(2, 768)}}, "cat.pt", "Some of the vectors for clip_l are equal"),
        ({"string_to_param": {"*": vectors(8)}}, "cat.pt", "The width 8 is that of no text encoder"),
        ({"string_to_param": {"*": torch.rand(76, 768)}}, "cat.pt", "more vectors than the 75"),
        ({"string_to_param": {"*": vectors()}, "name": "dog"}, "cat.pt", "calls itself 'dog'"),
        ({"string_to_param": {"*": vectors()}}, "cat.safetensors", "Its content is that of a torch file"),
    ],
)
def test_odd_embeddings(content: dict[str, Any], name: str, told: str, tmp_path: Path) -> None:
    atomic_torch_save(content, tmp_path / name)
    (note,) = strict(inspect_file(tmp_path / name))["notes"]
    assert told in note


def test_odd_hypernetworks(tmp_path: Path) -> None:
    network = Hypernetwork("ink", (32,), activation_func="gelu")
    for parameter in network.parameters():
        parameter.data.zero_()
    network.save(tmp_path / "ink.pt")
    report = inspect_file(tmp_path / "ink.pt")
    assert "ComfyUI" not in report["read_by"]
    assert [note.split()[0] for note in report["notes"]] == ["All", "ComfyUI"]


def test_a_hypernetwork_that_cannot_be_used_is_shown_with_the_reason(tmp_path: Path) -> None:
    state = {"linear.0.weight": torch.ones(4, 4), "linear.0.bias": torch.ones(4)}
    atomic_torch_save({4: (state, state), "layer_structure": [1, 1], "activation_func": "nope"}, tmp_path / "a.pt")
    report = inspect_file(tmp_path / "a.pt")
    assert any("The activation 'nope' is unknown" in note for note in report["notes"])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**100])
def test_odd_values_are_shown_in_strict_json(value: Any, tmp_path: Path) -> None:
    state = {"linear.0.weight": torch.ones(4, 4), "linear.0.bias": torch.ones(4)}
    content = {4: (state, state), "layer_structure": [1, 1], "dropout_structure": [0, value], "step": 2**100}
    atomic_torch_save({**content, "activation_func": "a\ud800"}, tmp_path / "a.pt")
    strict(inspect_file(tmp_path / "a.pt"))


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n", b"RIFF0000WEBP"])
def test_what_is_nothing_of_ours_gives_one_sentence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(FileFormatError) as caught:
        inspect_file(tmp_path / "x")
    assert str(caught.value).count("\n") == 0
    assert str(tmp_path / "x") in str(caught.value)
