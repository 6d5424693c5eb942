"""The table and the report of a sweep, also of one with many runs."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.runs import Bench
from tests.unit.sweeps.sweeping import Pretended, made, search
from tincture.sweeps.standings import rows_of
from tincture.sweeps.sweep_folder import SweepFolder
from tincture.sweeps.sweep_report import MOST_DRAWN, latest_previews, report_html, write_reports


def give_runs(sweep: SweepFolder, root: Path, steps: int = 400, side: int = 200) -> None:
    """Curves and previews as runs leave them."""
    rng = np.random.default_rng(0)
    for trial in sweep.trials():
        run_dir = root / "runs" / trial.name
        (run_dir / "images").mkdir(parents=True)
        lines = [f"{step},0,0,{0.1 + 1 / step},0.005" for step in range(1, steps + 1)]
        (run_dir / "textual_inversion_loss.csv").write_text(
            "\n".join(["step,epoch,epoch_step,loss,learn_rate", *lines])
        )
        for number in range(2):
            picture = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(picture).save(run_dir / "images" / f"{trial.name}-{steps}-{number}.png")
        folder = sweep.trial(trial.name)
        found = folder.result(None)
        assert found is not None
        folder.note_result(None, {**found, "run_dir": str(run_dir), "adapter_path": f"/x/{trial.name}.pt"})


def test_the_table_says_what_varies_and_what_came_of_it(bench: Bench) -> None:
    sweep = made(
        bench, grid={"learning_rate": ["1e-3", "1e-2"], "preview_prompts": [["a, b"], ["c <b>"]]}, seeds=[0, 1]
    )
    failing = "The <b>loss</b> is NaN."
    executor = Pretended(sweep, lambda values, step: failing if values["learning_rate"] == "1e-2" else 0.25)
    assert search(sweep, executor)
    paths = write_reports(sweep)
    rows = list(csv.DictReader(io.StringIO(paths["csv"].read_text())))
    assert len(rows) == 8 and rows[0]["learning_rate"] == "1e-3" and json.loads(rows[0]["preview_prompts"]) == ["a, b"]
    assert {row["seed"] for row in rows} == {"0", "1"}
    assert [row["train_loss"] for row in rows][:2] == ["0.25"] * 2
    assert {row["message"] for row in rows if row["state"] == "failed"} == {failing}
    found = json.loads(paths["json"].read_text())
    assert found["states"] == {"done": 4, "failed": 4} and found["best"] == "try-p01-s0" and len(found["runs"]) == 8
    report = paths["html"].read_text()
    assert "<b>loss" not in report and "&lt;b&gt;loss" in report and '<tr class="best">' in report


def test_the_report_of_many_runs_is_bounded(bench: Bench, tmp_path: Path) -> None:
    sweep = made(bench, grid={"seed": list(range(MOST_DRAWN + 5))})
    assert search(sweep, Pretended(sweep, lambda values, step: float(values["seed"]), slots=4))
    give_runs(sweep, tmp_path)
    report = report_html(sweep, rows_of(sweep, ()))
    assert report.count("<path ") == MOST_DRAWN and report.count("<img ") == 2 * MOST_DRAWN
    assert report.count('<th scope="row">try-p') == MOST_DRAWN + 5 + MOST_DRAWN  # the table has them all
    assert len(report) < 4 * 2**20
    assert f"Curves and pictures of the {MOST_DRAWN} best runs; 5 more" in report
    assert not re.search(r"(src|href)=\"(?!data:)", report)


def test_previews_are_those_of_the_latest_step_in_order(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in ("a-b-5-0", "a-b-20-1", "a-b-20-0", "a-b-20-10", "a-b-9-0", "contact-sheet", "other"):
        (tmp_path / "images" / f"{name}.png").touch()
    found = latest_previews(tmp_path)
    assert found is not None and found[0] == 20
    assert [path.stem for path in found[1]] == ["a-b-20-0", "a-b-20-1", "a-b-20-10"]
    assert latest_previews(tmp_path / "none") is None


def test_a_sweep_that_has_not_begun_has_a_report_too(bench: Bench) -> None:
    sweep = made(bench, grid={"batch_size": [1, 2]})
    report = report_html(sweep, rows_of(sweep))
    assert "2 waiting" in report and "Curves" not in report


@pytest.mark.parametrize("metric", ["train_loss"])
def test_the_best_is_marked(bench: Bench, metric: str) -> None:
    sweep = made(bench, grid={"batch_size": [1, 2]}, metric=metric)
    assert search(sweep, Pretended(sweep, lambda values, step: -float(values["batch_size"])))
    assert json.loads(write_reports(sweep)["json"].read_text())["best"] == "try-p02"
