"""What is asked of a picture before it is used: whether it can be read at all, and how large it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tincture.data.pictures import read_picture


@dataclass(frozen=True)
class Look:
    """What a picture is like.

    Attributes:
        size: (width, height) in pixels, upright.
        digest: the sha256 of the file, 64 hex digits; "" where nobody asked.
    """

    size: tuple[int, int]
    digest: str = ""


def look_at(path: Path, digest: str = "") -> Look:
    """Reads all of a picture, so that damage shows.

    Raises:
        UnreadablePictureError: it cannot be read.
    """
    picture, _ = read_picture(path)
    return Look(picture.size, digest)
