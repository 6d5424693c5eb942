"""Lines of JSON say what happens in a run, for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.runs import Bench
from tincture.events import Progressed, RolledBack, StepEnd
from tincture.run.event_records import GAP_S, EventLines


def test_a_run_is_lines_with_a_time_and_a_type(new_bench: Callable[[str], Bench]) -> None:
    lines: list[str] = []
    changes: dict[str, Any] = {"steps": 4, "log_every": 2, "save_every": 2, "preview_every": 2, "preview_steps": 1}
    new_bench("run").train("embedding", callbacks=[EventLines(lines.append)], validation_share=0.4, **changes)
    assert all(line.endswith("\n") and line.count("\n") == 1 for line in lines)
    records = [json.loads(line) for line in lines]
    assert all(isinstance(record["time"], float) and isinstance(record["type"], str) for record in records)
    by_type = {record["type"]: record for record in records}
    assert by_type.keys() == {
        *("model", "stage", "prepared", "started", "progress", "steps", "measured", "saved", "validated", "preview")
    }
    measured = by_type["measured"]
    assert measured["global_step"] == 4 and measured["memory"]["process_peak"] >= measured["memory"]["process"] > 0
    assert measured["pictures_per_s"] * measured["step_s"] == pytest.approx(1)
    phases = measured["phases"]
    assert min(phases.values()) >= 0 < phases["steps"] and phases["saving"] > 0 and phases["loading"] > 0
    steps = [row[0] for record in records if record["type"] == "steps" for row in record["records"]]
    assert steps == [1, 2, 3, 4]


def test_what_changes_often_comes_five_times_a_second() -> None:
    now = [0.0]
    lines: list[str] = []
    watcher = EventLines(lines.append, lambda: now[0])
    for step in range(1, 41):
        now[0] += GAP_S / 4
        watcher.on_event(StepEnd(step, 40))
        watcher.on_event(Progressed("drawing previews", 0, 2, step, 40))
    for kind in ("progress", "stage"):
        assert 8 <= sum(f'"type": "{kind}"' in line for line in lines) <= 11
    watcher.on_event(RolledBack(3, 9, "the loss is NaN", 0.5, 1))
    assert json.loads(lines[-1])["type"] == "rolled_back"


def test_numbers_that_json_has_not_are_null() -> None:
    lines: list[str] = []
    EventLines(lines.append).add({"type": "steps", "records": [[1, float("nan"), float("inf")]]})
    assert json.loads(lines[0])["records"] == [[1, None, None]]
