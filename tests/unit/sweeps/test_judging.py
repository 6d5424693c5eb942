"""What the oracle is asked of a run: pictures are painted and not drawn, so that what they show is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tincture.models.picto import world
from tincture.run import demo
from tincture.run.create import create_embedding, create_hypernetwork
from tincture.settings.train import TrainSettings
from tincture.sweeps.judging import judge
from tincture.workspace import Workspace

MOON = "small cyan dotted moon"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The prompts that pictures were asked for; what is drawn is what the prompt means, in the style that is judged."""
    found: list[tuple[str, ...]] = []

    def paint(model: Any, scenes: Sequence[world.Scene], prompts: Sequence[str], seed: int) -> demo.Judged:
        found.append((*prompts, str(seed)))
        plain = [dataclasses.replace(scene, style="none") for scene in scenes[:1]]
        return demo.judge(scenes, [world.render(scene) for scene in [*plain, *scenes[1:]]])

    monkeypatch.setattr(demo, "draw", paint)
    return found


def settings(kind: str, name: str) -> TrainSettings:
    return TrainSettings(kind=kind, name=name, data="d", model="picto")


def test_a_subject_is_looked_for_in_other_prompts_than_it_was_taught_with(
    asked: list[tuple[str, ...]], tmp_path: Path
) -> None:
    workspace = Workspace(tmp_path)
    first = create_embedding("a-p01", workspace=workspace, model="picto")
    second = create_embedding("a-p02", workspace=workspace, model="picto")
    for name, path in (("a-p01", first), ("a-p02", second)):
        found = judge({"subject": MOON, "pictures": 5}, settings("embedding", name), [path], workspace)
        assert found == {"fidelity": 1.0, "editability": 1.0}
    assert all(prompt.startswith("a a-p01, ") and "moon" not in prompt for prompt in asked[0][:-1])
    assert len(set(asked[0][:-1])) > 1
    # the same prompts and seeds for every run
    assert [text.replace("a-p01", "a-p02") for text in asked[0]] == list(asked[1])


def test_a_style_is_looked_for_in_whatever_the_prompt_says(asked: list[tuple[str, ...]], tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    path = create_hypernetwork("net", workspace=workspace, model="picto")
    found = judge({"style": "sunset", "pictures": 4}, settings("hypernetwork", "net"), [path], workspace)
    assert found == {"style": 0.75, "content": 0.75}  # the first picture has none
    assert not any("net" in prompt.split() or "style" in prompt for prompt in asked[0])
    word = create_embedding("word", workspace=workspace, model="picto")
    judge({"style": "sunset", "pictures": 2}, settings("embedding", "word"), [word], workspace)
    assert all(prompt.endswith(", in the style of word") for prompt in asked[1][:-1])
