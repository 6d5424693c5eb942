"""Draws docs/images/preprocess.png: what `tincture preprocess` makes of pictures whose subject is off the middle.

python tools/draw_preprocess.py [OUT]
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tincture.formats.pictures import open_picture
from tincture.models.picto.world import Scene, render
from tincture.preprocessing.pipeline import preprocess

OUT = Path(__file__).parents[1] / "docs" / "images" / "preprocess.png"
CELL, GAP = 112, 6
ICONS = (("star", "orange"), ("heart", "red"), ("moon", "purple"), ("ring", "brown"))


def icon(number: int, side: int) -> Image.Image:
    shape, colour = ICONS[number]
    scene = Scene(shape=shape, colour=colour, texture="dotted", background="sand")
    return Image.fromarray(render(scene)).resize((side, side), Image.Resampling.LANCZOS)


def scenery(width: int, height: int, lefts: Sequence[int]) -> Image.Image:
    """A wide picture with a pictogram at each place."""
    picture = Image.new("RGB", (width, height), icon(0, 64).getpixel((1, 1)))
    for number, left in enumerate(lefts):
        picture.paste(icon(number, height), (left, 0))
    return picture


def crops(picture: Image.Image, **options: Any) -> list[Image.Image]:
    """The picture as it is shown first, and the crops that are made of it."""
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder, "in"), Path(folder, "out")
        source.mkdir()
        picture.save(source / "picture.png")
        preprocess(source, made, width=128, height=128, workers=1, **options)
        drawn = [*made.glob("debug/*.jpg"), source / "picture.png"]
        return [open_picture(path).convert("RGB") for path in (drawn[0], *sorted(made.glob("*.png")))]


def row(pictures: Sequence[Image.Image]) -> Image.Image:
    """Side by side, at the height of a cell."""
    small = [picture.resize((round(picture.width * CELL / picture.height), CELL)) for picture in pictures]
    strip = Image.new("RGB", (sum(picture.width + GAP for picture in small) - GAP, CELL), "white")
    left = 0
    for picture in small:
        strip.paste(picture, (left, 0))
        left += picture.width + GAP
    return strip


def main() -> None:
    wide, long = scenery(420, 180, [225]), scenery(630, 160, [0, 160, 320, 470])
    rows = [
        row(crops(wide)),
        row(crops(wide, focal_crop=True, focal_debug=True, flip=True)),
        row(crops(long, split=True)),
    ]
    sheet = Image.new("RGB", (max(strip.width for strip in rows), (CELL + GAP) * len(rows) - GAP), "white")
    for number, strip in enumerate(rows):
        sheet.paste(strip, (0, number * (CELL + GAP)))
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    sheet.save(out, optimize=True)


if __name__ == "__main__":
    main()
