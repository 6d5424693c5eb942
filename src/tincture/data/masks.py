"""What of a picture is to be learned: mask pictures, and the weights of the loss that follow from a mask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageChops

from tincture.data.fitting import Fit, Size
from tincture.data.picture_files import UnreadablePictureError, read_picture

# torch is imported where it is needed: processes that only cut masks start without it.
if TYPE_CHECKING:
    from torch import Tensor

SAME_PROPORTIONS = 0.02
"""By which share the proportions of mask and picture may differ: copies made smaller are rounded to whole pixels."""


def read_mask(path: Path) -> Image.Image:
    """A mask picture (mode L, upright): white is learned, black is not; what is transparent counts as black.

    Raises:
        UnreadablePictureError: as `read_picture`.
    """
    picture, alpha = read_picture(path)
    brightness = picture.convert("L")
    return brightness if alpha is None else ImageChops.multiply(brightness, alpha)


def checked_mask(
    path: Path, original: Size, fit: Fit, read: Callable[[Path], Image.Image] = read_mask
) -> tuple[Image.Image, Image.Image]:
    """The mask at `path` as it is, and as `fit` makes it.

    Raises:
        UnreadablePictureError: it cannot be read, or cannot serve a picture of the size `original`.
    """
    name = f"{path.parent.name}/{path.name}"
    try:
        mask = read(path)
    except UnreadablePictureError as error:
        raise UnreadablePictureError(f"has a mask, {name}, that {error}") from error
    one, other = mask.width * original[1], mask.height * original[0]
    # A side is rounded by up to half a pixel, which matters in very small masks.
    if abs(one - other) > SAME_PROPORTIONS * max(one, other) + max(original):
        raise UnreadablePictureError(
            f"is {original[0]}×{original[1]}, but its mask {name} is {mask.width}×{mask.height}, of other proportions"
        )
    fitted = fit.apply(mask)
    if not fitted.getbbox():
        raise UnreadablePictureError(f"has a mask, {name}, that is black: nothing of the picture would be learned")
    return mask, fitted


def mask_weights(mask: Tensor | None, h: int, w: int, unmasked_weight: float = 0.0) -> Tensor:
    """Loss weights (1, h, w) float32 on the latent grid, with mean 1, from a picture's mask (H, W) in 0..1.

    The mask is resized to the grid, its minimum becomes 0, and the whole is divided by its mean, as the webui does with
    alpha. Where the mask is None or the same everywhere, all weights are 1. They hold for every channel of the latents.

    Args:
        unmasked_weight: what the darkest place counts against the brightest, 0..1; what lies between follows.
    """
    import torch

    if mask is None:
        return torch.ones(1, h, w)
    # In 8 bits, as the webui does: overshoot is then cut off between the passes too, so that weights come out alike.
    image = Image.fromarray(np.round(mask.numpy() * 255).astype(np.uint8))
    grid = torch.from_numpy(np.array(image.resize((w, h), Image.Resampling.BICUBIC))).float()[None]
    above = grid - grid.min()
    if not above.any():
        return torch.ones(1, h, w)
    weights = unmasked_weight * above.max() + (1 - unmasked_weight) * above
    return weights / weights.mean()
