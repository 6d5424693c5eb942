"""Curves over the steps of a run: smoothed, thinned, drawn as SVG that fits any width.

The SVG holds lines alone; numbers stand beside it as text, so that they keep their size on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tincture.server.page.parts.markup import escape

Values = NDArray[np.float64]
WIDTH, HEIGHT = 1000, 300
"""Units of the drawing, which is stretched to the room that there is."""
LARGEST_WINDOW = 4
"""The strongest smoothing takes the mean over this part of the steps: a fourth."""


@dataclass(frozen=True)
class Line:
    """One line of a chart: ``x`` ascending, ``y`` finite, both (n,); ``style`` is its CSS class."""

    x: Values
    y: Values
    style: str


def window(smoothing: float, count: int) -> int:
    """How many of ``count`` steps a mean is taken over, odd: 1 for a smoothing of 0, a fourth of them for one of 100.

    The square lets the lower half of a slider choose among short windows.
    """
    share = min(max(smoothing, 0.0), 100.0) / 100
    return 2 * (round(share**2 * count / LARGEST_WINDOW) // 2) + 1


def smooth(values: Values, over: int) -> Values:
    """The mean of the ``over`` values around each one, fewer at the ends; values that are not finite don't count.

    NaN where none counts.
    """
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    middle = np.arange(len(values))
    first, last = np.maximum(middle - over // 2, 0), np.minimum(middle + over // 2 + 1, len(values))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((sums[last] - sums[first]) / (counts[last] - counts[first]), dtype=np.float64)


def thin(x: Values, y: Values, most: int) -> tuple[Values, Values]:
    """At most ``most`` of the points: the lowest and the highest of each stretch, so that no peak gets lost.

    Points whose ``y`` is not finite are left out.
    """
    kept = np.flatnonzero(np.isfinite(y))
    if len(kept) > most:
        chosen: list[int] = []
        for stretch in np.array_split(kept, most // 2):
            part = y[stretch]
            chosen += sorted({int(stretch[part.argmin()]), int(stretch[part.argmax()])})
        kept = np.array(chosen)
    return x[kept], y[kept]


def spread(x: Values, y: Values, most: int) -> tuple[Values, Values]:
    """At most ``most`` evenly spread points, the first and the last among them; for lines that are smooth already."""
    kept = np.flatnonzero(np.isfinite(y))
    if len(kept) > most:
        kept = kept[np.unique(np.linspace(0, len(kept) - 1, most).round().astype(np.int64))]
    return x[kept], y[kept]


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
    """Lines over the steps as HTML; its numbers can be read by pointing at it, see ``chart.js``.

    Args:
        title: what is drawn.
        lines: the last one is the one that is read out.
        note: what to say beside the title.
    """
    drawn = [line for line in lines if len(line.x)]
    if not drawn:
        return ""
    low, high = limits(drawn)
    start, end = min(line.x[0] for line in drawn), max(line.x[-1] for line in drawn)
    across = (float(start), float(max(end, start + 1)))
    rules = "".join(f'<line x1="0" x2="{WIDTH}" y1="{y}" y2="{y}"/>' for y in _places(ticks(low, high), low, high))
    paths = "".join(f'<path class="{line.style}" d="{_path(line, across, (low, high))}"/>' for line in drawn)
    told = f"from step {start:.0f} to {end:.0f}, now {drawn[-1].y[-1]:.4g}"
    return (
        f'<figure class="chart" data-x="{across[0]:.9g} {across[1]:.9g}" data-y="{low:.9g} {high:.9g}">'
        f'<figcaption><b>{escape(title)}</b><span class="note">{escape(note)}</span></figcaption>'
        f'<div class="plot"><svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(f"{title}, {told}")}"><g class="rules">{rules}</g>{paths}</svg>'
        f"{_labels(low, high)}</div>{_steps(*across)}</figure>"
    )


def _path(line: Line, across: tuple[float, float], up: tuple[float, float]) -> str:
    x = (line.x - across[0]) / (across[1] - across[0]) * WIDTH
    y = np.clip((up[1] - line.y) / (up[1] - up[0]) * HEIGHT, -5, HEIGHT + 5)
    points = [f"{left:.1f} {top:.1f}" for left, top in zip(x, y, strict=True)]
    if len(points) == 1:
        points.append(f"{x[0] + 2:.1f} {y[0]:.1f}")  # one point alone would not be seen
    return "M" + "L".join(points)


def _places(values: Sequence[float], low: float, high: float) -> list[float]:
    return [round((high - value) / (high - low) * HEIGHT, 1) for value in values]


def _labels(low: float, high: float) -> str:
    values = ticks(low, high)
    places = (place / HEIGHT * 100 for place in _places(values, low, high))
    marks = (
        f'<span style="top:{place:.2f}%">{number(value)}</span>' for place, value in zip(places, values, strict=True)
    )
    return f'<div class="values" aria-hidden="true">{"".join(marks)}</div>'


def _steps(start: float, end: float) -> str:
    values = [value for value in ticks(start, end, 5) if value == round(value)]
    places = ((value - start) / (end - start) * 100 for value in values)
    marks = (
        f'<span style="left:{place:.2f}%">{value:,.0f}</span>' for place, value in zip(places, values, strict=True)
    )
    return f'<div class="steps" aria-hidden="true">{"".join(marks)}</div>'


def number(value: float) -> str:
    """A value beside a rule: short, and exact enough to tell rules apart."""
    if value == 0:
        return "0"
    return f"{value:.1e}".replace("e-0", "e-") if abs(value) < 1e-3 else f"{value:.4g}"
