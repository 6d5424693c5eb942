"""What a folder of pictures is like as a whole: which show the same, and which size each gets in a training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tincture.data.fitting import Buckets, Fit, Size, fitting
from tincture.errors import DataError
from tincture.preprocessing.duplicates import groups, near_duplicates, thumbnail
from tincture.server.errors import NotFoundError
from tincture.server.library.pictures import PictureFolders

STRIDE = 8
"""Pixels per cell of the latents, in every model that there is."""
ENOUGH = (144, 144)
"""Pixels to which a picture may be read smaller before it is compared."""


@dataclass(frozen=True)
class Sized:
    """Pictures that get one size.

    Attributes:
        size: (width, height) in pixels.
        files: of the pictures, in their order.
        cropped: share of them that is cut off, 0..1, on average.
        enlarged_files: those that are made larger.
    """

    size: Size
    files: tuple[str, ...]
    cropped: float
    enlarged_files: tuple[str, ...]


def find_duplicates(store: PictureFolders, folder: str, bits: int = 12) -> list[list[str]]:
    """Groups of files that show the same, or nearly; see ``preprocessing.duplicates``. Reads every picture.

    Args:
        folder: the name of a data set, or a path that is allowed.
        bits: of 144 that may differ.

    Raises:
        NotFoundError: there is no such folder.
    """
    seen: dict[str, str] = {}
    for info in store.pictures(folder):
        try:
            seen[info.file] = thumbnail(store.read(folder, info.file, enough=ENOUGH)[0])
        except (DataError, NotFoundError):
            continue  # the list of pictures says what is wrong with it
    return [group for group in groups(list(seen), near_duplicates(seen, bits)) if len(group) > 1]


def find_sizes(
    store: PictureFolders,
    folder: str,
    width: int,
    height: int,
    *,
    resize: str = "crop",
    varsize: bool = False,
    buckets: bool = False,
    bucket_step: int = 0,
    bucket_min: int = 0,
    bucket_max: int = 0,
) -> list[Sized]:
    """Which pictures get which size in a training with these settings; the most frequent size first.

    Args:
        folder: the name of a data set, or a path that is allowed.
        width, height, resize, varsize, buckets, bucket_step, bucket_min, bucket_max: as in ``TrainSettings``.

    Raises:
        NotFoundError: there is no such folder.
        UsageError: a size is not possible.
    """
    sides = {"step": bucket_step, "shortest": bucket_min, "longest": bucket_max}
    chosen = Buckets.around(width * height, STRIDE, **sides) if buckets else None
    fit = fitting(width, height, resize=resize, varsize=varsize, buckets=chosen, stride=STRIDE)
    found: dict[Size, list[tuple[str, Size, Fit]]] = {}
    for info in store.pictures(folder):
        if info.width and info.height:
            fitted = fit((info.width, info.height))
            found.setdefault(fitted.size, []).append((info.file, (info.width, info.height), fitted))
    return sorted((_sized(size, members) for size, members in found.items()), key=lambda one: -len(one.files))


def _sized(size: Size, members: Sequence[tuple[str, Size, Fit]]) -> Sized:
    cropped = sum(fit.cropped if all(size) else 1.0 for _, _, fit in members) / len(members)
    enlarged = tuple(file for file, original, fit in members if fit.enlarges(original))
    return Sized(size, tuple(file for file, _, _ in members), cropped, enlarged)
