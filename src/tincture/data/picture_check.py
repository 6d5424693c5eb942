"""What is asked of a picture before it is used: whether it can be read at all, and how large it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from tincture.data.picture_files import read_picture


@dataclass(frozen=True)
class PictureCheck:
    """A picture that can be read.

    Attributes:
        size: (width, height) in pixels, upright.
        digest: the sha256 of the file, 64 hex digits; "" where nobody asked.
        decoded: what `read_picture` gave; None where the check knew without decoding.
    """

    size: tuple[int, int]
    digest: str = ""
    decoded: tuple[Image.Image, Image.Image | None] | None = field(default=None, repr=False, compare=False)


def check_picture(path: Path, digest: str = "") -> PictureCheck:
    """Decodes all of a picture, so that damage shows.

    Raises:
        UnreadablePictureError: it cannot be read.
    """
    picture, alpha = read_picture(path)
    return PictureCheck(picture.size, digest, (picture, alpha))
