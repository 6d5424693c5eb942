from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.support import tiny_model
from tests.toy_family import Flow
from tincture.training.timesteps import Distribution, TimestepDraw

COUNT = 4000
Cumulative = Callable[[np.ndarray], np.ndarray]


def shares(draw: TimestepDraw, step: int = 0) -> np.ndarray:
    return np.sort([draw.share(5, step, slot) for slot in range(COUNT)])


def normal(numbers: np.ndarray) -> np.ndarray:
    return np.array([0.5 * math.erfc(-number / math.sqrt(2)) for number in numbers])


def logit(v: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(v / (1 - v)))


@pytest.mark.parametrize(
    ("draw", "step", "cumulative"),
    [
        (TimestepDraw("uniform", 0.2, 0.7), 0, lambda v: v),
        (TimestepDraw("late"), 0, lambda v: v**2),
        (TimestepDraw("early"), 0, lambda v: 1 - (1 - v) ** 2),
        (TimestepDraw("late", bias=0.3), 0, lambda v: 0.7 * v + 0.3 * v**2),
        (TimestepDraw("early", bias=0.3), 0, lambda v: 1 - 0.7 * (1 - v) - 0.3 * (1 - v) ** 2),
        (TimestepDraw("late", bias=0), 0, lambda v: v),
        (TimestepDraw("late", 0.5, 0.75), 0, lambda v: v**2),
        (TimestepDraw("late_curriculum", steps=100), 0, lambda v: 0.99 * v + 0.01 * v**2),
        (TimestepDraw("late_curriculum", steps=100), 49, lambda v: 0.5 * v + 0.5 * v**2),
        (TimestepDraw("late_curriculum", steps=100), 99, lambda v: v**2),
        (TimestepDraw("growing_range", steps=100), 24, lambda v: np.minimum(1, 4 * v)),
        (TimestepDraw("growing_range", 0.5, 1, steps=100), 99, lambda v: v),
        (TimestepDraw("logit_normal"), 0, lambda v: normal(logit(v))),
        (TimestepDraw("logit_normal", mean=1, std=0.5), 0, lambda v: normal((logit(v) - 1) / 0.5)),
    ],
    ids=lambda value: "as" if callable(value) else str(value),
)
def test_shares_are_spread_as_the_distribution_says(draw: TimestepDraw, step: int, cumulative: Cumulative) -> None:
    """By Kolmogorov and Smirnov's test, whose statistic is above 1.95 once in a thousand draws."""
    found = shares(draw, step)
    assert draw.minimum <= found[0] and found[-1] < draw.maximum
    within = (found - draw.minimum) / (draw.maximum - draw.minimum)
    below = cumulative(within)
    steps = np.arange(COUNT + 1) / COUNT
    distance = max(np.abs(below - steps[1:]).max(), np.abs(below - steps[:-1]).max())
    assert distance * math.sqrt(COUNT) < 1.95


@pytest.mark.parametrize("process", [tiny_model().noise_process, Flow()], ids=["diffusion", "flow"])
def test_without_a_choice_the_process_draws_as_ever(process: Flow) -> None:
    drawn = TimestepDraw().draw(process, 5, 7, range(3, 40))
    assert torch.equal(drawn, process.draw_timesteps(5, 7, range(3, 40)))


@pytest.mark.parametrize(
    "distribution", ["uniform", "early", "late", "late_curriculum", "growing_range", "logit_normal"]
)
def test_a_draw_is_a_function_of_seed_step_and_slot_alone(distribution: Distribution) -> None:
    process = tiny_model().noise_process
    draw = TimestepDraw(distribution, 0.1, 0.9, steps=20)
    together = draw.draw(process, 5, 7, range(30))
    assert together.dtype == torch.int64
    assert together.min() >= 100 and together.max() < 900
    assert torch.equal(together[10:12], draw.draw(process, 5, 7, range(10, 12)))
    for other in (draw.draw(process, 6, 7, range(30)), draw.draw(process, 5, 8, range(30))):
        assert (together == other).sum() < 5


def test_the_ends_of_the_range_are_reached_and_not_passed() -> None:
    """Of a model with 1000 timesteps the last tenth is 900 to 999."""
    process = tiny_model().noise_process
    drawn = TimestepDraw("uniform", 0.9, 1.0).draw(process, 0, 0, range(COUNT))
    assert (int(drawn.min()), int(drawn.max())) == (900, 999)
    drawn = TimestepDraw("logit_normal", mean=10, std=10).draw(process, 0, 0, range(COUNT))
    assert int(drawn.max()) == 999
