"""A schedule drawn while it is typed: steps to the right, the rate upward.

The line is an SVG that is stretched to whatever width there is; numbers stand over it as text, which is not stretched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tincture.errors import UsageError
from tincture.server.page.parts.markup import escape, fault
from tincture.settings.schedule import Phase, Schedule

TOP, HIGH = 20.0, 60.0
"""Pixels: room for a number above the line, and the line's own height."""
_RATE_ROOM, _STEP_ROOM = 9.0, 8.0  # percent of the width that a number needs, at least


def draw_schedule(text: str, steps: Any, fallback: str = "") -> str:
    """The schedule ``text`` of a run of ``steps`` steps as HTML, or the sentence that says what is wrong with it.

    ``fallback`` counts where nothing is typed.
    """
    if not isinstance(steps, int | float) or not 1 <= steps <= 10**9:
        return fault("Max steps must be a whole number of at least 1.")
    try:
        schedule = Schedule.parse(text.strip() or fallback, int(steps))
    except UsageError as error:
        return fault(str(error))
    return _drawn(schedule.phases, int(steps))


def in_words(phases: Sequence[Phase]) -> str:
    """The phases as a sentence, for those who cannot see the drawing."""
    told = [f"{phase.rate:g} until step {phase.end}" for phase in phases]
    return "; then ".join(told)


def _drawn(phases: Sequence[Phase], steps: int) -> str:
    places = _Places(phases, steps)
    points: list[tuple[float, float]] = []
    start = 0
    for phase in phases:
        points += [(places.x(start), places.y(phase.rate)), (places.x(phase.end), places.y(phase.rate))]
        start = phase.end
    line = " ".join(f"{x:.2f},{y:.1f}" for x, y in points)
    area = f"0,{HIGH} {line} {points[-1][0]:.2f},{HIGH}"
    words = escape(in_words(phases))
    return (
        f'<div class="schedule" role="img" aria-label="{words}" title="{words}">'
        f'<svg viewBox="0 0 100 {HIGH:g}" preserveAspectRatio="none" aria-hidden="true">'
        f'<polygon points="{area}"/><polyline points="{line}"/></svg>'
        f"{_rates(phases, places)}{_ends(phases, places, steps)}</div>"
    )


class _Places:
    """Where steps (percent) and rates (pixels) lie; rates by their logarithm where they differ by much."""

    def __init__(self, phases: Sequence[Phase], steps: int) -> None:
        rates = [phase.rate for phase in phases if phase.rate > 0]
        self.most, self.least = max(rates, default=1.0), min(rates, default=1.0)
        self.by_logarithm = self.most > 20 * self.least
        self.steps = steps

    def x(self, step: int) -> float:
        return 100 * step / self.steps

    def y(self, rate: float) -> float:
        return HIGH * (1 - self._share(rate))

    def _share(self, rate: float) -> float:
        if rate <= 0:
            return 0.0
        if not self.by_logarithm:
            return rate / self.most
        return 0.15 + 0.85 * math.log(rate / self.least) / math.log(self.most / self.least)


def _rates(phases: Sequence[Phase], places: _Places) -> str:
    """Each rate above its part of the line, where that is wide enough."""
    told = []
    start = 0.0
    for phase in phases:
        end = places.x(phase.end)
        if end - start >= _RATE_ROOM:
            top = places.y(phase.rate)
            told.append(f'<span class="rate" style="left:{start:.2f}%;top:{top:.0f}px">{phase.rate:g}</span>')
        start = end
    return "".join(told)


def _ends(phases: Sequence[Phase], places: _Places, steps: int) -> str:
    """Steps where the rate changes, as many as have room; the run's last step always."""
    told = [f'<span class="end last">step {steps}</span>']
    free = _STEP_ROOM / 2
    for phase in phases:
        x = places.x(phase.end)
        if free <= x <= 100 - 3 * _STEP_ROOM:
            told.append(f'<span class="end" style="left:{x:.2f}%">{phase.end}</span>')
            free = x + _STEP_ROOM
    return "".join(told)
