"""The one place where Pillow opens a picture file: of formats that it reads by itself, told by their content.

It knows many more. Some it reads by starting another program (EPS by ghostscript, whatever the file is called), others
by code that hardly anybody uses.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import IO

from PIL import Image

PICTURE_FORMATS = (
    *("PNG", "JPEG", "MPO", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM", "JPEG2000"),
    *("DIB", "ICO", "ICNS", "PCX", "PSD", "QOI", "SGI", "DDS", "TGA"),
)
"""By Pillow's names; that without a mark of its own at the beginning stands last."""


def open_picture(source: str | os.PathLike[str] | IO[bytes], formats: Sequence[str] = PICTURE_FORMATS) -> Image.Image:
    """A picture whose head was read, as Pillow has it; its pixels are read when they are asked for.

    Args:
        source: a file by its path, or open.
        formats: those that are allowed, of ``PICTURE_FORMATS``.

    Raises:
        UnidentifiedImageError: it is of another format, or damaged in its head.
        OSError: it cannot be read.
    """
    return Image.open(source, formats=readable(formats))


def readable(formats: Sequence[str] = PICTURE_FORMATS) -> tuple[str, ...]:
    """Those of the formats that the Pillow that is installed reads; AVIF and others depend on how it was built."""
    Image.init()
    return tuple(name for name in formats if name in Image.OPEN and name in PICTURE_FORMATS)


def forget_other_formats() -> None:
    """Lets Pillow know no others in this process, also where a library opens pictures by itself."""
    Image.init()
    Image.ID[:] = [name for name in Image.ID if name in PICTURE_FORMATS]
    for name in set(Image.OPEN) - set(PICTURE_FORMATS):
        del Image.OPEN[name]
