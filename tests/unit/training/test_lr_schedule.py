from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tincture.errors import UsageError
from tincture.settings.schedule import Schedule
from tincture.training.lr_schedule import LearnRateScheduler

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "schedules.json").read_text())


def optimizer(rate: float | torch.Tensor = 123.0) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))], lr=rate)


def case_name(case: dict[str, Any]) -> str:
    return f"{case['schedule']}/{case['max_steps']}/{case['cur_step']}"


@pytest.mark.parametrize("case", GOLDEN["well_formed"], ids=case_name)
def test_phases_are_those_an_optimizer_sees_in_the_webui(case: dict[str, Any]) -> None:
    if case.get("error"):
        with pytest.raises(UsageError, match="steps are done already"):
            LearnRateScheduler(case["schedule"], case["max_steps"], case["cur_step"])
        return
    scheduler = LearnRateScheduler(case["schedule"], case["max_steps"], case["cur_step"], verbose=False)
    sgd = optimizer()
    seen: list[dict[str, Any]] = []
    for step in range(case["cur_step"], case["max_steps"]):
        scheduler.apply(sgd, step)
        if scheduler.finished:
            seen.append({"from_step": step, "finished": True})
            break
        rate = sgd.param_groups[0]["lr"]
        if not seen or seen[-1]["lr"] != rate:
            seen.append({"from_step": step, "lr": rate})
    assert seen == case["phases"]


@pytest.mark.parametrize("case", [c for c in GOLDEN["well_formed"] if "phases" in c], ids=case_name)
def test_schedule_gives_the_rate_of_each_optimizer_step(case: dict[str, Any]) -> None:
    schedule = Schedule.parse(case["schedule"], case["max_steps"])
    for phase in case["phases"]:
        if phase.get("finished"):
            assert schedule.end_step == phase["from_step"]
        else:
            assert schedule.at(phase["from_step"]) == phase["lr"]
    if not any(phase.get("finished") for phase in case["phases"]):
        assert schedule.end_step == case["max_steps"]


@pytest.mark.parametrize(
    "text", [*GOLDEN["malformed"], " ", ",", ":", ":10", "0.1:", "0.1:1.5", "0.1:0", "0.1:-2", "0.1:5,0.2:5", "-inf"]
)
def test_malformed_schedules_are_refused(text: str) -> None:
    with pytest.raises(UsageError) as error:
        Schedule.parse(text, 20)
    assert repr(text) in str(error.value), "the message shows the string"
    assert "0.005:100, 0.0005:1000" in str(error.value), "the message gives an example"


def test_the_message_points_at_the_segment() -> None:
    with pytest.raises(UsageError, match=r"segment 4 \('0\.2:3'\) ends at step 3, but must end after step 5"):
        Schedule.parse("0.1:2, , 0.3:5, 0.2:3, 0.3:9", 100)


def test_what_lies_past_the_last_step_is_checked_too() -> None:
    with pytest.raises(UsageError, match=r"'0\.2:x'"):
        Schedule.parse("0.1:100, 0.2:x", 20)


def test_a_run_of_no_steps_has_no_schedule() -> None:
    with pytest.raises(UsageError, match="0 steps"):
        Schedule.parse("0.1", 0)


@pytest.mark.parametrize("rate", [0.005, 1, 0, 1e-7])
def test_a_number_is_a_schedule(rate: float) -> None:
    scheduler = LearnRateScheduler(rate, 50)
    assert (scheduler.learn_rate, scheduler.end_step, scheduler.finished) == (float(rate), 50, False)


def test_the_first_phase_holds_at_once() -> None:
    scheduler = LearnRateScheduler("0.1:10, 0.2:20", 100)
    assert (scheduler.learn_rate, scheduler.end_step, scheduler.finished) == (0.1, 10, False)


def test_step_tells_when_another_phase_begins() -> None:
    scheduler = LearnRateScheduler("0.1:3, 0.2:5", 100)
    assert [scheduler.step(n) for n in range(5)] == [False, False, False, True, False]
    assert not scheduler.finished
    assert scheduler.step(5) is False
    assert scheduler.finished
    assert scheduler.learn_rate == 0.2


def test_step_may_jump_over_a_phase() -> None:
    scheduler = LearnRateScheduler("0.1:3, 0.2:5, 0.3", 100)
    assert scheduler.step(7)
    assert scheduler.learn_rate == 0.3


def test_a_restored_optimizer_gets_the_rate_of_the_phase() -> None:
    restored = optimizer(rate=9.0)
    LearnRateScheduler("0.1:3, 0.2:50", 100, cur_step=10).apply(restored, 10)
    assert [group["lr"] for group in restored.param_groups] == [0.2]


def test_every_parameter_group_gets_the_rate() -> None:
    sgd = optimizer()
    sgd.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 7.0})
    LearnRateScheduler("0.25", 10).apply(sgd, 0)
    assert [group["lr"] for group in sgd.param_groups] == [0.25, 0.25]


def test_a_rate_kept_as_a_tensor_stays_one() -> None:
    rate = torch.tensor(9.0)
    sgd = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    LearnRateScheduler("0.25", 10).apply(sgd, 0)
    assert sgd.param_groups[0]["lr"] is rate
    assert rate.item() == 0.25


def test_past_the_end_the_last_rate_stays() -> None:
    schedule = Schedule.parse("0.1:3, 0.2:5", 100)
    assert [schedule.at(step) for step in (0, 2, 3, 4, 5, 99)] == [0.1, 0.1, 0.2, 0.2, 0.2, 0.2]


def test_a_moving_rate_is_set_at_every_step() -> None:
    scheduler, sgd = LearnRateScheduler("0 -> 0.4:4, 0.4 -> 0:8, 0.1", 10, verbose=False), optimizer()
    rates = []
    for step in range(10):
        scheduler.apply(sgd, step)
        assert scheduler.learn_rate == sgd.param_groups[0]["lr"]
        rates.append(scheduler.learn_rate)
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.3, 0.2, 0.1, 0.1, 0.1])


def test_step_tells_of_each_rate_that_is_another() -> None:
    scheduler = LearnRateScheduler("0 -> 0.4:4, 0.3:6", 10, verbose=False)
    assert [scheduler.step(n) for n in range(7)] == [False, True, True, True, True, False, False]
    assert scheduler.finished


def test_a_moving_rate_begins_where_the_run_stands() -> None:
    assert LearnRateScheduler("0 -> 0.4:4", 10, cur_step=3, verbose=False).learn_rate == pytest.approx(0.3)


def test_transitions_are_printed_to_the_console_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    for verbose in (True, False):
        scheduler = LearnRateScheduler("0 -> 0.4:4, 0.3:6, 0.2", 10, verbose=verbose)
        for step in range(10):
            scheduler.apply(optimizer(), step)
        printed = capsys.readouterr()
        assert printed.err == ""
        lines = ["0 -> 0.4 until step 4", "0.3 until step 6", "0.2 until step 10"]
        assert printed.out.splitlines() == ([f"learning rate {line}" for line in lines] if verbose else [])
