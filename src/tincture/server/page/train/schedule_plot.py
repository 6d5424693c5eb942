"""A schedule drawn while it is typed: steps to the right, the rate upward.

The line is an SVG that is stretched to whatever width there is; numbers stand over it as text, which is not stretched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tincture.errors import UsageError
from tincture.server.page.parts import plot
from tincture.server.page.parts.markup import escape, fault
from tincture.server.page.parts.messages import failed
from tincture.server.page.parts.plot import Axes, Line
from tincture.settings.schedule import Phase, Schedule

HIGH = 60.0
"""Pixels of the line's height in the style sheet."""
_LOWEST = 0.15  # share of the height at which the lowest rate stands, where rates lie by their logarithm
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
        return failed(error)
    return _drawn(schedule.phases, int(steps))


def in_words(phases: Sequence[Phase]) -> str:
    """The phases as a sentence, for those who cannot see the drawing."""
    return "; then ".join(f"{phase.rate:g} until step {phase.end}" for phase in phases)


def _drawn(phases: Sequence[Phase], steps: int) -> str:
    axes, ends = _axes(phases, steps), np.array([phase.end for phase in phases], dtype=float)
    corners = np.repeat(np.concatenate([[0.0], ends]), 2)[1:-1]
    rates = np.repeat(np.array([phase.rate for phase in phases]), 2)
    line = plot.picture([Line(corners, rates, "strong", filled=True)], axes, 'aria-hidden="true"')
    words = escape(in_words(phases))
    return (
        f'<div class="schedule" role="img" aria-label="{words}" title="{words}">'
        f"{line}{_rates(phases, axes)}{_ends(phases, axes)}</div>"
    )


def _axes(phases: Sequence[Phase], steps: int) -> Axes:
    """Rates by their logarithm where they differ by much; the lowest still stands above the bottom."""
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
        if end - start >= _RATE_ROOM:
            top = HIGH * float(axes.down(np.array(phase.rate)))
            marks.append(f'<span class="rate" style="left:{start:.2f}%;top:{top:.0f}px">{phase.rate:g}</span>')
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
