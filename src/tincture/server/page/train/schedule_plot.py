"""A schedule drawn while it is typed: steps to the right, the rate upward.

The line is an SVG that is stretched to whatever width there is; numbers stand over it as text, which is not stretched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tincture.errors import UsageError
from tincture.reports import curves
from tincture.reports.curves import Axes, Line, Values
from tincture.server.page.parts.markup import escape, fault
from tincture.server.page.parts.messages import failed
from tincture.settings.schedule import Phase, Schedule

HIGH = 60.0
"""Pixels of the line's height in the style sheet."""
_POINTS = 200
"""Of a phase that moves."""
_LOWEST = 0.15  # share of the height at which the lowest rate stands, where rates lie by their logarithm
_RATE_ROOM, _STEP_ROOM = 9.0, 8.0  # percent of the width that a number needs, at least
_RATE_LETTERS = 8


def draw_schedule(text: str, steps: Any, fallback: str = "") -> str:
    """The schedule ``text`` of a run of ``steps`` steps as HTML, or the sentence that says what is wrong with it.

    ``fallback`` counts where nothing is typed; without one nothing is drawn then.
    """
    if not (text.strip() or fallback):
        return ""
    if not isinstance(steps, int | float) or not 1 <= steps <= 10**9:
        return fault("Max steps must be a whole number of at least 1.")
    try:
        schedule = Schedule.parse(text.strip() or fallback, int(steps))
    except UsageError as error:
        return failed(error)
    return _drawn(schedule, int(steps))


def _drawn(schedule: Schedule, steps: int) -> str:
    phases = schedule.phases
    axes, parts = _axes(phases, steps), [_line(phase) for phase in phases]
    corners, rates = (np.concatenate(values) for values in zip(*parts, strict=True))
    line = curves.picture([Line(corners, rates, "strong", filled=True)], axes, 'aria-hidden="true"')
    words = escape(schedule.in_words())
    return (
        f'<div class="schedule" role="img" aria-label="{words}" title="{words}">'
        f"{line}{_rates(phases, axes)}{_ends(phases, axes)}</div>"
    )


def _line(phase: Phase) -> tuple[Values, Values]:
    """Steps and rates of a phase: both ends, and what is between them where it moves."""
    if not phase.moves:
        return np.array([phase.begin, phase.end], dtype=float), np.array([phase.rate, phase.rate])
    count = min(phase.end - phase.begin, _POINTS)
    steps = np.unique(np.linspace(phase.begin, phase.end - 1, count).round().astype(int))
    rates = np.array([phase.at(int(step)) for step in steps])
    return np.append(steps, phase.end).astype(float), np.append(rates, rates[-1])


def _axes(phases: Sequence[Phase], steps: int) -> Axes:
    """Rates by their logarithm where constant ones differ by much; the lowest still stands above the bottom."""
    if any(phase.moves for phase in phases):
        return Axes(0, steps, 0, max(max(phase.rate, phase.goal or 0.0) for phase in phases) or 1.0)
    rates = [phase.rate for phase in phases if phase.rate > 0]
    most, least = max(rates, default=1.0), min(rates, default=1.0)
    if most <= 20 * least:
        return Axes(0, steps, 0, most)
    return Axes(0, steps, least * (most / least) ** (-_LOWEST / (1 - _LOWEST)), most, logarithmic=True)


def _rates(phases: Sequence[Phase], axes: Axes) -> str:
    """Each rate above its part of the line, where that is wide enough."""
    marks = []
    start = 0.0
    for phase in phases:
        end = 100 * float(axes.across(np.array(phase.end, dtype=float)))
        if end - start >= _RATE_ROOM * max(1.0, len(phase.values) / _RATE_LETTERS):
            top = HIGH * float(axes.down(np.array(max(phase.rate, phase.goal if phase.moves and phase.goal else 0))))
            marks.append(f'<span class="rate" style="left:{start:.2f}%;top:{top:.0f}px">{escape(phase.values)}</span>')
        start = end
    return "".join(marks)


def _ends(phases: Sequence[Phase], axes: Axes) -> str:
    """Steps where the rate changes, as many as have room; the run's last step always."""
    marks = [f'<span class="end last">step {axes.end:.0f}</span>']
    free = _STEP_ROOM / 2
    for phase in phases:
        x = 100 * float(axes.across(np.array(phase.end, dtype=float)))
        if free <= x <= 100 - 3 * _STEP_ROOM:
            marks.append(f'<span class="end" style="left:{x:.2f}%">{phase.end}</span>')
            free = x + _STEP_ROOM
    return "".join(marks)
