"""The rate of each of several adapters, wherever a run is watched: log, events, line, server, page."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runs import Bench, Recorder, csv_text
from tincture.events import StepRecord, StepsDone
from tincture.run.event_records import _steps
from tincture.run.lines import numbers
from tincture.server.page.runs.view import charts
from tincture.server.queue.history import History
from tincture.settings.schedule import Schedule
from tincture.training.metrics import CSV_COLUMNS, CsvLog

RATE, OF_INK = "1e-2 -> 1e-3", "0:2, 1e-4 -> 2e-4"
COLUMN = "learn_rate hypernetwork:ink"
SMALL: dict[str, Any] = {
    "steps": 5,
    "log_every": 2,
    "learning_rate": RATE,
    "companions": [f"hypernetwork:ink:{OF_INK}"],
}


def scheduled(text: str) -> list[float]:
    return [Schedule.parse(text, 5).at(step) for step in range(5)]


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_log_events_and_line_have_the_rate_of_each(bench: Bench) -> None:
    recorder = Recorder()
    result = bench.train("embedding", callbacks=[recorder], **SMALL)
    logged = rows(csv_text(result.run_dir))
    assert list(logged[0]) == [*CSV_COLUMNS, COLUMN]
    for column, text in (("learn_rate", RATE), (COLUMN, OF_INK)):
        assert [float(row[column]) for row in logged] == pytest.approx(scheduled(text), rel=1e-5)
    events = recorder.of(StepsDone)
    told = [record.further for event in events for record in event.records]
    assert told == [{COLUMN: pytest.approx(rate)} for rate in scheduled(OF_INK)]
    assert "rate 0.0028, hypernetwork:ink 0.000167  epoch" in numbers(events[-1])


def test_a_resume_goes_on_with_the_columns_that_the_log_has(new_bench: Callable[[str], Bench]) -> None:
    """One that was begun before there were such columns, too."""
    whole, stopped = new_bench("whole").train("embedding", **SMALL), new_bench("stopped")
    first = stopped.train("embedding", stop_after=2, **SMALL)
    assert csv_text(stopped.resume(first.run_dir).run_dir) == csv_text(whole.run_dir)
    old = new_bench("old")
    first = old.train("embedding", stop_after=2, **SMALL)
    (path,) = first.run_dir.glob("*_loss.csv")
    path.write_text("".join(f"{line.rpartition(',')[0]}\n" for line in path.read_text().splitlines()))
    expected = "".join(f"{line.rpartition(',')[0]}\n" for line in csv_text(whole.run_dir).splitlines())
    assert csv_text(old.resume(first.run_dir).run_dir) == expected


def test_single_runs_have_the_columns_that_they_had(bench: Bench) -> None:
    result = bench.train("embedding", steps=2)
    assert csv_text(result.run_dir).splitlines()[0] == "step,epoch,epoch_step,loss,learn_rate"


def step_of(number: int, further: dict[str, float]) -> StepRecord:
    return StepRecord(number, 0, number - 1, 0.5, 1e-2, None, further)


@pytest.mark.parametrize("finds_rate", [False, True])
def test_a_number_that_is_not_known_is_an_empty_cell(tmp_path: Path, finds_rate: bool) -> None:
    log = CsvLog(tmp_path / "log.csv", 0, finds_rate=finds_rate, further=["a", "b"])
    log.on_event(StepsDone((step_of(1, {"b": 2.5}),), 9, 0.5, 0, 0.5, 0))
    (row,) = rows((tmp_path / "log.csv").read_text())
    assert (row["a"], row["b"]) == ("", "2.5")
    again = CsvLog(tmp_path / "log.csv", 1, finds_rate=finds_rate, further=["a", "b"])
    again.on_event(StepsDone((step_of(2, {"a": 1, "b": 3}),), 9, 0.5, 0, 0.5, 0))
    assert [(row["a"], row["b"]) for row in rows((tmp_path / "log.csv").read_text())] == [("", "2.5"), ("1", "3")]


def test_the_server_keeps_them_and_the_page_draws_them() -> None:
    history = History()
    for first in (1, 3):
        further = {COLUMN: 1e-4 * first, "vector_norm": 1.5} if first > 1 else {}
        event = StepsDone((step_of(first, further), step_of(first + 1, further)), 9, 0.5, 0, 0.5, 0)
        for record in _steps(event):
            history.add(record)
    metrics = history.after(0, 1, None)
    assert ["further" in metric for metric in metrics] == [False, False, True, True]
    assert metrics[2]["further"] == {COLUMN: pytest.approx(3e-4), "vector_norm": 1.5}
    trace = history.trace()
    assert np.isnan(trace.further[COLUMN][:2]).all()
    drawn = charts(trace, 0)
    assert "Learning rate of hypernetwork:ink" in drawn
    assert "Norm of the longest vector" in drawn
    assert '<div class="charts many">' in drawn
    history.add({"type": "rolled_back", "text": "back", "global_step": 2})
    assert len(history.trace().further[COLUMN]) == 2
