"""Pictures that a request brings or names: of a format that Pillow reads by itself."""

from __future__ import annotations

from pathlib import Path

from PIL import UnidentifiedImageError

from tincture.data.picture_files import HEIF_BRANDS, PictureFacts, UnreadablePictureError, picture_facts
from tincture.formats.pictures import open_picture, readable

UPLOADED_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")
"""By Pillow's names: of those that are read at all, what people have."""


def facts_of(path: Path) -> PictureFacts:
    """``picture_facts`` of a picture whose format is one of ``UPLOADED_FORMATS``, or HEIC.

    Raises:
        UnreadablePictureError: it is of another format, damaged, or has too many pixels.
    """
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as error:
        raise UnreadablePictureError(error.strerror or str(error)) from error
    if not (head[4:8] == b"ftyp" and head[8:] in HEIF_BRANDS):
        _require_known_format(path)
    return picture_facts(path)


def _require_known_format(path: Path) -> None:
    formats = readable(UPLOADED_FORMATS)
    try:
        open_picture(path, formats).close()
    except UnidentifiedImageError:
        what = "is empty (0 bytes)" if not path.stat().st_size else "is not a picture of a format that is taken"
        raise UnreadablePictureError(f"{what} ({', '.join(formats)}, HEIC)") from None
    # Pillow's decoders raise whatever comes up; ``picture_facts`` finds the same again, and words for it.
    except Exception:
        return
