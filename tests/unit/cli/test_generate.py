from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli.conftest import FakeRecipe
from tincture.cli import main


def test_flags_reach_the_recipe(recipe: FakeRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["a cat", "a dog <hypernet:ink:0.8>", "--out", "o", "--model", "m", "--negative-prompt", "n", "--seed", "5"]
    words += ["--count", "3", "--steps", "9", "--sampler", "DDIM", "--guidance-scale", "2", "--width", "64"]
    assert main(["generate", *words, "--clip-skip", "2", "--json"]) == 0
    ((name, arguments, keywords),) = recipe.calls
    keywords.pop("workspace")
    assert (name, arguments) == ("generate_pictures", (["a cat", "a dog <hypernet:ink:0.8>"],))
    assert keywords == {
        "model": "m",
        "out": Path("o"),
        "seeds": [5, 6, 7],
        "negative_prompt": "n",
        "steps": 9,
        "sampler": "DDIM",
        "guidance_scale": 2.0,
        "width": 64,
        "height": None,
        "clip_skip": 2,
        "grid": None,
    }
    assert json.loads(capsys.readouterr().out) == {"pictures": ["outputs/0.png"]}


def test_pictures_go_to_the_workspace_unless_told(
    recipe: FakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "a cat"]) == 0
    assert recipe.calls[0][2]["out"] == tmp_path / "outputs"
    assert capsys.readouterr().out == "outputs/0.png\n"


def test_grid_has_strengths_and_checkpoints(recipe: FakeRecipe) -> None:
    words = ["--grid", "--strengths", "0,0.5,1", "--checkpoint", "a.pt", "--checkpoint", "b.pt"]
    assert main(["generate", "a <hypernet:ink:1>", *words]) == 0
    assert recipe.calls[0][2]["grid"] == {"strengths": [0, 0.5, 1], "checkpoints": [Path("a.pt"), Path("b.pt")]}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a", "--width", "63"], "--width is 63"),
        (["a", "--height", "12"], "--height is 12"),
        (["a", "--count", "0"], "--count"),
        (["a", "b", "--grid"], "one prompt"),
        (["a", "--grid", "--strengths", "x"], "--strengths has 'x'"),
        ([], "PROMPT"),
    ],
)
def test_wrong_values_are_refused(
    words: list[str], told: str, recipe: FakeRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", *words]) == 2
    assert told in capsys.readouterr().err
    assert not recipe.calls
