"""Contact sheets: pictures of one size in labelled rows and columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tincture.formats.picture_text import save_png

LABEL_WIDTH = 64
"""Pixels left of a sheet's row for its label, at least."""
LABEL_HEIGHT = 16
"""Pixels above a sheet's columns for their labels."""


def contact_sheet(rows: Mapping[str, Sequence[NDArray[np.uint8]]], columns: Sequence[str] = ()) -> Image.Image:
    """Pictures (H, W, 3) of one size in labelled rows, under labelled columns if ``columns`` are given."""
    height, width = next(picture.shape[:2] for row in rows.values() for picture in row)
    across = max(len(row) for row in rows.values())
    top = LABEL_HEIGHT if columns else 0
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    left = max(LABEL_WIDTH, *(math.ceil(measure.textlength(label)) + 6 for label in rows))
    sheet = Image.new("RGB", (left + across * (width + 2), top + len(rows) * (height + 2)), "white")
    pen = ImageDraw.Draw(sheet)
    for x, label in enumerate(columns):
        pen.text((left + x * (width + 2) + 2, 2), label, fill="black")
    for y, (label, row) in enumerate(rows.items()):
        pen.text((2, top + y * (height + 2) + height // 2 - 6), label, fill="black")
        for x, picture in enumerate(row):
            sheet.paste(Image.fromarray(picture), (left + x * (width + 2), top + y * (height + 2)))
    return sheet


def save_sheet(
    path: Path,
    rows: Mapping[str, Sequence[NDArray[np.uint8]]],
    columns: Sequence[str] = (),
    *,
    parameters: str = "",
) -> None:
    """Writes :func:`contact_sheet` as PNG, whole or not at all; ``parameters`` as ``save_png`` writes them."""
    save_png(np.asarray(contact_sheet(rows, columns)), path, parameters)
