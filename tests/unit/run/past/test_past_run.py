"""What a run's folder says of it, however large its log, and whatever became of its files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.past_runs import past_run
from tincture.formats.file_lock import FileLock
from tincture.run.past import past_run as past_runs
from tincture.run.past.past_run import LAST_STEPS, PastRun, read_run, runs_in, sparkline, summary


def read(folder: Path) -> PastRun:
    run = read_run(folder, folder.parent.parent)
    assert run is not None
    return run


@pytest.mark.parametrize(
    ("ended", "state"),
    [
        ({}, "done"),
        ({"interrupted": True, "global_step": 2}, "stopped"),
        ({"ending": "It got no better.", "global_step": 3}, "ended early"),
        (None, "broken off"),
    ],
    ids=["done", "stopped", "early", "broken"],
)
def test_how_a_run_stands(tmp_path: Path, ended: dict[str, Any] | None, state: str) -> None:
    run = read(past_run(tmp_path, "2026-01-01/rex", ended=ended))
    assert run.state == state
    assert run.global_step == (ended or {}).get("global_step", 4) and run.steps == 4


def test_a_run_at_which_somebody_works_is_running(tmp_path: Path) -> None:
    folder = past_run(tmp_path, "2026-01-01/rex")
    lock = FileLock(folder / ".lock")
    assert lock.take()
    assert read(folder).state == "running"
    lock.free()  # as after a kill: the file stays
    assert read(folder).state == "broken off"
    assert lock.take(), "looking at a run leaves its lock alone"
    lock.free()


def test_losses_curve_and_best_are_those_of_the_logs(tmp_path: Path) -> None:
    losses = [1.0, math.nan, *(1 / step for step in range(3, 301))]
    folder = past_run(tmp_path, "2026-01-01/rex", losses=losses, steps=300, validation=[(0, 0.5), (9, 0.25), (18, 0.3)])
    run = read(folder)
    assert run.loss == pytest.approx(sum(losses[-LAST_STEPS:]) / LAST_STEPS)
    assert run.best == (9, 0.25)
    curve = run.curve(8)
    assert len(curve) == 8 and curve == sorted(curve, reverse=True)
    assert sparkline(curve)[0] == "█" and sparkline(curve)[-1] == "▁"
    assert summary(run, 8)["curve"] == curve and "curve" not in summary(run)
    assert len(run.losses()["step"]) == 300


@pytest.mark.parametrize(
    "content",
    [b"", b"step", b"\0" * 99, b"step,epoch,epoch_step,loss,learn_rate\nx,y\n1,2\n", b"1,0,0,inf,0.1\n1,0,0,0.5,0.1"],
    ids=["empty", "head", "zeros", "words", "torn"],
)
def test_a_spoiled_log_says_what_is_left_of_it(tmp_path: Path, content: bytes) -> None:
    folder = past_run(tmp_path, "2026-01-01/rex", ended={})
    (folder / "textual_inversion_loss.csv").write_bytes(content)
    run = read(folder)
    assert run.loss is None and run.curve(8) == [] and run.global_step == 4


def test_of_a_log_of_many_steps_a_few_places_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = past_run(tmp_path, "2026-01-01/rex", ended={})
    log = folder / "textual_inversion_loss.csv"
    with log.open("a") as file:
        for step in range(5, 200_001):
            file.write(f"{step},{step},0,{1 / step:.7f},0.005\n")
    lines = {"count": 0}
    columns = past_runs._columns

    def counted(given: Any, places: Any) -> Any:
        listed = list(given)
        lines["count"] += len(listed)
        return columns(listed, places)

    monkeypatch.setattr(past_runs, "_columns", counted)
    run = read(folder)
    assert len(run.curve(16)) == 16 and run.loss == pytest.approx(5e-6, rel=0.01)
    assert lines["count"] < 6000


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"settings": 1}', "[" * 100_000], ids=["empty", "torn", "list", "odd", "deep"]
)
def test_records_that_say_nothing_are_passed_over(tmp_path: Path, text: str) -> None:
    (past_run(tmp_path, "2026-01-01/rex") / "run.json").write_text(text)
    past_run(tmp_path, "2026-01-02/max")
    assert [run.id for run in runs_in(tmp_path / "textual_inversion")] == ["2026-01-02/max"]


def test_a_record_with_odd_settings_is_shown_all_the_same(tmp_path: Path) -> None:
    folder = past_run(tmp_path, "2026-01-01/rex", kind="lora", steps="many", name=3, ended={"global_step": "x"})
    shown = summary(read(folder), 4)
    assert (shown["kind"], shown["name"], shown["steps"], shown["loss"]) == ("lora", "3", 0, None)


def test_a_sparkline_of_equal_or_no_values() -> None:
    assert sparkline([]) == "" and sparkline([2.0, 2.0]) == "▁▁" and sparkline([0, 1], "ab") == "ab"
