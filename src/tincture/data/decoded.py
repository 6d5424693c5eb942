"""What stays of pictures from the one time that their files are decoded, so that none is decoded twice in a run."""

from __future__ import annotations

import zlib
from pathlib import Path

from PIL import Image

from tincture.data.fitting import Fit

PIXEL_MEMORY = 2**30
"""Bytes of pixels that a run keeps until they are encoded: some 1,300 pictures of 512 × 512.

Pictures that come after are decoded once more when it is their turn, so that a large data set takes no more memory.
"""


class DecodedPictures:
    """Pictures and masks as they are fitted to their training size, in 8 bits, before any is mirrored.

    Pixels are kept as long as they fit. Masks always are: packed, one takes far less than its picture's latents do.

    Args:
        most_bytes: of pixels; 0 for none.
    """

    def __init__(self, most_bytes: int = 0) -> None:
        self._keeps_pixels, self._free = most_bytes > 0, most_bytes
        self._pictures: dict[tuple[Path, Fit], Image.Image] = {}
        self._latest: tuple[Path, Fit, Image.Image] | None = None
        self._masks: dict[tuple[Path, Fit], bytes | None] = {}

    def has_room(self, fit: Fit) -> bool:
        """Whether a picture that is fitted so would be kept."""
        return _bytes(fit) <= self._free

    def add_picture(self, path: Path, fit: Fit, fitted: Image.Image) -> None:
        """Keeps ``fitted`` (mode RGB) where there is room, and else until the next comes, for its mirrored twin."""
        if self.has_room(fit) and (path, fit) not in self._pictures:
            self._free -= _bytes(fit)
            self._pictures[path, fit] = fitted
        elif self._keeps_pixels:
            self._latest = path, fit, fitted

    def picture(self, path: Path, fit: Fit) -> Image.Image | None:
        """What was kept of the picture at ``path``, if it was."""
        if self._latest is not None and self._latest[:2] == (path, fit):
            return self._latest[2]
        return self._pictures.get((path, fit))

    def add_mask(self, path: Path, fit: Fit, fitted: Image.Image | None) -> None:
        """Keeps the mask (mode L) that the file at ``path`` holds, be it a mask picture or one with alpha; or none."""
        self._masks[path, fit] = None if fitted is None else zlib.compress(fitted.tobytes(), 1)

    def knows_mask(self, path: Path, fit: Fit) -> bool:
        """Whether ``mask`` can tell."""
        return (path, fit) in self._masks

    def mask(self, path: Path, fit: Fit) -> Image.Image | None:
        """The mask that the file at ``path`` holds, None where it holds none; KeyError where that is not known."""
        packed = self._masks[path, fit]
        return None if packed is None else Image.frombytes("L", fit.size, zlib.decompress(packed))

    def release_pictures(self) -> None:
        """Gives the memory of all pixels back. They are kept no more from now on; masks stay."""
        self._pictures.clear()
        self._latest, self._keeps_pixels, self._free = None, False, 0


def _bytes(fit: Fit) -> int:
    return fit.size[0] * fit.size[1] * 3
