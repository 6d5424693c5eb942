"""Colour profiles: a picture in Adobe RGB, Display P3 or the inks of a printer -> sRGB, which models are trained on."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageCms

UNSEEN = 2
"""Where no colour would change by more, of 255, the profile is that of sRGB, and pixels stay as they are."""

_SPACES = {"RGB ": "RGB", "CMYK": "CMYK"}


def to_srgb(image: Image.Image) -> Image.Image:
    """The picture (any mode of 8 bits) in mode RGB, without alpha, by the ICC profile that it brings.

    A profile that is broken or does not belong to the mode counts as none, and so does one for greys: colours are
    converted plainly then.
    """
    try:
        transform = _transform(image)
        if transform is not None:
            found = ImageCms.applyTransform(image if image.mode == "CMYK" else image.convert("RGB"), transform)
            return found if found is not None else image.convert("RGB")
    except Exception:  # a broken profile says nothing about the pixels
        pass
    return image if image.mode == "RGB" else image.convert("RGB")


def _transform(image: Image.Image) -> ImageCms.ImageCmsTransform | None:
    """From the picture's own colours to sRGB, or None where there is nothing to do."""
    data = image.info.get("icc_profile")
    if not data:
        return None
    profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
    mode = _SPACES.get(profile.profile.xcolor_space)
    if mode is None or (mode == "CMYK") != (image.mode == "CMYK"):
        return None
    transform = ImageCms.buildTransform(
        profile,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    return None if mode == "RGB" and _changes_nothing(transform) else transform


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    levels = np.arange(0, 256, 15)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, len(levels), 3).astype(np.uint8)
    turned = ImageCms.applyTransform(Image.fromarray(colours), transform)
    return bool(np.abs(np.asarray(turned, np.int16) - colours).max() <= UNSEEN)
