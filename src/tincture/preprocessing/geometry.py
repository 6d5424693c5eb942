"""Where a picture is cut, as arithmetic on sizes: nothing here touches pixels.

Sizes are (width, height) in pixels. A box is (left, top, right, bottom) in pixels of the upright source picture; its
edges may lie between pixels. The rules for splitting and for choosing a size are those of the webui's Train tab.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Size = tuple[int, int]
Box = tuple[float, float, float, float]
Method = Literal["fit", "split", "focal", "multicrop", "original"]

GRID = 64
"""Step between the sizes that multicrop chooses from, in pixels."""


@dataclass(frozen=True)
class Crop:
    """A part of a picture, and the size that it is resized to."""

    method: Method
    box: Box
    size: Size

    @property
    def scale(self) -> float:
        """Pixels of the crop for one of the source, along the side where that is more; above 1 it is enlarged."""
        left, top, right, bottom = self.box
        return max(self.size[0] / (right - left), self.size[1] / (bottom - top))


def centre_box(original: Size, size: Size) -> Box:
    """The largest box of the proportions of `size` in a picture of the size `original`, around its centre."""
    (width, height), (wide, high) = original, size
    if height / high < width / wide:
        cut = (width - wide * height / high) / 2
        return cut, 0.0, width - cut, float(height)
    cut = (height - high * width / wide) / 2
    return 0.0, cut, float(width), height - cut


def box_around(point: tuple[float, float], original: Size, size: Size) -> Box:
    """The box of `centre_box`, moved so that `point` (x, y) comes as near its centre as the picture's edges allow."""
    left, top, right, bottom = centre_box(original, size)
    x = _clamp(point[0] - (right - left) / 2, 0.0, 2 * left)
    y = _clamp(point[1] - (bottom - top) / 2, 0.0, 2 * top)
    return x, y, x + right - left, y + bottom - top


def cover_size(original: Size, size: Size) -> Size:
    """`original`, in its own proportions, resized so that it just covers `size`; rounded to whole pixels."""
    (width, height), (wide, high) = original, size
    if height * wide < width * high:
        return max(wide, round(width * high / height)), high
    return wide, max(high, round(height * wide / width))


def split_ratio(original: Size, size: Size) -> float:
    """How much of a picture's long side stays when it is cropped to the proportions of `size`; above 1 all of it."""
    (width, height), (wide, high) = original, size
    if height > width:
        return (width * high) / (height * wide)
    return (height * wide) / (width * high)


def is_oversized(original: Size, size: Size, threshold: float) -> bool:
    """Whether a picture is so long or so tall that it is cut into tiles (`threshold` 0..1)."""
    ratio = split_ratio(original, size)
    return ratio < 1 and ratio <= threshold


def split_tiles(original: Size, size: Size, overlap: float) -> tuple[Size, list[tuple[int, int, int, int]]]:
    """The size that a picture is resized to, and the boxes of its tiles there, evenly spaced over the long side.

    Neighbours share at least the part `overlap` (0..1) of a tile. For pictures of `is_oversized`.
    """
    (width, height), (wide, high) = original, size
    if height > width:
        scaled = (wide, height * wide // width)
        return scaled, [(0, top, wide, top + high) for top in _spread(scaled[1], high, overlap)]
    scaled = (width * high // height, high)
    return scaled, [(left, 0, left + wide, high) for left in _spread(scaled[0], wide, overlap)]


def _spread(length: int, tile: int, overlap: float) -> list[int]:
    """Where tiles begin so that together they cover `length`; of tiles that begin at one pixel, one."""
    count = math.ceil((length - tile * overlap) / (tile * (1 - overlap)))
    begins = (number * (length - tile) // max(count - 1, 1) for number in range(max(count, 1)))
    return list(dict.fromkeys(begins))


def split_crops(original: Size, size: Size, overlap: float) -> list[Crop]:
    """The tiles of `split_tiles` as parts of the source picture."""
    scaled, tiles = split_tiles(original, size, overlap)
    return [Crop("split", _stretched(tile, scaled, original), size) for tile in tiles]


def _stretched(box: Box, size: Size, to: Size) -> Box:
    """The box in a picture that is resized; multiplied before divided, so that the far edges are hit exactly."""
    left, top, right, bottom = box
    return left * to[0] / size[0], top * to[1] / size[1], right * to[0] / size[0], bottom * to[1] / size[1]


@dataclass(frozen=True)
class MulticropRules:
    """Which sizes multicrop may choose.

    Attributes:
        min_dim: the smallest width or height, in pixels; larger ones follow in steps of 64.
        max_dim: the largest.
        min_area: the smallest width × height, in pixels.
        max_area: the largest.
        objective: whether a larger area or less cropping goes first.
        threshold: the largest aspect error, 0..1: 0.1 means that at most a tenth of the picture is cut off.
    """

    min_dim: int = 384
    max_dim: int = 768
    min_area: int = 64 * 64
    max_area: int = 640 * 640
    objective: Literal["area", "error"] = "area"
    threshold: float = 0.1

    def sizes(self) -> Iterator[Size]:
        """Every size that may be chosen for some picture."""
        sides = range(self.min_dim, self.max_dim + 1, GRID)
        return ((w, h) for w in sides for h in sides if self.min_area <= w * h <= self.max_area)


def aspect_error(original: Size, size: Size) -> float:
    """The share of a picture, 0..1, that is cut off when it is cropped to the proportions of `size`."""
    ratio = original[0] / original[1] / (size[0] / size[1])
    return 1 - min(ratio, 1 / ratio)


def multicrop(original: Size, rules: MulticropRules) -> Crop | None:
    """The best size for a picture, cut around its centre; None when none is within the threshold."""

    def merit(size: Size) -> tuple[float, float]:
        area, fit = size[0] * size[1], -aspect_error(original, size)
        return (area, fit) if rules.objective == "area" else (fit, area)

    near = (size for size in rules.sizes() if aspect_error(original, size) <= rules.threshold)
    best = max(near, key=merit, default=None)
    return best and Crop("multicrop", centre_box(original, best), best)


def _clamp(value: float, low: float, high: float) -> float:
    return max(low, min(value, high))
