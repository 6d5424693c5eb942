"""Lines over steps, drawn as SVG that fits any width: the curves of a run, and a schedule.

The SVG holds lines alone; numbers stand beside it as text, so that they keep their size on a phone. The page shows the
same charts as reports do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tincture.reports.words import escape

Values = NDArray[np.float64]
WIDTH, HEIGHT = 1000, 300
"""Units of the drawing, which is stretched to the room that there is."""


@dataclass(frozen=True)
class Line:
    """One line: ``x`` ascending, ``y`` finite, both (n,); ``style`` is its CSS class.

    With ``filled``, what is below it is filled too; a ``name`` is shown where one points at the line.
    """

    x: Values
    y: Values
    style: str
    filled: bool = False
    name: str = ""


@dataclass(frozen=True)
class Axes:
    """What a drawing spans: steps from ``start`` to ``end``, values from ``low`` to ``high``.

    With ``logarithmic``, values lie by their logarithm, those below ``low`` at the bottom; ``low`` is above 0.
    """

    start: float
    end: float
    low: float
    high: float
    logarithmic: bool = False

    def across(self, x: Values) -> Values:
        """Shares of the width, 0 at the left."""
        return (x - self.start) / (self.end - self.start)

    def down(self, y: Values) -> Values:
        """Shares of the height, 0 at the top."""
        if not self.logarithmic:
            return (self.high - y) / (self.high - self.low)
        lifted = np.log(np.maximum(y, self.low) / self.low)
        return np.asarray(1 - lifted / math.log(self.high / self.low), dtype=np.float64)


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers from ``low`` to ``high``, some ``about`` of them."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else []
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def limits(lines: Sequence[Line]) -> tuple[float, float]:
    """The lowest and the highest value that a chart shows: of noisy lines, all but the outermost hundredth."""
    lows, highs = [], []
    for line in lines:
        if len(line.y):
            outer = (0.01, 0.99) if line.style == "faint" and len(line.y) > 50 else (0.0, 1.0)
            low, high = np.quantile(line.y, outer)
            lows.append(float(low))
            highs.append(float(high))
    if not lows:
        return 0.0, 1.0
    low, high = min(lows), max(highs)
    room = (high - low) * 0.06 or abs(high) * 0.5 or 1.0
    return (max(0.0, low - room) if low >= 0 else low - room), high + room


def chart(title: str, lines: Sequence[Line], *, note: str = "") -> str:
    """Lines over the steps as HTML; on the page, its numbers can be read by pointing at it.

    Args:
        title: what is drawn.
        lines: the last one is the one that is read out.
        note: what to say beside the title.
    """
    drawn = [line for line in lines if len(line.x)]
    if not drawn:
        return ""
    start, end = min(line.x[0] for line in drawn), max(line.x[-1] for line in drawn)
    axes = Axes(float(start), float(max(end, start + 1)), *limits(drawn))
    values = ticks(axes.low, axes.high)
    steps = [value for value in ticks(axes.start, axes.end, 5) if value == round(value)]
    words = f"{title}, from step {start:.0f} to {end:.0f}, now {drawn[-1].y[-1]:.4g}"
    svg = picture(drawn, axes, f'role="img" aria-label="{escape(words)}"', values)
    beside = _marks([f"top:{100 * place:.2f}%" for place in axes.down(np.array(values))], map(number, values))
    below = _marks(
        [f"left:{100 * place:.2f}%" for place in axes.across(np.array(steps))], [f"{step:,.0f}" for step in steps]
    )
    return (
        f'<figure class="chart" data-x="{axes.start:.9g} {axes.end:.9g}" data-y="{axes.low:.9g} {axes.high:.9g}">'
        f'<figcaption><b>{escape(title)}</b><span class="note">{escape(note)}</span></figcaption>'
        f'<div class="plot">{svg}'
        f'<div class="values" aria-hidden="true">{beside}</div></div>'
        f'<div class="steps" aria-hidden="true">{below}</div></figure>'
    )


def picture(lines: Sequence[Line], axes: Axes, attributes: str, rules: Sequence[float] = ()) -> str:
    """The SVG of lines within ``axes``, to be stretched to any width and height.

    Args:
        attributes: of the element: what it is for those who cannot see it.
        rules: values at which a line goes across.
    """
    places = [round(float(place) * HEIGHT, 1) for place in axes.down(np.array(rules))]
    across = "".join(f'<line x1="0" x2="{WIDTH}" y1="{y}" y2="{y}"/>' for y in places)
    areas = "".join(f'<path class="area" d="{_area(line, axes)}"/>' for line in lines if line.filled)
    paths = "".join(f'<path class="{line.style}" d="{_path(line, axes)}"{_named(line)}' for line in lines)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" {attributes}>'
        f'<g class="rules">{across}</g>{areas}{paths}</svg>'
    )


def _named(line: Line) -> str:
    """The end of a line's element."""
    return f"><title>{escape(line.name)}</title></path>" if line.name else "/>"


def _path(line: Line, axes: Axes) -> str:
    x = axes.across(line.x) * WIDTH
    y = np.clip(axes.down(line.y) * HEIGHT, -5, HEIGHT + 5)
    points = [f"{left:.1f} {top:.1f}" for left, top in zip(x, y, strict=True)]
    if len(points) == 1:
        points.append(f"{x[0] + 2:.1f} {y[0]:.1f}")  # one point alone would not be seen
    return "M" + "L".join(points)


def _area(line: Line, axes: Axes) -> str:
    left, right = axes.across(line.x[[0, -1]]) * WIDTH
    return f"{_path(line, axes)}L{right:.1f} {HEIGHT}L{left:.1f} {HEIGHT}Z"


def _marks(places: Iterable[str], texts: Iterable[str]) -> str:
    return "".join(f'<span style="{place}">{text}</span>' for place, text in zip(places, texts, strict=True))


def number(value: float) -> str:
    """A value beside a rule: short, and exact enough to know one rule from another."""
    if value == 0:
        return "0"
    return f"{value:.1e}".replace("e-0", "e-") if abs(value) < 1e-3 else f"{value:.4g}"
