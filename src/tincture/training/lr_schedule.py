"""Learning-rate schedules: ``"rate:end, rate:end, rate"``, the webui's grammar, checked strictly.

A rate holds until optimizer step ``end``; a bare rate, or an end of -1, holds until the last step of the run.
The threshold of gradient clipping is a schedule of the same grammar.
"""

from __future__ import annotations

import logging
import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from tincture.errors import UsageError

if TYPE_CHECKING:  # settings are checked without torch
    import torch

logger = logging.getLogger(__name__)

EXAMPLE = "0.005:100, 0.0005:1000, 0.00005"


@dataclass(frozen=True)
class Phase:
    """``rate`` for the optimizer steps that lead up to step ``end``."""

    rate: float
    end: int


@dataclass(frozen=True)
class Schedule:
    """A schedule as phases whose ends increase strictly; the last end is at most the run's number of steps."""

    phases: tuple[Phase, ...]

    @classmethod
    def parse(cls, text: str | float, max_steps: int) -> Schedule:
        """Reads ``text`` for a run of ``max_steps`` steps.

        Empty segments and blanks are tolerated. Ends are clamped to ``max_steps`` and later phases dropped, but every
        segment is checked.

        Raises:
            UsageError: an empty or malformed schedule, or fewer than 1 step.
        """
        if max_steps < 1:
            raise UsageError(f"A schedule for {max_steps} steps is not possible; the number of steps is 1 or more.")
        phases: list[Phase] = []
        end = 0
        for position, segment in _segments(str(text)):
            if end == -1:
                _refuse(text, position, segment, "stands behind a rate that already holds to the end")
            rate, next_end = _read_segment(text, position, segment)
            if next_end != -1 and next_end <= end:
                _refuse(text, position, segment, f"ends at step {next_end}, but must end after step {end}")
            if not phases or phases[-1].end < max_steps:
                phases.append(Phase(rate, max_steps if next_end == -1 else min(next_end, max_steps)))
            end = next_end
        if not phases:
            raise UsageError(f"The schedule {text!r} is empty; write a rate such as 0.005, or {EXAMPLE!r}.")
        return cls(tuple(phases))

    @property
    def end_step(self) -> int:
        """The number of steps after which the schedule is over: the run's, or fewer."""
        return self.phases[-1].end

    def phase_index(self, step: int) -> int:
        """Which phase the optimizer step from ``step`` to ``step + 1`` belongs to; ``len(phases)`` past the end."""
        return bisect_right(self.phases, step, key=lambda phase: phase.end)

    def at(self, step: int) -> float:
        """The rate of the optimizer step from ``step`` to ``step + 1``; past the end the last rate stays."""
        return self.phases[min(self.phase_index(step), len(self.phases) - 1)].rate


def _segments(text: str) -> list[tuple[int, str]]:
    """The segments that are not empty, each with its place in the text, counted from 1."""
    parts = [(position, part.strip()) for position, part in enumerate(text.split(","), start=1)]
    return [(position, part) for position, part in parts if part]


def _read_segment(text: str | float, position: int, segment: str) -> tuple[float, int]:
    fields = segment.split(":")
    if len(fields) > 2:
        _refuse(text, position, segment, f"has {len(fields)} fields; at most a rate and an end step are allowed")
    try:
        rate = float(fields[0])
    except ValueError:
        _refuse(text, position, segment, f"has {fields[0].strip()!r} where a rate is needed")
    if not math.isfinite(rate) or rate < 0:
        _refuse(text, position, segment, "has a rate that is negative or not a finite number")
    if len(fields) == 1:
        return rate, -1
    try:
        return rate, int(fields[1])
    except ValueError:
        _refuse(text, position, segment, f"has {fields[1].strip()!r} where a whole number of steps, or -1, is needed")


def _refuse(text: str | float, position: int, segment: str, fault: str) -> NoReturn:
    raise UsageError(f"In the schedule {str(text)!r} segment {position} ({segment!r}) {fault}. Example: {EXAMPLE!r}.")


class LearnRateScheduler:
    """Walks through a schedule as a run goes on, and sets an optimizer's learning rate.

    Args:
        learn_rate: a schedule, or one rate.
        max_steps: number of optimizer steps of the run.
        cur_step: steps done already; the phases behind it are skipped.
        verbose: logs each phase as it begins.

    Attributes:
        learn_rate: the rate that holds now.
        end_step: the step it holds to.
        finished: whether the schedule ended.

    Raises:
        UsageError: a malformed schedule, or one with nothing left after ``cur_step``.
    """

    def __init__(self, learn_rate: str | float, max_steps: int, cur_step: int = 0, verbose: bool = True) -> None:
        self.schedule = Schedule.parse(learn_rate, max_steps)
        self.verbose = verbose
        self.finished = False
        self._phase = self.schedule.phase_index(cur_step)
        if self._phase == len(self.schedule.phases):
            raise UsageError(
                f"The schedule {str(learn_rate)!r} ends at step {self.schedule.end_step}, but {cur_step} steps are "
                f"done already; give it a later end or remove the end of its last rate."
            )
        self._enter()

    def _enter(self) -> None:
        phase = self.schedule.phases[self._phase]
        self.learn_rate, self.end_step = phase.rate, phase.end
        if self.verbose:
            logger.info("learning rate %g until step %d", self.learn_rate, self.end_step)

    def step(self, step_number: int) -> bool:
        """Moves to the phase of step ``step_number``; True when that is another one.

        Past the last phase ``finished`` is set and the last rate stays.
        """
        phase = self.schedule.phase_index(step_number)
        if phase == len(self.schedule.phases):
            self.finished = True
            return False
        if phase <= self._phase:
            return False
        self._phase = phase
        self._enter()
        return True

    def apply(self, optimizer: torch.optim.Optimizer, step_number: int) -> None:
        """Writes the rate for step ``step_number`` into every parameter group.

        It is written whether or not it changed, because a restored optimizer brings back the rate it was saved with.
        """
        self.step(step_number)
        for group in optimizer.param_groups:
            if hasattr(group["lr"], "fill_"):  # a tensor, as capturable optimizers keep it
                group["lr"].fill_(self.learn_rate)
            else:
                group["lr"] = self.learn_rate
