"""Changes to single pictures of a folder: cropped, with the original kept, and masked.

A cropped picture takes the place of the original, which goes into a hidden folder beside it together with its mask, so
that its caption, its name and every setting stay as they are, and the crop can be taken back.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from tincture.data.mask_files import MASK_FOLDER, MaskFinder
from tincture.data.masks import SAME_PROPORTIONS, read_mask
from tincture.data.picture_files import UnreadablePictureError
from tincture.errors import DataError, StorageError, UsageError, shortened
from tincture.formats.files import write_atomically
from tincture.formats.pictures import open_picture, readable
from tincture.server.errors import NotFoundError
from tincture.server.library.pictures import ORIGINALS, PictureFolders, may_be_picture
from tincture.server.requests.pictures import facts_of

LARGEST_MASK = 2**20
"""Bytes of a mask's file that a request may bring."""
MOST_MASK_PIXELS = 2**24
SHORTEST = 8
"""Pixels that a side of a crop has at least."""
# By Pillow's names; what else there is loses much when it is written again, or cannot be written.
WRITTEN: Mapping[str, Mapping[str, Any]] = {
    "PNG": {},
    "WEBP": {"lossless": True},
    "JPEG": {"quality": 95, "subsampling": 0},
    "BMP": {},
    "TIFF": {},
}
Box = tuple[int, int, int, int]
"""(left, top, width, height) in pixels of the upright picture."""


def crop(store: PictureFolders, folder: str, file: str, box: Box) -> None:
    """Lets ``box`` take the place of the picture, whose mask is cropped alike; the originals are kept.

    Raises:
        UsageError: the box reaches out of the picture or is too small, or the format cannot be written again.
        DataError: the picture or its mask cannot be read.
        NotFoundError: there is no such picture.
        ForbiddenPathError: it may not be changed.
        StorageError: the disk is full.
    """
    path = store.picture(folder, file, writing=True)
    format = _format_of(path, file)
    picture, alpha = store.read(folder, file)
    _require_inside(box, picture.size, file)
    left, top, width, height = box
    cut = (left, top, left + width, top + height)
    mask = MaskFinder().find(path, store.folder(folder))
    if mask:
        _require_own(path, file)
    cropped_mask = _cropped_mask(mask, picture.size, cut, file) if mask else None
    _keep_original(path, mask)
    if mask and cropped_mask:
        _write_mask(path, mask, cropped_mask)
    if alpha is not None and format in ("PNG", "WEBP", "TIFF"):
        picture.putalpha(alpha)
    write_atomically(path, lambda target: picture.crop(cut).save(target, format, **WRITTEN[format]))


def uncrop(store: PictureFolders, folder: str, file: str) -> None:
    """Puts the original back as it was before its first crop, with the mask that it had then.

    Raises:
        NotFoundError: there is no such picture, or it was not cropped.
        ForbiddenPathError: it may not be changed.
        StorageError: the disk is full.
    """
    path = store.picture(folder, file, writing=True)
    original = path.parent / ORIGINALS / path.name
    if not original.is_file():
        raise NotFoundError(f"{shortened(file)} has no original: it was not cropped here.")
    mask = MaskFinder().find(path, store.folder(folder))
    with _in_words(file):
        former = MaskFinder().find(original, original.parent)
        if mask:
            mask.unlink(missing_ok=True)
        if former:
            (path.parent / MASK_FOLDER).mkdir(exist_ok=True)
            former.replace(path.parent / MASK_FOLDER / former.name)
        original.replace(path)


def mask_of(store: PictureFolders, folder: str, file: str) -> bytes | None:
    """The picture's mask as a PNG in grey; None where it has none.

    Raises:
        DataError: the mask cannot be read.
        NotFoundError: there is no such picture.
    """
    path = store.picture(folder, file)
    mask = MaskFinder().find(path, store.folder(folder))
    if mask is None:
        return None
    store.places.path(mask)
    content = io.BytesIO()
    _read_mask(mask, file).save(content, "PNG")
    return content.getvalue()


def set_mask(store: PictureFolders, folder: str, file: str, png: str) -> None:
    """Makes the picture's mask: white is learned, black is not. One that is white all over is taken away.

    Args:
        png: a PNG of the picture's proportions, in base64; it may be smaller than the picture.

    Raises:
        UsageError: it is no such PNG, or all black.
        NotFoundError: there is no such picture.
        ForbiddenPathError: the folder may not be written to.
        StorageError: the disk is full.
    """
    path = store.picture(folder, file, writing=True)
    mask = _decoded(png)
    _require_proportions(mask.size, _size_of(path, file), file)
    darkest, brightest = mask.getextrema()
    if brightest == 0:
        raise UsageError(
            f"The mask of {shortened(file)} is black all over: nothing would be learned; leave some white."
        )
    if darkest == 255:
        remove_mask(store, folder, file)
        return
    former = MaskFinder().find(path, store.folder(folder))
    _write_mask(path, former, mask, store)


def remove_mask(store: PictureFolders, folder: str, file: str) -> None:
    """Takes the picture's mask away, if it has one.

    Raises:
        NotFoundError, ForbiddenPathError, StorageError: as ``set_mask``.
    """
    path = store.picture(folder, file, writing=True)
    mask = MaskFinder().find(path, store.folder(folder))
    if mask:
        store.places.path(mask, writing=True)
        with _in_words(file):
            mask.unlink(missing_ok=True)


# --- pictures ---------------------------------------------------------------------------------------------------------


def _format_of(path: Path, file: str) -> str:
    try:
        with open_picture(path) as image:
            format, frames = image.format or "", getattr(image, "n_frames", 1)
    except Exception:  # what is wrong with it, reading it says in words
        return "PNG"
    if format == "MPO":
        format, frames = "JPEG", 1
    if format not in WRITTEN or frames > 1:
        raise UsageError(
            f"{shortened(file)} is {format or 'a picture'} that cannot be written again as it is; save it as PNG, and "
            "crop that."
        )
    return format


def _size_of(path: Path, file: str) -> tuple[int, int]:
    try:
        return facts_of(path).size
    except UnreadablePictureError as error:
        raise DataError(f"{file} {str(error).rstrip('.')}.") from error


def _require_inside(box: Box, size: tuple[int, int], file: str) -> None:
    left, top, width, height = box
    if min(left, top) < 0 or left + width > size[0] or top + height > size[1]:
        raise UsageError(
            f"The crop of {shortened(file)} is {width}×{height} from {left}, {top} on, but the picture is "
            f"{size[0]}×{size[1]}; stay inside of it."
        )
    if min(width, height) < SHORTEST:
        raise UsageError(f"The crop of {shortened(file)} is {width}×{height}; give at least {SHORTEST}×{SHORTEST}.")


def _require_own(path: Path, file: str) -> None:
    """Refuses where another picture has the same mask, since it has the same name but for the ending."""
    for other in path.parent.iterdir():
        if other.stem == path.stem and other != path and may_be_picture(other) and other.is_file():
            raise UsageError(
                f"{shortened(file)} and {shortened(other.name)} have one mask, by their name; rename one of them."
            )


def _keep_original(path: Path, mask: Path | None) -> None:
    """Copies the picture and its mask aside, unless that was done at an earlier crop."""
    aside = path.parent / ORIGINALS
    if (aside / path.name).exists():
        return
    if mask:
        _copy(mask, aside / MASK_FOLDER / mask.name)
    _copy(path, aside / path.name)


def _copy(path: Path, target: Path) -> None:
    with path.open("rb") as source:
        write_atomically(target, lambda file: shutil.copyfileobj(source, file))


@contextmanager
def _in_words(file: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise StorageError(f"{shortened(file)} could not be changed: {reason}.") from error


# --- masks ------------------------------------------------------------------------------------------------------------


def _read_mask(path: Path, file: str) -> Image.Image:
    try:
        return read_mask(path)
    except UnreadablePictureError as error:
        raise DataError(f"The mask of {shortened(file)}, {path.parent.name}/{path.name}, {error}.") from error


def _cropped_mask(mask: Path, size: tuple[int, int], cut: Box, file: str) -> Image.Image:
    """The part of a mask, which may be smaller than the picture of ``size``; its size is that of the crop."""
    whole = _read_mask(mask, file)
    across, down = whole.width / size[0], whole.height / size[1]
    part = (cut[0] * across, cut[1] * down, cut[2] * across, cut[3] * down)
    cropped = whole.resize((cut[2] - cut[0], cut[3] - cut[1]), Image.Resampling.BILINEAR, box=part)
    if not cropped.getbbox():
        raise UsageError(f"The crop of {shortened(file)} is all black in its mask: nothing would be learned.")
    return cropped


def _write_mask(path: Path, former: Path | None, mask: Image.Image, store: PictureFolders | None = None) -> None:
    """Writes the mask where training looks for it, in place of ``former``."""
    target = path.parent / MASK_FOLDER / f"{path.stem}.png"
    if store:
        store.places.path(target, writing=True)

    def write(file: BinaryIO) -> None:
        mask.save(file, "PNG")

    write_atomically(target, write)
    if former and os.path.lexists(former) and former != target:
        former.unlink(missing_ok=True)


def _decoded(png: str) -> Image.Image:
    try:
        content = base64.b64decode(png, validate=True)
        if len(content) > LARGEST_MASK:
            raise UsageError(f"The mask has more than {LARGEST_MASK // 2**20} MB; send a smaller one.")
        with open_picture(io.BytesIO(content), readable(("PNG",))) as image:
            if image.width * image.height > MOST_MASK_PIXELS:
                raise UsageError(f"The mask has {image.width}×{image.height} pixels; send a smaller one.")
            return image.convert("L")
    except (binascii.Error, ValueError, OSError, SyntaxError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError("The mask is no PNG in base64; send one.") from error


def _require_proportions(mask: tuple[int, int], picture: tuple[int, int], file: str) -> None:
    one, other = mask[0] * picture[1], mask[1] * picture[0]
    if abs(one - other) > SAME_PROPORTIONS * max(one, other) + max(picture):
        raise UsageError(
            f"{shortened(file)} is {picture[0]}×{picture[1]}, but its mask {mask[0]}×{mask[1]}, of other proportions."
        )
