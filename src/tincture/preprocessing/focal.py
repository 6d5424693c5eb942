"""What a picture is about, as one point: faces, the busiest window and corners, each with a weight.

The rules are those of the webui's "auto focal point crop": the point is the weighted mean of three centroids, those of
the faces, of the window with the highest entropy, and of the corners; what is not found does not count. All of it is
looked for in a small copy of the picture, and all coordinates are pixels (x, y) of that copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tincture.preprocessing.faces import Face, FindFaces, opencv
from tincture.preprocessing.geometry import Box, Size, box_around, cover_size

Point = tuple[float, float]
Grey = NDArray[np.uint8]  # (height, width)

LARGEST_COPY = 512
"""Short side of the copy that is looked at, in pixels: faces and corners are found as well as in a larger one."""
WINDOW_STEP = 4
MOST_CORNERS, CORNER_QUALITY, CORNER_DISTANCE = 100, 0.04, 0.06
WATERMARK_SHARE, WATERMARK_GREY = 0.1, 0x99
"""The bottom tenth is painted grey before corners are looked for: that is where watermarks are."""
FACE_COLOUR, CORNER_COLOUR, WINDOW_COLOUR, CROP_COLOUR = "#ff3030", "#30d030", "#3080ff", "#ffd000"


@dataclass(frozen=True)
class FocalWeights:
    """How much each kind counts, 0 or more; 0 leaves it out."""

    faces: float = 0.9
    entropy: float = 0.15
    corners: float = 0.5


@dataclass(frozen=True)
class Interest:
    """What was found in a copy of the size `copy`: `point` is the centre of it all."""

    copy: Size
    faces: tuple[Face, ...]
    window: Box | None
    corners: tuple[Point, ...]
    point: Point

    def crop_box(self, original: Size, size: Size) -> Box:
        """The box of the proportions of `size` around the point, in a picture of the size `original`."""
        x, y = self.point[0] * original[0] / self.copy[0], self.point[1] * original[1] / self.copy[1]
        return box_around((x, y), original, size)


def small_copy(picture: Image.Image, size: Size) -> Image.Image:
    """The copy that is looked at for a crop of the proportions of `size`: it just covers it, at 512 pixels at most."""
    shrink = min(1.0, LARGEST_COPY / min(size))
    bounds = max(1, round(size[0] * shrink)), max(1, round(size[1] * shrink))
    return picture.resize(cover_size(picture.size, bounds), Image.Resampling.BILINEAR, reducing_gap=2.0)


def find_interest(copy: Image.Image, size: Size, weights: FocalWeights, find_faces: FindFaces) -> Interest:
    """Look for what draws the eye.

    Args:
        copy: the picture as `small_copy` makes it, RGB.
        size: proportions of the crop.
        weights: of the three kinds.
        find_faces: the detector.
    """
    pixels, grey = np.asarray(copy), np.asarray(copy.convert("L"))
    faces = tuple(find_faces(pixels)) if weights.faces > 0 else ()
    window = busiest_window(grey, size) if weights.entropy > 0 else None
    corners = find_corners(grey) if weights.corners > 0 else ()
    centres = [
        (weights.faces, [(face.left + face.width / 2, face.top + face.height / 2) for face in faces]),
        (weights.entropy, [((window[0] + window[2]) / 2, (window[1] + window[3]) / 2)] if window else []),
        (weights.corners, list(corners)),
    ]
    point = _weighted_mean([(weight, _centroid(points)) for weight, points in centres if points])
    return Interest(copy.size, faces, window, corners, point or (copy.width / 2, copy.height / 2))


def _centroid(points: Sequence[Point]) -> Point:
    return sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)


def _weighted_mean(points: Sequence[tuple[float, Point]]) -> Point | None:
    total = sum(weight for weight, _ in points)
    if not total:
        return None
    return sum(w * x for w, (x, _) in points) / total, sum(w * y for w, (_, y) in points) / total


def busiest_window(grey: Grey, size: Size) -> Box | None:
    """The window of the proportions of `size` whose grey levels have the highest entropy; of several the first.

    It moves along the side that is cropped in steps of 4 pixels. None where it has no room to move.

    Counting grey levels for each column (or row) once, and summing these counts along the picture, gives the histogram
    of every window by one subtraction.
    """
    height, width = grey.shape
    box = box_around((0.0, 0.0), (width, height), size)
    across = box[2] - box[0] < width
    lines = grey.T if across else grey
    length = round(box[2] - box[0]) if across else round(box[3] - box[1])
    starts = np.arange(0, len(lines) - length + 1, WINDOW_STEP)
    if len(starts) < 2:
        return None
    counts = _running_counts(lines)
    entropies = _entropy(counts[starts + length] - counts[starts])
    start = float(starts[int(entropies.argmax())])
    return (start, 0.0, start + length, float(height)) if across else (0.0, start, float(width), start + length)


def _running_counts(lines: Grey) -> NDArray[np.int64]:
    """(lines + 1, 256): how often each grey level comes in the lines before."""
    count = len(lines)
    cells = lines + np.arange(count)[:, None] * 256
    each = np.bincount(cells.ravel(), minlength=count * 256).reshape(count, 256)
    return np.concatenate([np.zeros((1, 256), np.int64), each.cumsum(axis=0)])


def _entropy(histograms: NDArray[np.int64]) -> NDArray[np.float64]:
    """In bits, of each row."""
    shares = histograms / histograms.sum(axis=1, keepdims=True)
    logarithms = np.log2(shares, where=shares > 0, out=np.zeros_like(shares))
    entropies: NDArray[np.float64] = -(shares * logarithms).sum(axis=1)
    return entropies


def find_corners(grey: Grey) -> tuple[Point, ...]:
    """Points where edges meet (Shi and Tomasi, "Good features to track", 1994); none without OpenCV."""
    cv2: Any = opencv()
    if cv2 is None:
        return ()
    height, width = grey.shape
    masked = grey.copy()
    masked[int(height * (1 - WATERMARK_SHARE)) :] = WATERMARK_GREY
    found = cv2.goodFeaturesToTrack(
        masked, MOST_CORNERS, CORNER_QUALITY, min(height, width) * CORNER_DISTANCE, useHarrisDetector=False
    )
    return () if found is None else tuple((float(x), float(y)) for x, y in found.reshape(-1, 2))


def draw_interest(copy: Image.Image, interest: Interest, size: Size) -> Image.Image:
    """The copy with what was found drawn on it: faces red, corners green, the window blue, point and crop yellow."""
    picture = copy.copy()
    pen, line = ImageDraw.Draw(picture), max(1, min(copy.size) // 200)
    if interest.window:
        pen.rectangle(_inside(interest.window, copy.size), outline=WINDOW_COLOUR, width=line)
    for x, y in interest.corners:
        pen.ellipse((x - 2 * line, y - 2 * line, x + 2 * line, y + 2 * line), fill=CORNER_COLOUR)
    for left, top, width, height in interest.faces:
        pen.rectangle((left, top, left + width, top + height), outline=FACE_COLOUR, width=2 * line)
    pen.rectangle(_inside(interest.crop_box(copy.size, size), copy.size), outline=CROP_COLOUR, width=3 * line)
    x, y = interest.point
    pen.line((x - 8 * line, y, x + 8 * line, y), fill=CROP_COLOUR, width=3 * line)
    pen.line((x, y - 8 * line, x, y + 8 * line), fill=CROP_COLOUR, width=3 * line)
    return picture


def _inside(box: Box, size: Size) -> Box:
    """The box as Pillow draws it: its last pixel is that of the lower right corner."""
    return box[0], box[1], min(box[2], size[0]) - 1, min(box[3], size[1]) - 1
