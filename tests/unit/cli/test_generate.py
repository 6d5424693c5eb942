from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import FakeRecipe, replace_module
from tincture.cli import main
from tincture.settings.drawing import Drawing
from tincture.settings.model_overrides import ModelOverrides
from tincture.workspace import Workspace


@pytest.fixture
def generation(recipe: FakeRecipe, monkeypatch: pytest.MonkeyPatch) -> FakeRecipe:
    """A fake `tincture.drawing.generation`, in an empty workspace as current directory."""
    fake = FakeRecipe(answers={"generate_pictures": [Path("o/1.png")], "generate_grid": Path("o/grid.png")})
    content: dict[str, Any] = {name: fake.function(name) for name in fake.answers}
    replace_module(monkeypatch, "drawing.generation", content)
    # Nothing that is named is there.
    replace_module(monkeypatch, "run.presence", {"require_drawing": lambda request, workspace: None})
    replace_module(monkeypatch, "models.devices", {"resolve_device": lambda name: None})
    return fake


def test_flags_reach_the_job(generation: FakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["a cat", "a dog <hypernet:ink:0.8>", "--out", "o", "--model", "m", "--negative-prompt", "n", "--seed", "5"]
    words += ["--count", "3", "--steps", "9", "--sampler", "DDIM", "--guidance-scale", "2", "--width", "64"]
    words += ["--device", "cuda:1", "--precision", "bf16", "--vae", "v", "--prediction-type", "v_prediction"]
    words += ["--family", "sd2", "--no-zero-terminal-snr"]
    assert main(["generate", *words, "--clip-skip", "2", "--json"]) == 0
    ((name, arguments, keywords),) = generation.calls
    assert (name, arguments) == ("generate_pictures", (["a cat", "a dog <hypernet:ink:0.8>"],))
    assert keywords == {
        "workspace": Workspace(tmp_path),
        "model": "m",
        "overrides": ModelOverrides("v", "sd2", "v_prediction", False),
        "device": "cuda:1",
        "precision": "bf16",
        "out": Path("o"),
        "seeds": [5, 6, 7],
        "drawing": Drawing(negative_prompt="n", steps=9, sampler="DDIM", guidance_scale=2.0, width=64, clip_skip=2),
    }
    assert json.loads(capsys.readouterr().out) == {"pictures": ["o/1.png"]}


def test_a_seed_that_is_too_large_is_told(generation: FakeRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "a cat", "--seed", str(2**64)]) == 2
    told = capsys.readouterr().err
    assert "--seed" in told and str(2**64 - 1) in told
    assert not generation.calls


def test_pictures_go_to_the_workspace_unless_told(
    generation: FakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "a cat"]) == 0
    assert generation.calls[0][2]["out"] == tmp_path / "outputs"
    assert generation.calls[0][2]["overrides"] == ModelOverrides()
    assert capsys.readouterr().out == "o/1.png\n"


def test_grid_has_strengths_and_checkpoints(generation: FakeRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--grid", "--strengths", "0,0.5,1", "--checkpoint", "a.pt", "--checkpoint", "b.pt", "--seed", "3"]
    assert main(["generate", "a <hypernet:ink:1>", *words]) == 0
    ((name, arguments, keywords),) = generation.calls
    assert (name, arguments, keywords["seed"]) == ("generate_grid", ("a <hypernet:ink:1>",), 3)
    assert keywords["strengths"] == (0, 0.5, 1)
    assert keywords["checkpoints"] == [Path("a.pt"), Path("b.pt")]
    assert capsys.readouterr().out == "o/grid.png\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a", "--width", "63"], "--width is 63"),
        (["a", "--height", "12"], "--height is 12"),
        (["a", "--count", "0"], "--count"),
        (["a", "b", "--grid"], "one prompt"),
        (["a", "--grid", "--count", "2"], "one seed"),
        (["a", "--grid", "--strengths", "x"], "--strengths has 'x'"),
        ([], "PROMPT"),
    ],
)
def test_wrong_values_are_refused(
    words: list[str], told: str, generation: FakeRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", *words]) == 2
    assert told in capsys.readouterr().err
    assert not generation.calls


def test_a_toml_file_has_what_flags_have_and_flags_win(
    generation: FakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = 'prompts = ["a cat", "a dog"]\nsteps = 7\ncount = 2\nprediction_type = "v_prediction"\nwidth = 64\n'
    (tmp_path / "moon.toml").write_text(text)
    assert main(["generate", "--config", "moon.toml", "--steps", "9", "--seed", "3", "--batch-size", "4"]) == 0
    ((name, arguments, keywords),) = generation.calls
    assert (name, arguments, keywords["seeds"]) == ("generate_pictures", (["a cat", "a dog"],), [3, 4])
    assert keywords["drawing"] == Drawing(steps=9, width=64)
    assert keywords["overrides"] == ModelOverrides(prediction_type="v_prediction")
    assert keywords["batch_size"] == 4
    assert main(["generate", "a fish", "--config", "moon.toml"]) == 0
    assert generation.calls[1][1] == (["a fish"],)
    (tmp_path / "moon.toml").write_text('steps = 0\nsampller = "Euler"\n')
    assert main(["generate", "a fish", "--config", "moon.toml"]) == 2
    message = capsys.readouterr().err
    assert "2 settings in moon.toml are not allowed" in message
    assert "steps is 0" in message and "A drawing has no 'sampller'" in message


def test_strengths_make_a_sheet_and_seeds_may_be_drawn_by_chance(generation: FakeRecipe) -> None:
    assert main(["generate", "a <hypernet:ink:1>", "--strengths", "0,2"]) == 0
    assert main(["generate", "a <hypernet:ink:1>", "--grid"]) == 0
    assert [call[2]["strengths"] for call in generation.calls] == [(0, 2), (0, 0.25, 0.5, 0.75, 1)]
    assert main(["generate", "a", "--seed", "-1", "--count", "5"]) == 0
    seeds = generation.calls[2][2]["seeds"]
    assert len(set(seeds)) == 5 and all(0 <= seed < 2**32 for seed in seeds)
