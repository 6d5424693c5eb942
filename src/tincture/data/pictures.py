"""One picture file -> upright 8-bit RGB, and its alpha channel where it has one.

- EXIF orientation is applied.
- 16-bit and float pictures are scaled to 8 bits, not clipped.
- Colours are kept as they are stored, also behind partly transparent pixels: alpha may serve as a loss weight, and then
  the picture behind it still counts. Only where alpha is 0 the colour becomes white: what an editor left behind fully
  transparent pixels is arbitrary, and would otherwise be trained, and bleed over the edge when the picture is resized.
- Of animations, the first frame counts.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError


class UnreadablePictureError(Exception):
    """Why a picture cannot be read, as words that follow its name: "is damaged: …"."""


def read_picture(path: Path) -> tuple[Image.Image, Image.Image | None]:
    """The picture (mode RGB) and its alpha (mode L, None for a picture without), both upright and of the same size.

    Raises:
        UnreadablePictureError: the file is missing, not a picture, damaged, cut off or unreasonably large.
    """
    # Pillow warns of odd metadata and of more than 89 million pixels, which cameras do make. What is twice as large it
    # refuses with an error.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(path) as image:
                image.load()
                return _split_alpha(_upright(image))
        except UnidentifiedImageError:
            raise UnreadablePictureError("is not a picture of a known format") from None
        except Image.DecompressionBombError:
            raise UnreadablePictureError("has too many pixels; make it smaller") from None
        # Pillow's decoders raise whatever comes up in a damaged file: struct.error, SyntaxError, IndexError, ...
        except Exception as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else f"is damaged: {error}"
            raise UnreadablePictureError(reason) from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # broken metadata say nothing about the pixels
        return image


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB"), None
    if not image.has_transparency_data:
        return image.convert("RGB"), None
    rgba = image.convert("RGBA")
    picture, alpha = rgba.convert("RGB"), rgba.getchannel("A")
    picture.paste("white", mask=alpha.point(lambda value: 255 if value == 0 else 0))
    return picture, alpha


def _eight_bits(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Grey values of an int or float picture scaled to 0..255.

    The files do not say what white is: ints count as 16-bit, floats as the first of 0..1, 0..255 and 0..65535 that
    holds the brightest pixel; beyond that, the brightest pixel is white.
    """
    grey = np.nan_to_num(values.astype(np.float64))
    brightest = float(grey.max())
    usual = (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (65535.0,)
    white = next((white for white in usual if brightest <= white), brightest)
    return np.round(np.clip(grey / white, 0, 1) * 255).astype(np.uint8)
