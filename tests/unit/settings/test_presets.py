"""Presets of a run: every one is allowed for every kind, and says what it changes."""

from __future__ import annotations

import pytest

from tincture.errors import UsageError
from tincture.kinds.registry import kind_names
from tincture.settings.presets import PRESETS, SMALL_MODEL, Preset, find_preset
from tincture.settings.train import TrainSettings


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
@pytest.mark.parametrize("kind", kind_names())
@pytest.mark.parametrize("model", [SMALL_MODEL, "v1-5"])
def test_every_preset_makes_settings_that_are_allowed(preset: Preset, kind: str, model: str) -> None:
    values = preset.settings(kind, model)
    made = TrainSettings.from_dict({"kind": kind, "name": "x", "data": "y", **values})
    assert made.learning_rate and made.last_step == made.steps > 0
    assert made.steps <= 400 if model == SMALL_MODEL else made.steps >= 300


def test_the_embedded_model_begins_as_the_demo_does() -> None:
    assert find_preset("subject").settings("embedding", SMALL_MODEL)["learning_rate"] == "0.005:200, 0.002"
    assert find_preset("style").settings("hypernetwork", SMALL_MODEL)["caption_drop_out"] == 0.15


def test_a_preset_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(UsageError, match="There is no preset 'fast'; there are quick, subject, style, careful"):
        find_preset("fast")
