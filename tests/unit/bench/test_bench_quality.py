"""The bench of quality: lessons that go on where they stopped, other trainers' loops, tables by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from bench import peer_loops, quality, quality_lessons, quality_tables
from bench.peer_loops import Material, PeerRecipe
from bench.quality_recipes import BASE, SWITCHES

from tincture.settings.train import TrainSettings


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lessons of two steps, judged by two pictures of one sampling step."""
    monkeypatch.setattr(quality_lessons, "PREVIEWS", 2)
    monkeypatch.setattr(quality_lessons, "HELD_OUT", 1)
    monkeypatch.setattr(quality_lessons, "DRAWING", dataclasses.replace(quality_lessons.DRAWING, steps=1))
    quality_lessons.judge_of.cache_clear()
    ways = {"ours": BASE, "webui": peer_loops.PEERS["webui"]}
    monkeypatch.setattr(quality, "PARTS", {"peers": quality.Part(ways, (1, 2), batch=2)})
    monkeypatch.setattr(quality, "SUBJECTS", 1)


def material() -> Material:
    pixels = torch.linspace(-1, 1, 3 * 3 * 64 * 64).reshape(3, 3, 64, 64)
    return Material("glimmer", pixels, ["red", "green", "blue"], "star")


def row(taught: float, loss: float = 0.1) -> dict[str, float]:
    return {"taught": taught, "both": taught / 2, "loss": loss, "training_loss": loss, "drift": 0.5, "norm": 1.0}


def lesson(way: str, subject: str, seed: int, **rows: Mapping[str, float]) -> dict[str, Any]:
    return {
        "way": way,
        "subject": subject,
        "seed": seed,
        "rows": {step.lstrip("at"): row for step, row in rows.items()},
    }


def test_lessons_of_both_kinds_are_judged_at_every_step_and_not_taught_twice(
    short: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "quality.md"
    page.write_text(f"before\n{quality_tables.BEGIN}\n{quality_tables.END}\nafter\n")
    arguments = ["peers", "--rounds", "1", "--results", str(tmp_path / "results"), "--docs", str(page)]
    quality.main(arguments)
    assert capsys.readouterr().out.count("peers ") == 2
    known = quality.read_results(tmp_path / "results", "peers")
    assert [(each["way"], list(each["rows"])) for each in known.values()] == [
        ("ours", ["1", "2"]),
        ("webui", ["1", "2"]),
    ]
    assert all(0 < each["rows"]["2"]["loss"] < 1 and each["rows"]["2"]["norm"] > 0 for each in known.values())
    quality.main(["pack", *arguments[3:]])
    assert not list((tmp_path / "results" / "peers").glob("*.json"))
    assert quality.read_results(tmp_path / "results", "peers") == known
    quality.main(arguments)
    assert capsys.readouterr().out == ""
    assert "| ours | 1 |" in page.read_text() and page.read_text().endswith(f"{quality_tables.END}\nafter\n")


def test_rounds_of_short_lessons_have_another_subject_each_and_those_of_the_others_all() -> None:
    part = quality.Part({"one": BASE, "two": BASE}, (50,))
    assert len(quality.lessons(part, 2)) == 2 * 2 * quality.SUBJECTS
    apart = quality.lessons(dataclasses.replace(part, every_subject=False), 3)
    assert [(each.way, each.seed) for each in apart] == [(w, n) for n in range(3) for w in ("one", "two")]
    assert len({each.subject for each in apart}) == 3


def test_every_switch_is_a_run_that_is_allowed_and_a_change_of_the_baseline() -> None:
    for recipe in SWITCHES.values():
        TrainSettings(kind="embedding", name="one", data="data", steps=50, **recipe.settings)
    assert [name for name, recipe in SWITCHES.items() if recipe == SWITCHES["baseline"]] == ["baseline"]


def test_a_way_that_there_is_not_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no magic; there are ours, ours, beginning"):
        quality.main(["peers", "--only", "magic", "--results", str(tmp_path)])


# --- other trainers' loops -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(peer_loops.PEERS))
def test_a_peer_trains_its_vectors_alone(name: str) -> None:
    model, recipe = quality_lessons.picto(), peer_loops.PEERS[name]
    before = model.text_encoders[0].module.state_dict()
    before = {key: value.clone() for key, value in before.items()}
    found = [
        (step, each.vectors["clip_l"].detach().clone())
        for step, each in peer_loops.teach(model, recipe, material(), (1, 2), seed=0, batch=2)
    ]
    assert [step for step, _ in found] == [1, 2]
    assert len(found[0][1]) == recipe.vectors
    assert not torch.equal(found[0][1], found[1][1])
    after = model.text_encoders[0].module.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_the_rate_of_a_scaled_recipe_counts_the_pictures_of_a_step() -> None:
    model = quality_lessons.picto()
    recipe = dataclasses.replace(peer_loops.PEERS["diffusers"], decay=0.0)
    moved = {}
    for batch in (0, 2):
        start = model.text.token_embeddings("star")["clip_l"]
        ((_, embedding),) = [
            (step, each) for step, each in peer_loops.teach(model, recipe, material(), (1,), seed=0, batch=batch)
        ]
        moved[batch] = float((embedding.vectors["clip_l"].detach() - start).abs().max())
    assert moved[0] == pytest.approx(4 * 5e-4, rel=1e-2)  # Adam's first step is as long as the rate
    assert moved[2] == pytest.approx(2 * 5e-4, rel=1e-2)


def test_a_line_stays_with_its_picture_where_the_program_has_it_so() -> None:
    model = quality_lessons.picto()
    for stays, distinct in ((True, {1}), (False, {1, 2, 3, 4})):
        recipe = PeerRecipe(tuple("abcd"), 1, "*", 1e-3, line_stays=stays)
        recipe = dataclasses.replace(recipe, lines=tuple(f"{letter} {{name}} {{caption}}" for letter in "abcd"))
        samples = peer_loops._Samples(model, recipe, material(), torch.Generator().manual_seed(0))
        _, prompts = samples.next(30)
        lines = {caption: {prompt[0] for prompt in prompts if prompt.endswith(caption)} for caption in ("red", "blue")}
        assert {len(found) for found in lines.values()} <= distinct
        assert stays or max(len(found) for found in lines.values()) > 1


# --- tables ----------------------------------------------------------------------------------------------------------


def test_a_switch_is_compared_with_the_baseline_of_the_same_lesson() -> None:
    found = [
        lesson("baseline", "a", 0, at50=row(0.5, 0.10)),
        lesson("baseline", "b", 1, at50=row(0.9, 0.20)),
        lesson("ema", "a", 0, at50=row(0.6, 0.11)),
        lesson("ema", "b", 1, at50=row(1.0, 0.21)),
        lesson("ema", "c", 2, at50=row(0.0, 0.90)),
    ]
    table = quality_tables.switches_table({str(number): each for number, each in enumerate(found)})
    assert "| baseline | 2 | 0.70 ± 0.20 |" in table
    assert "| ema | 2 | +0.10 ± 0.00 | +0.05 ± 0.00 | +0.0100 ± 0.0000 |" in table


def test_ways_have_their_shares_at_every_step_and_the_rest_at_the_last() -> None:
    found = {
        "1": lesson("ours", "a", 0, at50=row(0.5), at100=row(1.0)),
        "2": lesson("ours", "b", 0, at50=row(0.7), at100=row(1.0)),
        "3": lesson("webui", "a", 0, at50=row(0.0), at100=row(0.25)),
    }
    lines = quality_tables.ways_table(found).splitlines()
    assert lines[0].startswith("| recipe | lessons | fidelity at 50 | fidelity at 100 | editability at 50 |")
    assert lines[2].startswith("| ours | 2 | 0.60 ± 0.10 | 1.00 ± 0.00 | 0.30 ± 0.05 | 0.50 ± 0.00 |")
    assert lines[3].startswith("| webui | 1 | 0.00 | 0.25 | 0.00 | 0.12 |")


def test_a_page_without_marks_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "quality.md"
    page.write_text("no marks")
    with pytest.raises(ValueError, match="must have the marks"):
        quality_tables.write(page, {})
    assert page.read_text() == "no marks"
