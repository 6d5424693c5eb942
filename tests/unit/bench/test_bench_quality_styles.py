"""Lessons on styles: planned, taught once, and told in tables."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import pytest
from bench import quality_styles
from bench.peer_loops import PeerRecipe
from bench.quality_style_ways import RELU, SHORT, Lesson, Way

from tincture.models.picto import world


def figures(style: str, count: int, seed: int, both: float) -> dict[str, Any]:
    shares = {"taught": 0.9, "rest": 0.8, "both": both, "clear": 1.0}
    guidance = {"1": {**shares, "both": both / 4}, "1.5": shares, "2": {**shares, "both": both / 2}}
    taken = {"seconds": 70.0, "cpu_seconds": 60.0, "training_loss": 0.05, "loss": 0.1}
    return {**dataclasses.asdict(Lesson(style, count, seed)), **taken, "guidance": guidance}


def test_every_style_is_taught_from_each_number_of_pictures_with_each_seed() -> None:
    planned = list(quality_styles.lessons().values())
    assert len(planned) == 5 * 3 * 3
    assert {lesson.style for lesson in planned} == set(world.STYLES[1:])
    assert {lesson.seed for lesson in planned[:15]} == {0}


def test_previews_ask_for_scenes_in_the_style_that_no_caption_names() -> None:
    asked = quality_styles.asked(Lesson("shadow", 12, 3, previews=5))
    assert {scene.style for scene in asked.scenes} == {"shadow"}
    assert len(set(asked.prompts)) == len(set(asked.seeds)) == 5
    assert not any("shadow" in prompt for prompt in asked.prompts)
    assert asked.seeds != quality_styles.asked(Lesson("shadow", 12, 4, previews=5)).seeds


def test_seeds_follow_each_other_in_the_cells_of_the_table() -> None:
    taught = {str(seed): figures("frame", 48, seed, 0.7 + seed / 10) for seed in (1, 0)}
    ways = {"base": figures("outline", 48, 0, 0.25)}
    text = quality_styles.report(taught, ways, {})
    row = "| frame | 48 | 0, 1 | 0.90 / 0.80 / 0.70, 0.90 / 0.80 / 0.80 | 0.17, 0.20 | 0.35, 0.40 | "
    assert row + "0.100 (0.050), 0.100 (0.050) | 60, 60 |" in text
    assert "| base | 60 | 0.90 | 0.80 | 0.06 | 1.00 | 0.25 | 0.12 | 0.100 (0.050) | 60 |" in text
    assert "sunset" not in text


def test_a_lesson_is_taught_once_and_the_report_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = Way({"steps": 2, "batch_size": 2}, RELU, SHORT, Lesson("sunset", 2, 0, 2))
    monkeypatch.setattr(quality_styles, "WAYS", {"base": short, "never": short})
    monkeypatch.setattr(quality_styles, "HELD_OUT", 2)
    arguments = ["ways", "--only", "base", "--results", str(tmp_path)]
    quality_styles.main(arguments)
    path = tmp_path / "ways" / "base.json"
    found = json.loads(path.read_text())
    assert found["way"] == "base" and found["guidance"]["1"]["taught"] == 0.0 and found["loss"] > 0
    assert not (tmp_path / "ways" / "never.json").exists()

    monkeypatch.setattr(quality_styles, "teach", lambda *_: pytest.fail("it was taught again"))
    quality_styles.main(arguments)
    page = tmp_path / "quality.md"
    page.write_text(f"before\n{quality_styles.BEGIN}\nold\n{quality_styles.END}\nafter\n")
    quality_styles.main(["report", "--results", str(tmp_path), "--docs", str(page)])
    assert "| base | 2 | 0.00 |" in page.read_text() and "old" not in page.read_text()


def test_an_unknown_lesson_is_named() -> None:
    with pytest.raises(SystemExit, match="no outline-13-0; there are outline-48-0"):
        quality_styles.main(["lessons", "--only", "outline-13-0"])


def test_other_trainers_recipes_are_judged_after_each_number_of_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hypernetwork = Way({"steps": 5, "batch_size": 2}, RELU, SHORT)
    embedding = PeerRecipe(("{name}, {caption}",), 1, "*", 5e-3)
    monkeypatch.setattr(quality_styles, "PEERS", {"ours": hypernetwork, "other": embedding})
    monkeypatch.setattr(quality_styles, "PEERS_AT", (1, 2))
    monkeypatch.setattr(quality_styles, "HELD_OUT", 2)
    monkeypatch.setattr(quality_styles, "Lesson", functools.partial(Lesson, previews=2))
    arguments = ["peers", "--only", "ours / sunset-24-0", "other / sunset-24-0", "--results", str(tmp_path)]
    quality_styles.main(arguments)
    names = [*quality_styles.plan_of("peers")]
    found = quality_styles.read_results(tmp_path / "peers", names)
    assert [*found] == names[:2]
    assert all([*figures["rows"]] == ["1", "2"] for figures in found.values())
    assert "| other | 1 | 0.00 |" in quality_styles.report({}, {}, found)


def test_an_embedding_of_a_style_is_named_in_several_wordings() -> None:
    prompts = quality_styles.asked(Lesson("sunset", 24, 0, previews=3), quality_styles.NAMED).prompts
    assert all(quality_styles.NAME in prompt for prompt in prompts)
    assert len({prompt.rsplit(", ", 1)[1] for prompt in prompts}) == 3
