"""Schedules: ``"value:end, value:end, value"``, the webui's grammar for learning rates, checked strictly and grown.

A value holds until optimizer step ``end``; without an end, or with -1, until the last step of the run. An end such as
``10%`` is that share of the run's steps, those of earlier runs included. ``first -> goal SHAPE`` moves: in a segment
that begins at step s and ends at step e, step n has ``first + (goal - first) * f((n - s) / (e - s))``, where f(x) is

- ``linear``, or no shape given: x;
- ``cosine``: (1 - cos(pi x)) / 2;
- ``constant``: 0, so that the goal is not reached before the segment is over.

``SHAPE*3`` goes through it three times in three equal parts. Learning rates, the threshold of gradient clipping, the
decay of averages and weights of losses are such schedules.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple, NoReturn

from tincture.errors import UsageError

EXAMPLE = "0.005:100, 0.0005:1000, 0.00005"
MOVING_EXAMPLE = "0 -> 0.005:10%, 0.005 -> 1e-5 cosine"
USUAL_STEPS = 1000
"""Of a run whose steps are not given."""
_SHAPES: Mapping[str, Callable[[float], float]] = {
    "linear": lambda x: x,
    "cosine": lambda x: (1 - math.cos(math.pi * x)) / 2,
    "constant": lambda x: 0.0,
}
_SHARE = re.compile(r"(\d{1,12}(\.\d{0,12})?|\.\d{1,12})\s*%", re.ASCII)
_CYCLES = re.compile(r"[1-9]\d{0,5}", re.ASCII)
_MOVING_MARKS = (">", "→", "⇒", "➔", "–", "—", "%", *_SHAPES)
"""Segments with one of these were meant to move, or to end at a share of the steps."""
_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Phase:
    """The optimizer steps from ``begin`` up to step ``end``.

    Attributes:
        rate: the value that it begins with.
        end: at most the run's last step.
        begin: the step it begins at.
        goal: the value that it moves to; None: it stays.
        shape: how it moves.
        cycles: how often it goes from ``rate`` to ``goal``.
        full_end: where it was to end, which decides on how it moves; None: at ``end``.
    """

    rate: float
    end: int
    begin: int = 0
    goal: float | None = None
    shape: str = "linear"
    cycles: int = 1
    full_end: int | None = None

    @property
    def moves(self) -> bool:
        """Whether its steps have different values."""
        return self.goal is not None and self.goal != self.rate and self.shape != "constant"

    def at(self, step: int) -> float:
        """The value of a step that belongs to it."""
        if self.goal is None or not self.moves:
            return self.rate
        length = (self.full_end or self.end) - self.begin
        place = (step - self.begin) * self.cycles % length if self.cycles > 1 else step - self.begin
        return self.rate + (self.goal - self.rate) * _SHAPES[self.shape](place / length)

    @property
    def values(self) -> str:
        """Its values in words, without its end."""
        if self.goal is None or not self.moves:
            return f"{self.rate:g}"
        shape = "" if self.shape == "linear" else f" {self.shape}"
        shape = f" {self.shape}*{self.cycles}" if self.cycles > 1 else shape
        return f"{self.rate:g} -> {self.goal:g}{shape}"


class _Segment(NamedTuple):
    """What one segment says; ``end`` may be between two steps, and is None for the last step of the run."""

    rate: float
    goal: float | None
    shape: str
    cycles: int
    end: Fraction | None


@dataclass(frozen=True)
class Schedule:
    """A schedule as phases whose ends increase strictly; the last end is at most the run's number of steps.

    ``largest`` is the largest value that any segment names, those behind the last step too.
    """

    phases: tuple[Phase, ...]
    largest: float

    @classmethod
    def parse(cls, text: str | float, max_steps: int) -> Schedule:
        """Reads ``text`` for a run of ``max_steps`` steps, which ends in percent are shares of.

        Empty segments and blanks are tolerated. Ends are clamped to ``max_steps`` and later phases dropped, but every
        segment is checked. A share of the steps is rounded up; a segment that then has no step is dropped.

        Raises:
            UsageError: an empty or malformed schedule, or fewer than 1 step.
        """
        if max_steps < 1:
            raise UsageError(f"A schedule for {max_steps} steps is not possible; the number of steps is 1 or more.")
        phases: list[Phase] = []
        end, begin, largest = Fraction(0), 0, 0.0
        is_over = False
        for position, part in _segments(str(text)):
            if is_over:
                _refuse(text, position, part, "stands behind a rate that already holds to the end")
            segment = _read_segment(text, position, part, max_steps)
            is_over = segment.end is None
            if segment.end is not None and segment.end <= end:
                _refuse(
                    text, position, part, f"ends at step {_step(segment.end)}, but must end after step {_step(end)}"
                )
            end = Fraction(max(max_steps, begin + 1)) if segment.end is None else segment.end
            full_end = math.ceil(end)
            if begin < min(full_end, max_steps):
                phases.append(Phase(segment.rate, min(full_end, max_steps), begin, *segment[1:4], full_end))
            begin = full_end
            largest = max(largest, segment.rate, segment.goal or 0.0)
        if not phases:
            raise UsageError(f"The schedule {text!r} is empty; write a rate such as 0.005, or {EXAMPLE!r}.")
        return cls(tuple(phases), largest)

    @property
    def end_step(self) -> int:
        """The number of steps after which the schedule is over: the run's, or fewer."""
        return self.phases[-1].end

    @property
    def changes(self) -> bool:
        """Whether steps have different values."""
        return len({phase.rate for phase in self.phases}) > 1 or any(phase.moves for phase in self.phases)

    def phase_index(self, step: int) -> int:
        """Which phase the optimizer step from ``step`` to ``step + 1`` belongs to; ``len(phases)`` past the end."""
        return bisect_right(self.phases, step, key=lambda phase: phase.end)

    def at(self, step: int) -> float:
        """The value of the optimizer step from ``step`` to ``step + 1``; past the end the last one stays."""
        step = min(step, self.end_step - 1)
        return self.phases[self.phase_index(step)].at(step)

    def in_words(self) -> str:
        """The phases as a sentence."""
        return "; then ".join(f"{phase.values} until step {phase.end}" for phase in self.phases)

    def curve(self, width: int = 40) -> str:
        """Its values from the first step to the last as bars, at most ``width`` characters."""
        count = min(width, self.end_step)
        steps = [place * (self.end_step - 1) // max(1, count - 1) for place in range(count)]
        values = [self.at(step) for step in steps]
        most = max(values) or 1.0
        return "".join(_BARS[min(len(_BARS) - 1, int(value / most * len(_BARS)))] for value in values)


def _segments(text: str) -> list[tuple[int, str]]:
    """The segments that are not empty, each with its place in the text, counted from 1."""
    parts = [(position, part.strip()) for position, part in enumerate(text.split(","), start=1)]
    return [(position, part) for position, part in parts if part]


def _read_segment(text: str | float, position: int, segment: str, max_steps: int) -> _Segment:
    def refuse(fault: str) -> NoReturn:
        _refuse(text, position, segment, fault)

    fields = segment.split(":")
    if len(fields) > 2:
        refuse(f"has {len(fields)} fields; at most a rate and an end step are allowed")
    first, *more = fields[0].split("->")
    if len(more) > 1:
        refuse(f"has {len(more)} arrows; a rate moves to one other")
    value, shape, cycles = _shaped(more[0] if more else first, refuse)
    if not more and shape not in ("", "constant"):
        refuse(f"is {shape}, but has no arrow that says where it goes")
    rate = _rate(first, refuse) if more else _rate(value, refuse)
    goal = _rate(value, refuse) if more else None
    end = _end(fields[1], max_steps, refuse) if len(fields) == 2 else None
    return _Segment(rate, goal, shape or "linear", cycles, end)


def _shaped(words: str, refuse: Callable[[str], NoReturn]) -> tuple[str, str, int]:
    """A value's text, the name of a shape or "", and how often it is gone through."""
    value, _, shape = words.strip().partition(" ")
    if not shape.strip():
        return value, "", 1
    name, star, cycles = (part.strip() for part in shape.partition("*"))
    if name.lower() not in _SHAPES:
        refuse(f"has {shape.strip()!r} where a shape may stand; known are {', '.join(_SHAPES)}")
    if star and (not _CYCLES.fullmatch(cycles) or name.lower() == "constant"):
        refuse(f"has {shape.strip()!r}; only linear and cosine repeat, as cosine*4 does, from 1 to 999999 times")
    return value, name.lower(), int(cycles) if star else 1


def _rate(text: str, refuse: Callable[[str], NoReturn]) -> float:
    try:
        rate = float(text)
    except ValueError:
        refuse(f"has {text.strip()!r} where a rate is needed")
    if not math.isfinite(rate) or rate < 0:
        refuse("has a rate that is negative or not a finite number")
    return rate


def _end(text: str, max_steps: int, refuse: Callable[[str], NoReturn]) -> Fraction | None:
    """The step that it ends at, None: with the run."""
    text = text.strip()
    if share := _SHARE.fullmatch(text):
        percent = Fraction(share[1])
        if percent > 100:
            refuse(f"ends at {text} of the run's steps; at most 100% is allowed")
        return percent * max_steps / 100
    try:
        end = int(text)
    except ValueError:
        refuse(f"has {text!r} where a whole number of steps, or -1, is needed, or a share of the run's, such as 10%")
    return None if end == -1 else Fraction(end)


def _step(end: Fraction) -> str:
    return f"{float(end):.7g}" if end.denominator > 1 else f"{end.numerator}"


def _refuse(text: str | float, position: int, segment: str, fault: str) -> NoReturn:
    moving = f" or {MOVING_EXAMPLE!r}" if any(mark in segment for mark in _MOVING_MARKS) else ""
    raise UsageError(
        f"In the schedule {str(text)!r} segment {position} ({segment!r}) {fault}. Example: {EXAMPLE!r}{moving}."
    )


def schedule_faults(values: Mapping[str, Any], faulty: Collection[str], names: Sequence[str]) -> list[str]:
    """What is wrong with the settings ``names``, schedules of the run, as words that name them."""
    if "steps" in faulty:
        return []
    texts = {name: values[name] for name in names if name not in faulty and values.get(name)}
    return [f"{name}: {fault}" for name, text in texts.items() if (fault := schedule_fault(text, values))]


def schedule_fault(text: str, values: Mapping[str, Any]) -> str | None:
    """What is wrong with a schedule for the steps that ``values`` of settings give, if anything is."""
    try:
        Schedule.parse(text, values.get("steps", USUAL_STEPS))
    except UsageError as error:
        return str(error).rstrip(".")
    return None


def weight_faults(values: Mapping[str, Any], faulty: Collection[str], name: str, consequence: str) -> list[str]:
    """What is wrong with the setting ``name``, a schedule of a weight, as words that name it.

    Args:
        consequence: what it means where the weight is 0 in every step, and what to do.
    """
    faults = schedule_faults(values, faulty, (name,))
    text = values.get(name)
    if not text or faults or {name, "steps"} & set(faulty):
        return faults
    is_none = Schedule.parse(text, values.get("steps", USUAL_STEPS)).largest == 0
    return [f"{name} is {text!r}, {consequence}"] if is_none else []


def weight_text(value: Any) -> Any:
    """A weight's text or number, of which 0 means none, as empty does; a number with its decimal point."""
    if isinstance(value, bool):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return value
    return "" if number == 0 else value if isinstance(value, str) else repr(number)
