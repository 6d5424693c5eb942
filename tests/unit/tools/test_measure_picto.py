from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tools import measure_picto

from tincture.models.picto import world
from tincture.models.stable_diffusion import StableDiffusion
from tincture.run import demo

PAGE = f"# picto\n\n{measure_picto.BEGIN}\nold figures\n{measure_picto.END}\n\nThe end.\n"


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    (tmp_path / "picto.md").write_text(PAGE)
    return tmp_path


def figures(docs: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((docs / "picto-figures.json").read_text())
    return loaded


def test_oracle_part_writes_counts_and_page(docs: Path) -> None:
    measure_picto.main(["oracle", "--count", "6", "--processes", "1", "--docs", str(docs)])

    part = figures(docs)["oracle"]
    assert part["command"] == "python tools/measure_picto.py oracle --count 6 --seed 0"
    assert part["count"] == 6
    assert set(part["shown"]) == set(world.STYLES)
    assert part["shown"]["none"]["all"] == 6
    page = (docs / "picto.md").read_text()
    assert part["command"] in page
    assert "| plain | 1.000 ± 0.000 |" in page
    assert "old figures" not in page
    assert page.startswith("# picto") and page.endswith("The end.\n")


def test_parts_measured_alone_are_merged(docs: Path) -> None:
    (docs / "picto-figures.json").write_text(
        json.dumps(
            {"prompts": {"command": "earlier", "count": 4, "shown": {"none": dict.fromkeys(measure_picto.READ, 2)}}}
        )
    )
    measure_picto.main(["oracle", "--count", "2", "--processes", "1", "--docs", str(docs)])
    assert set(figures(docs)) == {"oracle", "prompts"}
    page = (docs / "picto.md").read_text()
    assert "`earlier`: 4 pictures of random prompts" in page
    assert "0.500 ± 0.250" in page  # the standard error of 2 of 4


def test_figures_do_not_depend_on_the_order_of_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_picto, "CHUNK", 3)
    chunks: list[Any] = []

    def run(function: Any, given: Any) -> Any:
        chunks.extend(given)
        return map(function, given)

    counted = measure_picto.measure_pictures("oracle", 5, 3, run)
    plain = [chunk for chunk in chunks if chunk.style == "none"]
    assert [chunk.size for chunk in plain] == [3, 2]
    backwards = [measure_picto.read_chunk(chunk) for chunk in reversed(plain)]
    assert counted["shown"]["none"] == {name: sum(found[name] for found in backwards) for name in measure_picto.READ}


def test_tally_counts_wrong_pictures_where_they_are_wrong() -> None:
    scene = world.Scene("moon", "cyan", "dotted", "small", "left", "navy")
    others = [dataclasses.replace(scene, background="mint"), dataclasses.replace(scene, style="outline")]
    judged = demo.judge([scene] * 3, [world.render(each) for each in (scene, *others)])
    counts = measure_picto.tally(judged)
    assert (counts["shape"], counts["background"], counts["all"], counts["style"]) == (3, 2, 2, 2)


def test_vae_part_reads_decoded_pictures(shared_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_picto, "_picto", lambda: shared_model)
    pictures = np.stack([world.render(world.Scene("heart", "red")), world.render(world.Scene("ring", "blue"))])
    decoded = measure_picto.through_vae(shared_model, pictures)
    assert decoded.shape == pictures.shape and decoded.dtype == np.uint8
    # a VAE of random weights shows nothing that was there
    counted = measure_picto.measure_pictures("vae", 3, 0, map)
    assert counted["shown"]["none"]["all"] == 0


def test_prompts_part_draws_what_the_captions_say(
    shared_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def draw(model: StableDiffusion, scenes: Any, prompts: Any, seed: int) -> demo.Judged:
        assert model is shared_model
        asked.extend(prompts)
        return demo.judge(scenes, [world.render(scene) for scene in scenes])

    monkeypatch.setattr(measure_picto, "_picto", lambda: shared_model)
    monkeypatch.setattr(demo, "draw", draw)
    counted = measure_picto.measure_pictures("prompts", 4, 0, map)
    assert len(set(asked)) == 4
    assert counted["shown"] == {"none": dict.fromkeys(measure_picto.READ, 4)}


def test_lesson_plan_crosses_subjects_and_styles_with_seeds() -> None:
    plan = measure_picto.lesson_plan("subjects", 3, 2, 10, 0)
    subjects = {lesson.taught for lesson in plan}
    assert len(subjects) == 3 and all(world.parse_subject(subject) for subject in subjects)
    assert len(plan) == 3 * 2
    assert plan == measure_picto.lesson_plan("subjects", 3, 2, 10, 0)
    assert plan != measure_picto.lesson_plan("subjects", 3, 2, 10, 1)
    assert [(lesson.taught, lesson.seed) for lesson in measure_picto.lesson_plan("styles", 3, 2, 10, 0)] == [
        (style, seed) for style in world.STYLES[1:] for seed in (0, 1)
    ]


def test_lessons_are_tabled_with_median_and_spread(
    docs: Path, shared_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    fidelities = iter([0.9, 1.0, 0.8])

    def teach_subject(*given: Any) -> tuple[dict[str, Any], float]:
        before = {"fidelity": 0.05, "editability": 0.01}
        return {"before": before, "after": {"fidelity": next(fidelities), "editability": 0.85}}, 12.34

    def teach_style(*given: Any) -> tuple[dict[str, Any], float]:
        return {"before": {"style": 0.0, "content": 0.97}, "after": {"style": 0.93, "content": 0.88}}, 50.0

    monkeypatch.setattr(measure_picto, "_picto", lambda: shared_model)
    monkeypatch.setattr(measure_picto, "_plain_pictures", lambda seed, pairs: None)
    monkeypatch.setattr(demo, "teach_subject", teach_subject)
    monkeypatch.setattr(demo, "teach_style", teach_style)
    flags = ["--subjects", "1", "--seeds", "3", "--pairs", "100", "--processes", "1", "--docs", str(docs)]
    measure_picto.main(["subjects", *flags])
    measure_picto.main(["styles", *flags])

    assert [record["seed"] for record in figures(docs)["subjects"]["records"]] == [0, 1, 2]
    assert "--subjects" not in figures(docs)["styles"]["command"]
    page = (docs / "picto.md").read_text()
    assert "| after fidelity | 0.900 | 0.800 | 1.000 |" in page
    assert "| 0 / 1 / 2 | 0.90 / 1.00 / 0.80 | 0.85 / 0.85 / 0.85 |" in page
    assert "| outline | 0 / 1 / 2 | 0.93 / 0.93 / 0.93 | 0.88 / 0.88 / 0.88 |" in page
    assert "at most 0.050, and 0.030 at 0.9" in page
