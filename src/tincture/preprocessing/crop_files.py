"""The files of a crop: the picture, its caption beside it, its mask in the folder for masks."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path

from PIL import Image

from tincture.data.mask_files import MASK_FOLDER
from tincture.formats.files import write_atomically, write_text

PNG_COMPRESSION = 1
"""Of 0..9. Against 6, Pillow's own, files are 7 to 10 % larger and written about four times as fast."""


def mask_path(crop: Path) -> Path:
    """Where the mask of a crop lies."""
    return crop.parent / MASK_FOLDER / crop.name


def caption_path(crop: Path) -> Path:
    """Where the caption of a crop lies."""
    return crop.with_suffix(".txt")


def write_caption(crop: Path, caption: str) -> None:
    """Write the caption file of a crop; StorageError when the system refuses."""
    path = caption_path(crop)
    _drop_link(path)
    write_text(path, caption, durably=False)


def remove_crop(crop: Path) -> None:
    """Remove a crop with its caption and mask, as far as they are there."""
    for path in (crop, caption_path(crop), mask_path(crop)):
        with contextlib.suppress(OSError):
            path.unlink()


def write_picture(path: Path, picture: Image.Image) -> None:
    """Write a PNG, whole or not at all; StorageError when the system refuses."""
    _drop_link(path)
    save = functools.partial(picture.save, format="png", compress_level=PNG_COMPRESSION)
    write_atomically(path, save, durably=False)


def _drop_link(path: Path) -> None:
    """A link in the way may lead to a source; it is replaced, not followed."""
    if path.is_symlink():
        path.unlink()
