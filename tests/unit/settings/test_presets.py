"""Presets of a run: every one is allowed for every kind, and says what it changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tincture.errors import UsageError
from tincture.kinds.registry import kind_names
from tincture.settings.presets import PRESETS, SMALL_MODEL, Preset, find_preset, own_presets
from tincture.settings.train import TrainSettings
from tincture.workspace import Workspace


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
@pytest.mark.parametrize("kind", kind_names())
@pytest.mark.parametrize("model", [SMALL_MODEL, "v1-5"])
def test_every_preset_makes_settings_that_are_allowed(preset: Preset, kind: str, model: str) -> None:
    values = preset.settings(kind, model)
    made = TrainSettings.from_dict({"kind": kind, "name": "x", "data": "y", **values})
    assert made.learning_rate and made.last_step == made.steps > 0
    assert made.steps <= 1000 if model == SMALL_MODEL else made.steps >= 300


def test_the_embedded_model_begins_as_the_demo_does() -> None:
    assert find_preset("subject").settings("embedding", SMALL_MODEL)["learning_rate"] == "0.005:200, 0.002"
    assert find_preset("style").settings("hypernetwork", SMALL_MODEL)["caption_drop_out"] == 0.15


def test_a_style_has_what_measured_best_on_the_embedded_model_alone() -> None:
    style = find_preset("style").settings("hypernetwork", SMALL_MODEL)
    assert (style["optimizer"], style["timestep_weighting"], style["steps"]) == ("SOAP", "debiased", 1000)
    assert style["weight_decay"] == 1.0 and style["batch_size"] == 12 and style["caption_drop_out"] == 0.15
    assert "optimizer" not in find_preset("subject").settings("hypernetwork", SMALL_MODEL)
    assert "optimizer" not in find_preset("style").settings("embedding", SMALL_MODEL)
    assert "optimizer" not in find_preset("style").settings("hypernetwork", "v1-5")


def test_a_preset_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(UsageError, match="There is no preset 'fast'; there are quick, subject, style, careful"):
        find_preset("fast")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path)
    made.presets.mkdir()
    return made


def test_a_workspace_has_presets_of_its_own(workspace: Workspace) -> None:
    (workspace.presets / "mine.toml").write_text('kind = "embedding"\nname = "rex"\nsteps = 77\nmodel = "v1-5"\n')
    (workspace.presets / "quick.toml").write_text('kind = "embedding"\nsteps = 78\n')
    assert own_presets(workspace) == ["mine"]
    mine = find_preset("mine", workspace)
    assert mine.settings("embedding", SMALL_MODEL) == {"kind": "embedding", "steps": 77}
    assert find_preset("quick", workspace).settings("embedding", "v1-5")["steps"] == 300  # the built-in one
    with pytest.raises(UsageError, match="'mine' is for an embedding, not for a hypernetwork"):
        mine.settings("hypernetwork", SMALL_MODEL)
    with pytest.raises(UsageError, match="there are quick, subject, style, careful, mine"):
        find_preset("yours", workspace)
    assert own_presets(Workspace(workspace.root / "empty")) == []


def test_an_own_preset_that_cannot_be_used_is_refused(workspace: Workspace) -> None:
    (workspace.presets / "mine.toml").write_text("steps = 77\n")
    with pytest.raises(UsageError, match="does not say what it is for; add a line"):
        find_preset("mine", workspace)
    (workspace.presets / "mine.toml").write_text('kind = "embedding"\nsteps = 0\n')
    with pytest.raises(UsageError, match=r"mine\.toml is not allowed: steps is 0"):
        find_preset("mine", workspace)
