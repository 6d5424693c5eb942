"""In which programs a hypernetwork acts as it does here, against a model of how ComfyUI's loader builds its layers."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tincture.adapters.files.conversion import convert_file
from tincture.adapters.files.inspection import inspect_file
from tincture.adapters.hypernetwork import Hypernetwork, create_hypernetwork
from tincture.kinds.layer_structure import legacy_dropout_structure

ACTIVATIONS = {"relu": nn.ReLU, "swish": nn.Hardswish, "tanh": nn.Tanh}


def in_comfyui(content: dict[Any, Any], width: int) -> nn.Sequential | None:
    """The K layers as ComfyUI makes them, in training mode as it leaves them; None where it refuses the file."""
    activation = content.get("activation_func", "linear")
    if activation not in ("linear", *ACTIVATIONS):
        return None
    state = content[width][0]
    owners = [name.removesuffix(".weight") for name in state if name.endswith(".weight")]
    layers: list[nn.Module] = []
    place = 0
    while place < len(owners):
        last, one_before = place == len(owners) - 1, place == len(owners) - 2
        weight, bias = state[f"{owners[place]}.weight"], state[f"{owners[place]}.bias"]
        layers.append(nn.Linear(weight.shape[1], weight.shape[0]))
        layers[-1].load_state_dict({"weight": weight, "bias": bias})
        if activation != "linear" and (not last or content.get("activate_output", False)):
            layers.append(ACTIVATIONS[activation]())
        if content.get("is_layer_norm", False):
            place += 1
            weight, bias = state[f"{owners[place]}.weight"], state[f"{owners[place]}.bias"]
            layers.append(nn.LayerNorm(len(weight)))
            layers[-1].load_state_dict({"weight": weight, "bias": bias})
        if (
            content.get("use_dropout", False)
            and not last
            and (not one_before or content.get("last_layer_dropout", False))
        ):
            layers.append(nn.Dropout(0.3))
        place += 1
    return nn.Sequential(*layers)


def acts_the_same(path: Path) -> bool:
    ours = Hypernetwork.load(path)
    (width,) = ours.sizes
    theirs = in_comfyui(torch.load(path, weights_only=True), width)
    if theirs is None:
        return False
    x = torch.randn(2, 3, width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return torch.allclose(x + theirs(x), ours.transform(x)[0], atol=1e-6)


# Layer structure, activation, layer norm, activate_output, and dropout: none, of inner layers, of the last of them too.
CASES: list[tuple[list[int], str | None, bool, bool, int]] = [
    *itertools.product(([1, 1], [1, 2, 1], [1, 2, 2, 1]), ("linear", "swish"), (True, False), (True, False), (0, 1, 3)),
    ([1, 2, 1], None, False, False, 0),
    ([1, 2, 1], "gelu", False, False, 0),
]


@pytest.mark.parametrize("way", ["as it was", "as Tincture writes it"])
def test_what_inspect_says_of_comfyui_is_what_its_loader_makes_of_the_file(way: str, tmp_path: Path) -> None:
    seen = set()
    for structure, activation, norm, activates, dropout in CASES:
        # A dropout takes a number of the layers' names, so the network is made with what the rule of 2022 asks for.
        drops = legacy_dropout_structure(structure, dropout > 1) if dropout & 1 else None
        settings = (activation or "linear", "XavierNormal", norm, activates, drops)
        create_hypernetwork("h", [16], structure, *settings, seed=3).save(tmp_path / "h.pt")
        content = torch.load(tmp_path / "h.pt", weights_only=True)
        content |= {"activation_func": activation, "use_dropout": bool(dropout & 1), "last_layer_dropout": dropout > 1}
        content["dropout_structure"] = None if dropout & 1 else content["dropout_structure"]
        torch.save(content, tmp_path / "old.pt")
        if way == "as it was":
            path = tmp_path / "old.pt"
        else:
            path = tmp_path / "new.pt"
            said = convert_file(tmp_path / "old.pt", path, overwrite=True)["lost"]
            assert any("ComfyUI" in sentence for sentence in said) != acts_the_same(path)
        report = inspect_file(path)
        same = "ComfyUI" in report["acts_the_same_in"]
        assert same == acts_the_same(path), (structure, activation, norm, activates, dropout)
        assert any(note.startswith(("In ComfyUI", "ComfyUI ")) for note in report["notes"]) != same
        seen.add(same)
    assert seen == {True, False}


@pytest.mark.parametrize("norm", [True, False])
def test_a_missing_activate_output_means_no_in_comfyui_and_yes_in_the_webui(norm: bool, tmp_path: Path) -> None:
    create_hypernetwork("h", [16], (1, 2, 1), "relu", "XavierNormal", norm, True).save(tmp_path / "h.pt")
    content = torch.load(tmp_path / "h.pt", weights_only=True)
    del content["activate_output"]
    torch.save(content, tmp_path / "h.pt")
    report = inspect_file(tmp_path / "h.pt")
    assert ("ComfyUI" in report["acts_the_same_in"]) == acts_the_same(tmp_path / "h.pt") == norm
    assert any("the activation does not follow its last layer" in note for note in report["notes"]) != norm


def test_programs_by_container_and_keys(tmp_path: Path) -> None:
    made = create_hypernetwork("h", [16], (1, 2, 1), "relu")
    made.save(tmp_path / "h.pt")
    made.save(tmp_path / "h.safetensors")
    assert inspect_file(tmp_path / "h.pt")["acts_the_same_in"] == ["webui", "ComfyUI", "Tincture"]
    assert inspect_file(tmp_path / "h.safetensors")["acts_the_same_in"] == ["Tincture"]
    content = torch.load(tmp_path / "h.pt", weights_only=True)
    torch.save(content, tmp_path / "new.pt")  # with entries that the webui refuses
    assert inspect_file(tmp_path / "new.pt")["acts_the_same_in"] == ["ComfyUI", "Tincture"]
    content["16"] = content.pop(16)
    torch.save(content, tmp_path / "texts.pt", _use_new_zipfile_serialization=False)
    report = inspect_file(tmp_path / "texts.pt")
    assert report["acts_the_same_in"] == ["Tincture"]
    assert any("Its widths are texts" in note for note in report["notes"])


def test_the_guide_and_inspect_agree_about_forge(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[4] / "docs" / "guide.md").read_text(encoding="utf-8")
    (row,) = [line for line in guide.splitlines() if line.startswith("| Forge |")]
    assert "reported not to act" in row
    create_hypernetwork("h", [16]).save(tmp_path / "h.pt")
    report = inspect_file(tmp_path / "h.pt")
    assert "Forge" not in report["acts_the_same_in"] and "Forge" not in report["read_by"]
