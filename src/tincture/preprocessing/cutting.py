"""One source picture -> its crops as files. This is what worker processes do; nothing here loads torch."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image, ImageOps

from tincture.data.fitting import stretch
from tincture.data.mask_files import MASK_FOLDER
from tincture.data.masks import checked_mask
from tincture.data.picture_files import PictureFacts, UnreadablePictureError, picture_facts, read_picture
from tincture.formats.files import write_atomically
from tincture.preprocessing.crop_files import mask_path, remove_crop, write_caption, write_picture
from tincture.preprocessing.cut_jobs import Cut, CutFile, CutJob, CutRules, Probed, Skipped, Unchanged
from tincture.preprocessing.duplicates import thumbnail
from tincture.preprocessing.faces import load_detector
from tincture.preprocessing.focal import FocalWeights, draw_interest, find_interest, small_copy
from tincture.preprocessing.geometry import (
    Crop,
    Size,
    centre_box,
    cover_size,
    is_oversized,
    multicrop,
    split_crops,
)

SHARP_ENOUGH = 2.0
"""A JPEG decoded at this many times the size of a crop gives the same crop as the whole picture, to the eye."""
THUMBNAIL_SOURCE = 64
"""Pixels that are enough to take a thumbnail of."""


def probe(path: Path) -> Probed | Skipped:
    """Whether a picture can be read, and what near-duplicates and the split for validation need of it."""
    try:
        digest = _digest(path)
        facts = picture_facts(path)
        shrink = min(1.0, THUMBNAIL_SOURCE / min(facts.size))
        picture, _ = read_picture(path, _scaled(facts.size, shrink))
        return Probed(digest, thumbnail(picture))
    except UnreadablePictureError as error:
        return Skipped(str(error))


def cut(job: CutJob) -> Cut | Unchanged | Skipped:
    """Cut one source and write its crops, each with its mirrored copy, caption and mask; all of them or none.

    Raises:
        StorageError: they cannot be written.
    """
    try:
        fingerprint = _fingerprint(job)
        return Unchanged() if fingerprint == job.known else _cut(job, fingerprint)
    except UnreadablePictureError as error:
        return Skipped(str(error))


def plan_crops(original: Size, rules: CutRules) -> list[Crop]:
    """The crops of a picture of the size `original`; the box of a focal one is still that of its centre.

    Splitting, focal crop, multicrop and the original size each add theirs. Where none of them was asked for or applies,
    the picture is resized to cover the size, and the middle is cut out.
    """
    crops: list[Crop] = []
    middle = Crop("fit", centre_box(original, rules.size), rules.size)
    if rules.split and is_oversized(original, rules.size, rules.split.threshold):
        crops += split_crops(original, rules.size, rules.split.overlap)
    if rules.focal:
        # Proportions that fit already leave nothing to choose.
        loose = cover_size(original, rules.size) != rules.size
        crops.append(replace(middle, method="focal") if loose else middle)
    if rules.multicrop and (chosen := multicrop(original, rules.multicrop)):
        crops.append(chosen)
    if rules.keep_original:
        crops.append(Crop("original", (0.0, 0.0, float(original[0]), float(original[1])), original))
    return crops or ([] if rules.multicrop else [middle])


def _cut(job: CutJob, fingerprint: str) -> Cut | Skipped:
    facts = picture_facts(job.path)
    crops = plan_crops(facts.size, job.rules)
    if not crops:
        return Skipped(f"is {facts.size[0]}×{facts.size[1]}, for which multicrop has no size within its threshold")
    mask = checked_mask(job.mask, facts.size, stretch(facts.size))[0] if job.mask else None
    scale = min(1.0, SHARP_ENOUGH * max(crop.scale for crop in crops))
    picture, alpha = read_picture(job.path, _scaled(facts.size, scale) if scale < 1 else None)
    if "focal" in {crop.method for crop in crops}:
        crops = _aimed(job, picture, facts.size, crops)
    layers = Layers(picture, alpha if job.rules.keep_alpha else None, mask, facts.size)
    files, notes = _write_crops(job, layers, crops)
    if not files:
        return Skipped(f"has a mask, {MASK_FOLDER}/{job.mask.name if job.mask else ''}, that is black in every crop")
    return Cut(fingerprint, facts.size, thumbnail(picture), tuple(files), (*_notes(facts, crops), *notes))


def _aimed(job: CutJob, picture: Image.Image, original: Size, crops: list[Crop]) -> list[Crop]:
    """The crops, the focal one at its place; with a debug picture where one is wanted."""
    rules = job.rules
    copy = small_copy(picture, rules.size)
    find_faces = load_detector(rules.detector, rules.yunet_model)
    interest = find_interest(copy, rules.size, rules.focal or FocalWeights(), find_faces)
    if job.debug:
        drawn = draw_interest(copy, interest, rules.size)
        write_atomically(job.debug, lambda file: drawn.save(file, "jpeg", quality=90), durably=False)
    box = interest.crop_box(original, rules.size)
    return [replace(crop, box=box) if crop.method == "focal" else crop for crop in crops]


@dataclass(frozen=True)
class Layers:
    """A picture, its alpha channel and its mask, each perhaps smaller than the source, whose size is `original`."""

    picture: Image.Image
    alpha: Image.Image | None
    mask: Image.Image | None
    original: Size

    def crop(self, crop: Crop) -> tuple[Image.Image, Image.Image | None]:
        """The part as a picture (RGB, or RGBA where alpha is kept) and as a mask (L)."""
        picture = _part(self.picture, self.original, crop)
        if self.alpha:
            picture.putalpha(_part(self.alpha, self.original, crop))
        return picture, self.mask and _part(self.mask, self.original, crop)


def _part(image: Image.Image, original: Size, crop: Crop) -> Image.Image:
    x, y = image.width / original[0], image.height / original[1]
    left, top, right, bottom = crop.box
    box = (left * x, top * y, min(right * x, image.width), min(bottom * y, image.height))
    return image.resize(crop.size, Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)


def _write_crops(job: CutJob, layers: Layers, crops: list[Crop]) -> tuple[list[CutFile], list[str]]:
    files: list[CutFile] = []
    notes: list[str] = []
    with _none_left_behind(files):
        for number, crop in enumerate(crops, 1):
            picture, mask = layers.crop(crop)
            if mask and not mask.getbbox():
                notes.append(f"has nothing of its mask in crop {number}, which is left out")
                continue
            for mirrored in (False, True) if job.rules.flip else (False,):
                path = job.folder / f"{job.prefix}-{len(files)}-{job.stem}.png"
                files.append(CutFile(path, crop.size, crop, mirrored))
                turned = ImageOps.mirror if mirrored else _as_it_is
                write_picture(path, turned(picture))
                if mask:
                    write_picture(mask_path(path), turned(mask))
                else:
                    mask_path(path).unlink(missing_ok=True)  # of an earlier run, when there was one
                if job.write_captions and job.existing is not None:
                    write_caption(path, job.existing)
    return files, notes


def _as_it_is(picture: Image.Image) -> Image.Image:
    return picture


@contextlib.contextmanager
def _none_left_behind(files: list[CutFile]) -> Iterator[None]:
    """When writing fails, take back what was written."""
    try:
        yield
    except BaseException:
        for file in files:
            remove_crop(file.path)
        raise


def _notes(facts: PictureFacts, crops: list[Crop]) -> Iterator[str]:
    if facts.frames > 1:
        yield f"has {facts.frames} frames, of which only the first is used"
    enlarged = max(crop.scale for crop in crops)
    if enlarged >= 1.05:
        yield f"is {facts.size[0]}×{facts.size[1]}, so that a crop is enlarged {enlarged:.1f} times"


def _scaled(size: Size, scale: float) -> Size:
    return math.ceil(size[0] * scale), math.ceil(size[1] * scale)


def _fingerprint(job: CutJob) -> str:
    # An empty caption is not none; the blank is no other one's, since captions have none around them.
    caption = "" if job.existing is None else job.existing or " "
    parts = [_digest(job.path), _digest(job.mask) if job.mask else "", caption]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise UnreadablePictureError("is empty (0 bytes)")
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UnreadablePictureError(error.strerror or str(error)) from error
