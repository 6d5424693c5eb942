from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tincture.errors import UsageError
from tincture.formats.picture_text import parameters_text, save_png
from tincture.server.page.try_it import request as try_request
from tincture.server.page.try_it import view as try_view
from tincture.server.page.try_it.prompt_edit import Named
from tincture.server.page.try_it.request import COMPARED, GRID, PICTURES, DrawingInputs
from tincture.server.requests.drawing import checked_drawing
from tincture.settings.drawing import CompleteDrawing
from tincture.settings.model_overrides import ModelOverrides

INPUTS = DrawingInputs(
    mode=PICTURES,
    prompt="a gold ring",
    negative_prompt="",
    model="picto",
    sampler="Euler a",
    steps=20,
    guidance_scale=None,
    width=0,
    height=None,
    seed=7,
    count=3,
    named=(Named("embedding", "gold", 1.0),),
)


def request(**changes: Any) -> dict[str, Any]:
    made = try_request.request(dataclasses.replace(INPUTS, **changes))
    checked_drawing(made, most=64, side=2048)  # the service takes it
    return made


def test_seeds_count_up_and_are_drawn_by_chance_below_zero() -> None:
    assert request()["seeds"] == [7, 8, 9]
    assert request(seed=-1)["seeds"] == [-1, -1, -1]
    assert request(seed=None, count=1)["seeds"] == [-1]


def test_what_is_left_to_the_model_is_not_asked_for() -> None:
    assert not {"guidance_scale", "width", "height"} & request().keys()
    assert request(guidance_scale=3.5, width=64.0)["width"] == 64
    assert request(guidance_scale=0.0)["guidance_scale"] == 0


def test_what_is_said_of_the_model_is_asked_for() -> None:
    further = {"family": "sd2", "prediction_type": "v_prediction", "zero_terminal_snr": True, "vae": "", "clip_skip": 2}
    made = request(further=further)
    assert made.items() >= further.items()
    assert checked_drawing(made, most=64, side=2048).overrides() == ModelOverrides("", "sd2", "v_prediction", True)
    assert "zero_terminal_snr" not in request(further={"zero_terminal_snr": None})


def test_before_and_after_differ_by_the_adapters_alone() -> None:
    made = request(mode=COMPARED, instead="silver")
    assert made["prompts"] == ["a silver ring", "a gold ring"]
    assert made["seeds"] == [7, 8, 9]


def test_a_grid_has_one_seed() -> None:
    made = request(mode=GRID, strengths="0, 1", copies=["x/gold-100.pt"])
    assert (made["seeds"], made["strengths"], made["checkpoints"]) == ([7], [0, 1], ["x/gold-100.pt"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": "  "}, "prompt is empty"),
        ({"mode": COMPARED, "named": ()}, "names no adapter"),
        ({"mode": GRID, "strengths": "full"}, "numbers between commas"),
        ({"mode": GRID, "strengths": ""}, "strengths"),
    ],
)
def test_what_is_missing_is_said(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        request(**changes)


def drawn(folder: Path, seed: int, prompt: str = "a <b> ring") -> Path:
    path = folder / f"{seed} &.png"
    text = parameters_text(prompt, CompleteDrawing(width=8, height=8), seed=seed)
    save_png(np.zeros((8, 8, 3), dtype=np.uint8), path, text)
    return path


def test_pictures_are_shown_with_their_settings_and_their_seed(tmp_path: Path) -> None:
    shown = try_view.pictures(PICTURES, [drawn(tmp_path, 5), drawn(tmp_path, 6)])
    assert shown.count("<img") == 2
    assert 'data-seed="5"' in shown and 'data-seed="6"' in shown
    assert "a &lt;b&gt; ring" in shown and "<b> ring" not in shown
    assert "5%20%26.png" in shown


def test_before_and_after_stand_side_by_side(tmp_path: Path) -> None:
    paths = [drawn(tmp_path, seed) for seed in (1, 2, 3, 4)]
    pairs = try_view.pictures(COMPARED, paths).split('<div class="pair">')[1:]
    assert [('data-seed="1"' in pair, 'data-seed="3"' in pair) for pair in pairs] == [(True, True), (False, False)]
    assert all(pair.index("<b>without</b>") < pair.index("<b>with</b>") for pair in pairs)


def test_a_picture_that_is_gone_has_no_settings(tmp_path: Path) -> None:
    assert try_view.settings_text(tmp_path / "gone.png") == ""
    assert "<img" in try_view.pictures(GRID, [tmp_path / "gone.png"])


@pytest.mark.parametrize(
    ("told", "words"), [(None, "Loading"), ({}, "Loading"), ({"done": 5.5, "total": 20}, "Step 5 of 20")]
)
def test_progress_says_what_is_done(told: dict[str, Any] | None, words: str) -> None:
    assert words in try_view.progress(told)
