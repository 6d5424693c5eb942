"""One picture file -> upright 8-bit RGB, and its alpha channel where it has one.

- EXIF orientation is applied.
- 16-bit and float pictures are scaled to 8 bits, not clipped.
- Colours are kept as they are stored, also behind partly transparent pixels: alpha may serve as a loss weight, and then
  the picture behind it still counts. Only where alpha is 0 the colour becomes white: what an editor left behind fully
  transparent pixels is arbitrary, and would otherwise be trained, and bleed over the edge when the picture is resized.
- Colours become those of sRGB where the file brings a colour profile for RGB or CMYK.
- Of animations, the first frame counts.

A picture takes 4 bytes of memory for a pixel, 5 with alpha, and up to 12 while it is read. It has at most some 180
million of them, which is Pillow's own limit.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from tincture.data.profiles import to_srgb
from tincture.formats.pictures import open_picture

HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
PIXELS_AT_ONCE = 2**20
"""So many of a deep picture's pixels are scaled at a time, since their numbers take much memory on the way."""


class UnreadablePictureError(Exception):
    """Why a picture cannot be read, as words that follow its name: "is damaged: …"."""


@dataclass(frozen=True)
class PictureFacts:
    """What a picture file says of itself before its pixels are read: (width, height) upright, and how many frames."""

    size: tuple[int, int]
    frames: int


def read_picture(path: Path, enough: tuple[int, int] | None = None) -> tuple[Image.Image, Image.Image | None]:
    """The picture (mode RGB) and its alpha (mode L, None for a picture without), both upright and of the same size.

    Args:
        path: the file.
        enough: (width, height) in pixels that suffice, upright. A large JPEG then comes at a half, a quarter or an
            eighth of its size, but not below `enough`, which is faster by far.

    Raises:
        UnreadablePictureError: the file is missing, not a picture, damaged, cut off or unreasonably large.
    """
    with _faults_in_words(), _open(path) as image:
        if enough:
            image.draft(None, enough[::-1] if _is_lying(image) else enough)
        image.load()
        picture, alpha = _split_alpha(_upright(image))
        # Pillow would write it on: a profile that no longer fits, most of all.
        picture.info = {}
        return picture, alpha


def picture_facts(path: Path) -> PictureFacts:
    """What the head of a picture file says; the pixels behind it may be damaged all the same.

    Raises:
        UnreadablePictureError: as `read_picture`.
    """
    with _faults_in_words(), _open(path) as image:
        # A MPO's further frames are previews and depth maps, which phones put into what is a JPEG otherwise.
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        return PictureFacts(image.size[::-1] if _is_lying(image) else image.size, frames)


@contextlib.contextmanager
def _faults_in_words() -> Iterator[None]:
    # Pillow warns of odd metadata and of more than 89 million pixels, which cameras do make. What is twice as large it
    # refuses with an error.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except UnreadablePictureError:
            raise
        except UnidentifiedImageError:
            raise UnreadablePictureError("is not a picture of a known format") from None
        except Image.DecompressionBombError:
            raise UnreadablePictureError("has too many pixels; make it smaller") from None
        # Pillow's decoders raise whatever comes up in a damaged file: struct.error, SyntaxError, IndexError, ...
        except Exception as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else f"is damaged: {error}"
            raise UnreadablePictureError(reason) from error


def _is_lying(image: Image.Image) -> bool:
    """Whether EXIF says that the picture is to be turned by a quarter, and Pillow will not do so by itself."""
    if image.format == "TIFF":
        return False
    try:
        return image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
    except Exception:  # broken metadata say nothing about the pixels
        return False


def _open(path: Path) -> Image.Image:
    try:
        return open_picture(path)
    except UnidentifiedImageError:
        if not path.stat().st_size:
            raise UnreadablePictureError("is empty (0 bytes)") from None
        if not _is_heif(path):
            raise
    return _open_heif(path)


def _is_heif(path: Path) -> bool:
    """Whether the file begins with the brand of a HEIF file that holds HEVC (ISO/IEC 23008-12, annexes B.4 and C)."""
    with path.open("rb") as file:
        head = file.read(12)
    return head[4:8] == b"ftyp" and head[8:] in HEIF_BRANDS


def _open_heif(path: Path) -> Image.Image:
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise UnreadablePictureError("is a HEIC picture, which needs an extra: pip install 'tincture[heic]'") from None
    image: Image.Image = HeifImageFile(path)  # type: ignore[no-untyped-call]
    # What Pillow does by itself elsewhere; pillow-heif's own way there is to change Pillow for the whole process.
    if Image.MAX_IMAGE_PIXELS and image.width * image.height > 2 * Image.MAX_IMAGE_PIXELS:
        image.close()
        raise Image.DecompressionBombError
    return image


def _upright(image: Image.Image) -> Image.Image:
    # Broken metadata say nothing about the pixels. In place: a large picture is not copied where nothing is to turn.
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    if image.mode == "F" or image.mode.startswith("I"):
        return _split_deep(np.asarray(image), image.info.get("transparency"))
    if not image.has_transparency_data:
        return to_srgb(image), None
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    return _whitened(to_srgb(rgba), rgba.getchannel("A"))


def _split_deep(values: NDArray[np.generic], transparent: object) -> tuple[Image.Image, Image.Image | None]:
    """Of grey values of more than 8 bits, one of which may be `transparent`."""
    picture = Image.fromarray(_eight_bits(values)).convert("RGB")
    if not isinstance(transparent, int):
        return picture, None
    return _whitened(picture, Image.fromarray((values != transparent).astype(np.uint8) * np.uint8(255)))


def _whitened(picture: Image.Image, alpha: Image.Image) -> tuple[Image.Image, Image.Image]:
    picture.paste("white", mask=alpha.point(lambda value: 255 if value == 0 else 0))
    return picture, alpha


def _eight_bits(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Grey values of an int or float picture scaled to 0..255.

    The files do not say what white is: ints count as 16-bit, floats as the first of 0..1, 0..255 and 0..65535 that
    holds the brightest pixel; beyond that, the brightest pixel is white.
    """
    rows = max(1, PIXELS_AT_ONCE // values.shape[1])
    blocks = [slice(top, top + rows) for top in range(0, values.shape[0], rows)]
    brightest = max(float(np.nan_to_num(values[block]).max()) for block in blocks)
    usual = (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (65535.0,)
    white = next((white for white in usual if brightest <= white), brightest)
    scaled = np.empty(values.shape, np.uint8)
    for block in blocks:
        grey = np.nan_to_num(values[block].astype(np.float64))
        scaled[block] = np.round(np.clip(grey / white, 0, 1) * 255)
    return scaled
