"""Which runs are done, and when: with runs that compute nothing."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest

from tests.runs import Bench
from tests.unit.sweeps.sweeping import Pretended, made, search
from tincture.sweeps.points import Trial
from tincture.sweeps.standings import Row, best_of, rows_of

BATCHES = {"batch_size": [1, 2, 3, 4, 5]}


def by_batch(values: Mapping[str, Any], step: int) -> float:
    """The smaller the batch, the better."""
    return float(values["batch_size"])


def states(sweep: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in rows_of(sweep, ()):
        found[row.state] = found.get(row.state, 0) + 1
    return found


def test_every_run_is_done_once(bench: Bench) -> None:
    sweep = made(bench, grid=BATCHES)
    executor = Pretended(sweep, by_batch)
    assert search(sweep, executor)
    assert [name for name, _ in executor.asked] == [trial.name for trial in sweep.trials()]
    again = Pretended(sweep, by_batch)
    assert search(sweep, again) and not again.asked
    best = best_of(rows_of(sweep, ()), sweep.metric)
    assert best is not None and best.trial.values == {"batch_size": 1}


def test_at_a_rung_the_better_part_goes_on(bench: Bench) -> None:
    sweep = made(bench, grid=BATCHES, steps=8, halving={"rungs": [2, 4], "factor": 2})
    executor = Pretended(sweep, by_batch)
    assert search(sweep, executor)
    at = {rung: [name for name, until in executor.asked if until == rung] for rung in (2, 4, None)}
    names = [trial.name for trial in sweep.trials()]
    assert at == {2: names, 4: names[:3], None: names[:2]}  # half, rounded up
    assert states(sweep) == {"done": 2, "stopped": 3}


def test_who_is_better_is_asked_at_each_rung(bench: Bench) -> None:
    sweep = made(bench, grid=BATCHES, steps=8, halving={"rungs": [2, 4], "factor": 2})

    def turns(values: Mapping[str, Any], step: int) -> float:
        return by_batch(values, step) * (1 if step == 2 else -1)

    executor = Pretended(sweep, turns)
    assert search(sweep, executor)
    names = [trial.name for trial in sweep.trials()]
    assert [name for name, until in executor.asked if until is None] == names[1:3]


def test_a_point_is_ranked_by_the_mean_of_its_seeds(bench: Bench) -> None:
    sweep = made(bench, grid={"batch_size": [1, 2]}, seeds=[0, 1], steps=8, halving={"rungs": [2], "factor": 2})
    seen: dict[int, int] = {}

    def loss(values: Mapping[str, Any], step: int) -> float:
        batch = values["batch_size"]
        seen[batch] = seen.get(batch, 0) + 1
        return {1: {1: 0.1, 2: 9.0}, 2: {1: 1.0, 2: 1.0}}[batch].get(seen[batch], 1.0)

    executor = Pretended(sweep, loss, slots=1)
    assert search(sweep, executor)
    assert {name for name, until in executor.asked if until is None} == {"try-p02-s0", "try-p02-s1"}


def test_a_run_that_fails_ends_no_other_and_is_not_among_the_best(bench: Bench) -> None:
    sweep = made(bench, grid=BATCHES, steps=8, halving={"rungs": [2], "factor": 2})

    def loss(values: Mapping[str, Any], step: int) -> float | str:
        return "The loss is NaN." if values["batch_size"] == 1 else by_batch(values, step)

    executor = Pretended(sweep, loss)
    assert search(sweep, executor)
    assert states(sweep) == {"failed": 1, "done": 3, "stopped": 1}
    row = rows_of(sweep, ())[0]
    assert (row.state, row.error) == ("failed", "The loss is NaN.")
    again = Pretended(sweep, by_batch)
    assert search(sweep, again) and not again.asked
    sweep.trial(row.trial.name).forget_failure()
    assert search(sweep, again)
    assert again.asked[0] == (row.trial.name, 2) and (row.trial.name, None) in again.asked


def test_a_run_whose_process_dies_goes_on_and_fails_only_when_that_leads_nowhere(bench: Bench) -> None:
    sweep = made(bench, grid={"batch_size": [1, 2]})
    died: list[int] = []

    def loss(values: Mapping[str, Any], step: int) -> float | None:
        if values["batch_size"] == 1:
            return None  # each time
        died.append(1)
        return None if len(died) < 3 else 0.5

    executor = Pretended(sweep, loss, slots=1)
    assert search(sweep, executor)
    assert [row.state for row in rows_of(sweep, ())] == ["failed", "done"]
    assert "signal 9" in rows_of(sweep, ())[0].error
    assert [name for name, _ in executor.asked].count("try-p01") == 3


def test_a_sweep_that_is_stopped_begins_no_other_run_and_goes_on_later(bench: Bench) -> None:
    sweep, stop = made(bench, grid=BATCHES), threading.Event()

    def loss(values: Mapping[str, Any], step: int) -> float:
        if values["batch_size"] == 2:
            stop.set()
        return 1.0

    executor = Pretended(sweep, loss, slots=1)
    assert not search(sweep, executor, stop)
    assert len(executor.asked) == 2
    again = Pretended(sweep, by_batch)
    assert search(sweep, again)
    assert [name for name, _ in again.asked] == ["try-p03", "try-p04", "try-p05"]


def test_points_that_are_learned_are_chosen_by_what_came_before(bench: Bench) -> None:
    ranges = {"learning_rate": {"low": 1e-5, "high": 1.0, "log": True}}
    random = {"trials": 14, "sampler": "tpe", "ranges": ranges}

    def loss(values: Mapping[str, Any], step: int) -> float:
        return abs(float(values["learning_rate"]) - 1e-3)

    first = made(bench, "first", random=random)
    assert search(first, Pretended(first, loss, slots=1))
    assert len(first.trials()) == 14 and states(first) == {"done": 14}
    killed, stop = made(bench, "killed", random=random), threading.Event()

    def dies(values: Mapping[str, Any], step: int) -> float:
        if len(killed.trials()) == 12:
            stop.set()
        return loss(values, step)

    assert not search(killed, Pretended(killed, dies, slots=1), stop)
    assert search(killed, Pretended(killed, loss, slots=1))
    assert [trial.values for trial in killed.trials()] == [trial.values for trial in first.trials()]
    other = made(bench, "other", random=random)
    assert search(other, Pretended(other, lambda values, step: -loss(values, step), slots=1))
    assert [trial.values for trial in other.trials()] != [trial.values for trial in first.trials()]


@pytest.mark.parametrize("slots", [1, 3])
def test_no_more_runs_go_on_at_a_time_than_there_are_places(bench: Bench, slots: int) -> None:
    sweep = made(bench, grid=BATCHES)
    assert search(sweep, Pretended(sweep, by_batch, slots=slots))  # which asserts it


def test_of_equal_runs_the_best_is_the_one_that_all_else_speaks_for() -> None:
    def best(*results: dict[str, float]) -> str:
        rows = [
            Row(Trial(f"p{number}", number, None, {}, {}), "done", {"fidelity": 1.0, **result})
            for number, result in enumerate(results, start=1)
        ]
        found = best_of(rows, "fidelity")
        return found.trial.name if found else ""

    assert best({"editability": 0.5}, {"editability": 1.0}, {}) == "p2"
    assert best({"train_loss": 0.2}, {"train_loss": 0.1}, {"fidelity": 0.5, "train_loss": 0.0}) == "p2"
    assert best({"validation_loss": 0.2, "train_loss": 0.1}, {"validation_loss": 0.1, "train_loss": 0.2}) == "p2"
    assert best({}, {}) == "p1"
