"""Rates, thresholds and decays that move from step to step, in runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.runs import RANDOM, Bench, equal, trained
from tincture import recipe
from tincture.training.metrics import read_csv

MOVING = {
    "learning_rate": "0 -> 0.01:50%, 0.01 -> 1e-3 cosine*2",
    "clip_grad_mode": "norm",
    "clip_grad_value": "1 -> 0.01",
    "ema": "0.1 -> 0.9:80%, 0.9",
    "steps": 8,
}


@pytest.mark.parametrize("kind", ["embedding", "hypernetwork"])
def test_a_run_that_stops_on_a_slope_goes_on_exactly(new_bench: Callable[[str], Bench], kind: str) -> None:
    """It also is another run than one that holds its values."""
    at_once = new_bench("one").train(kind, **RANDOM, **MOVING)
    bench = new_bench("two")
    stopped = bench.train(kind, stop_after=3, **RANDOM, **MOVING)
    assert stopped.interrupted
    resumed = bench.resume(stopped.run_dir)
    assert equal(trained(resumed.adapter_path), trained(at_once.adapter_path))
    for name in ("learning_rate", "clip_grad_value", "ema"):
        held = new_bench(name).train(kind, **RANDOM, **{**MOVING, name: "0.01"})
        assert not equal(trained(held.adapter_path), trained(at_once.adapter_path)), name


def test_the_log_has_the_rate_of_each_step(bench: Bench) -> None:
    run = bench.train("embedding", learning_rate="0 -> 0.008:50%, 0.002", steps=8)
    rates = [float(row["learn_rate"]) for row in read_csv(next(run.run_dir.glob("*_loss.csv")))]
    assert rates == pytest.approx([0, 0.002, 0.004, 0.006, 0.002, 0.002, 0.002, 0.002])


def test_a_longer_second_run_takes_its_shares_of_all_its_steps(bench: Bench) -> None:
    """Of 8 steps with 4 done, half a run's warm-up is over when the second run begins."""
    bench.train("embedding", learning_rate="0 -> 0.008:50%, 0.002", steps=4)
    run = bench.train("embedding", learning_rate="0 -> 0.008:75%, 0.002", steps=8)
    rates = [float(row["learn_rate"]) for row in read_csv(next(run.run_dir.glob("*_loss.csv")))]
    assert rates == pytest.approx([0.008 * 4 / 6, 0.008 * 5 / 6, 0.002, 0.002])


def test_the_plan_tells_and_draws_what_changes_from_step_to_step(bench: Bench) -> None:
    plan = recipe.plan(bench.settings("embedding", **MOVING), bench.workspace, timing="none")
    assert plan["schedules"] == {
        "learning_rate": "0 -> 0.01 until step 4; then 0.01 -> 0.001 cosine*2 until step 8 ▁▃▅▇█▅█▅",
        "clip_grad_value": "1 -> 0.01 until step 8 ██▇▆▅▄▃▂",
        "ema": "0.1 -> 0.9 until step 7; then 0.9 until step 8 ▁▂▃▄▅▆▇█",
    }
    still = recipe.plan(bench.settings("embedding", learning_rate="0.1", ema="0.9"), bench.workspace, timing="none")
    assert "schedules" not in still


def test_a_run_ends_with_a_rate_that_ends(bench: Bench) -> None:
    assert bench.train("embedding", learning_rate="0.1 -> 0:50%", steps=6).global_step == 3
