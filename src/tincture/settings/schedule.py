"""Schedules: ``"rate:end, rate:end, rate"``, the webui's grammar for learning rates, checked strictly.

A rate holds until optimizer step ``end``; a bare rate, or an end of -1, holds until the last step of the run.
The threshold of gradient clipping is a schedule of the same grammar.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from tincture.errors import UsageError

EXAMPLE = "0.005:100, 0.0005:1000, 0.00005"
_USUAL_STEPS = 1000
"""Of a run, where none are given: whether a schedule is sound does not depend on them."""


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


def schedule_faults(values: Mapping[str, Any], faulty: Collection[str], names: Sequence[str]) -> list[str]:
    """What is wrong with the settings ``names``, schedules of the run, as words that name them."""
    if "steps" in faulty:
        return []
    steps = values.get("steps", _USUAL_STEPS)
    texts = {name: values[name] for name in names if name not in faulty and values.get(name)}
    return [fault for name, text in texts.items() if (fault := _schedule_fault(name, text, steps))]


def _schedule_fault(name: str, text: str, steps: int) -> str | None:
    try:
        Schedule.parse(text, steps)
    except UsageError as error:
        return f"{name}: {str(error).rstrip('.')}"
    return None
