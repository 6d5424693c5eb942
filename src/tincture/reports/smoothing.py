"""The arithmetic of curves: means over many steps, and fewer points than there are."""

from __future__ import annotations

import numpy as np

from tincture.reports.curves import Values

LARGEST_WINDOW = 4
"""The strongest smoothing takes the mean over this part of the steps: a fourth."""


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
    points = np.flatnonzero(np.isfinite(y))
    if len(points) > most:
        chosen: list[int] = []
        for stretch in np.array_split(points, most // 2):
            part = y[stretch]
            chosen += sorted({int(stretch[part.argmin()]), int(stretch[part.argmax()])})
        points = np.array(chosen)
    return x[points], y[points]


def spread(x: Values, y: Values, most: int) -> tuple[Values, Values]:
    """At most ``most`` evenly spread points, the first and the last among them; for lines that are smooth already."""
    points = np.flatnonzero(np.isfinite(y))
    if len(points) > most:
        points = points[np.unique(np.linspace(0, len(points) - 1, most).round().astype(np.int64))]
    return x[points], y[points]
