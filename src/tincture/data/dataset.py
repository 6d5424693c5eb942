"""Folders of pictures as training samples."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, overload

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from tincture.data.captions import caption_for
from tincture.data.masks import MaskFinder, check_mask, read_mask
from tincture.data.picture_check import Look, look_at
from tincture.data.pictures import UnreadablePictureError, read_picture
from tincture.data.sizes import Buckets, Fit, Size, fitting
from tincture.data.sources import Found, Source, list_pictures, name_some
from tincture.errors import DataError

MOST_REASONS = 20
"""Of so many files it is told why they cannot be used, when none can."""

T = TypeVar("T")


@dataclass(frozen=True)
class Sample:
    """A picture with its caption, and how it is trained. Sizes are (width, height) in pixels.

    Attributes:
        width, height: what it is trained in.
        original_size: that of the upright picture in the file.
        scaled_size: what it is resized to, before it is cropped to width × height.
        crop: (left, top) of the part that is trained, in pixels of the resized picture, before it is mirrored.
        flip: whether it is mirrored left to right. A mirrored picture is a sample of its own.
        mask: its mask picture, which goes before an alpha channel.
        repeats: how often it comes in an epoch.
        digest: the sha256 of the picture's file, 64 hex digits; "" where nobody asked.
    """

    path: Path
    caption: str
    width: int
    height: int
    original_size: tuple[int, int]
    scaled_size: tuple[int, int]
    crop: tuple[int, int] = (0, 0)
    flip: bool = False
    mask: Path | None = None
    repeats: int = 1
    digest: str = ""

    @property
    def fit(self) -> Fit:
        return Fit((self.width, self.height), self.scaled_size, self.crop)


class PictureDataset(Sequence[Sample]):
    """Pictures with captions. Pixels are read from the files when they are asked for, and not kept.

    Attributes:
        samples: in the order of their file names.
        skipped: files that could not be used, each with the reason.
        remarks: sentences about what is odd, but can be used.
    """

    def __init__(
        self, samples: Sequence[Sample], skipped: Sequence[tuple[Path, str]] = (), remarks: Sequence[str] = ()
    ) -> None:
        self.samples = tuple(samples)
        self.skipped = list(skipped)
        self.remarks = list(remarks)
        self._digest = ""

    def __len__(self) -> int:
        return len(self.samples)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Sample, ...]: ...
    def __getitem__(self, index: int | slice) -> Sample | tuple[Sample, ...]:
        return self.samples[index]

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def pictures(self) -> int:
        """How many pictures there are, without their mirrored copies."""
        return sum(not sample.flip for sample in self.samples)

    def repeats(self) -> list[int]:
        """How often each sample comes in an epoch."""
        return [sample.repeats for sample in self.samples]

    def sizes(self) -> list[tuple[int, int]]:
        """(width, height) of every sample, in pixels."""
        return [(sample.width, sample.height) for sample in self.samples]

    def pixels(self, index: int) -> Tensor:
        """(3, height, width) float32 in -1..1.

        Raises:
            DataError: the file has become unreadable.
        """
        sample = self.samples[index]
        picture, _ = self._read(sample.path, read_picture)
        return _tensor(_fitted(picture, sample)).permute(2, 0, 1).contiguous() * 2 - 1

    def alpha(self, index: int) -> Tensor | None:
        """(height, width) float32 in 0..1, where 0 is transparent; None for a picture without an alpha channel.

        Raises:
            DataError: the file has become unreadable.
        """
        sample = self.samples[index]
        _, alpha = self._read(sample.path, read_picture)
        return None if alpha is None else _tensor(_fitted(alpha, sample))

    def mask(self, index: int) -> Tensor | None:
        """(height, width) float32 in 0..1, where 1 is to be learned: the mask picture if there is one, else alpha.

        None for a picture with neither.

        Raises:
            DataError: the file has become unreadable.
        """
        sample = self.samples[index]
        if sample.mask is None:
            return self.alpha(index)
        return _tensor(_fitted(self._read(sample.mask, read_mask), sample))

    def digest(self) -> str:
        """SHA-256 (hexadecimal) of what is learned from: pictures, captions, masks, repeats and mirroring, in order.

        Names don't count, nor do sizes, which follow from the pictures and the settings. The files are read once;
        later calls give the same answer.

        Raises:
            DataError: a file has become unreadable.
        """
        if not self._digest:
            total = hashlib.sha256()
            digest_of = functools.cache(_file_digest)  # a picture and its mirrored sample share files
            for sample in self.samples:
                # The caption is hashed by itself, so that the parts cannot run into each other.
                digest = bytes.fromhex(sample.digest) or digest_of(sample.path)
                total.update(digest + hashlib.sha256(sample.caption.encode()).digest())
                if sample.mask or sample.flip or sample.repeats != 1:
                    mask = digest_of(sample.mask).hex() if sample.mask else ""
                    total.update(hashlib.sha256(f"{mask} {sample.flip} {sample.repeats}".encode()).digest())
            self._digest = total.hexdigest()
        return self._digest

    def _read(self, path: Path, read: Callable[[Path], T]) -> T:
        try:
            return read(path)
        except UnreadablePictureError as error:
            raise DataError(f"The picture {path} cannot be read any more: {error}.") from error


def _fitted(image: Image.Image, sample: Sample) -> Image.Image:
    fitted = sample.fit.apply(image)
    return ImageOps.mirror(fitted) if sample.flip else fitted


def load_dataset(
    folders: str | Path | Sequence[str | Path],
    *,
    width: int,
    height: int,
    resize: str = "stretch",
    varsize: bool = False,
    buckets: Buckets | None = None,
    skip_small: bool = False,
    recursive: bool = False,
    folder_repeats: bool = False,
    flip: bool = False,
    masks: str | Path | None = None,
    stride: int = 8,
    word_regex: str = "",
    join_string: str = " ",
    caption_encoding: str = "utf-8",
    look: Callable[[Path], Look] = look_at,
) -> PictureDataset:
    """The pictures of one or more folders, with their captions (see `caption_for` and `read_metadata`).

    Every picture and mask is decoded once, so that damaged ones are found now and not in the middle of a run. A picture
    whose caption or mask cannot be used is skipped: it would be learned under a wrong name, or with what the mask was
    to hide. Which files are tried, `list_pictures` says.

    Args:
        folders: each as `Source.parse` takes it: "FOLDER", or "FOLDER:3" for three times an epoch.
        width: Pixels, a multiple of `stride`.
        height: Likewise.
        resize: "stretch" to width × height, whatever a picture's proportions, or "crop" to these proportions.
        varsize: Keep every picture's own size instead; what exceeds a multiple of `stride` is cropped evenly off the
            edges.
        buckets: Crop every picture to that one of these sizes that fits it best, instead.
        skip_small: Skip pictures that would have to be enlarged.
        recursive: Take the pictures in inner folders too.
        folder_repeats: Take the number of a folder called like "10_rex" as repeats.
        flip: Add every picture mirrored left to right, after it.
        masks: The folder of masks; empty: folders "mask" beside the pictures; None: without masks.
        stride: Pixels per cell of the latents.
        look: What asks for a picture's size, and decodes it for that; `LatentFiles.look` spares that where it can.

    Raises:
        DataError: a folder cannot be read, or there is no picture that can be used.
        UsageError: a size, the regex, the encoding or a number of repeats is not allowed.
    """
    fit = fitting(width, height, resize=resize, varsize=varsize, buckets=buckets, stride=stride)
    finder = None if masks is None else MaskFinder(masks)

    def sample(found: Found) -> Sample:
        mask = finder.find(found.path, found.root) if finder else None
        picture = look(found.path)
        fitted = fit(picture.size)
        _check_fit(picture.size, fitted, stride, skip_small)
        if mask:
            check_mask(mask, picture.size, fitted)
        caption = caption_for(found.path, word_regex, join_string, encoding=caption_encoding, otherwise=found.caption)
        return Sample(
            found.path,
            caption,
            *fitted.size,
            original_size=picture.size,
            scaled_size=fitted.scaled,
            crop=fitted.crop,
            mask=mask,
            repeats=found.repeats,
            digest=picture.digest,
        )

    sources = [Source.parse(text) for text in ([folders] if isinstance(folders, str | Path) else folders)]
    listings = [list_pictures(source, recursive=recursive, folder_repeats=folder_repeats) for source in sources]
    samples, skipped = _usable([found for listing in listings for found in listing.found], sample)
    if not samples:
        raise DataError(_nothing_usable([source.folder for source in sources], skipped))
    remarks = [remark for listing in listings for remark in listing.remarks]
    remarks += _remarks(samples, finder)
    if flip:
        samples = [both for sample in samples for both in (sample, dataclasses.replace(sample, flip=True))]
    return PictureDataset(samples, skipped, remarks)


def _usable(found: Sequence[Found], sample: Callable[[Found], Sample]) -> tuple[list[Sample], list[tuple[Path, str]]]:
    samples, skipped = [], []
    for file in found:
        try:
            samples.append(sample(file))
        except (UnreadablePictureError, DataError) as error:
            skipped.append((file.path, str(error)))
    return samples, skipped


def _check_fit(original: Size, fit: Fit, stride: int, skip_small: bool) -> None:
    if 0 in fit.size:
        raise UnreadablePictureError(f"is {original[0]}×{original[1]}, smaller than {stride} pixels")
    if skip_small and fit.enlarges(original):
        raise UnreadablePictureError(f"is {original[0]}×{original[1]}, too small for {fit.size[0]}×{fit.size[1]}")


def _remarks(samples: Sequence[Sample], finder: MaskFinder | None) -> list[str]:
    enlarged = [sample.path.name for sample in samples if sample.fit.enlarges(sample.original_size)]
    unmasked = [sample.path.name for sample in samples if sample.mask is None]
    unused = [path.name for path in finder.unused()] if finder else []
    remarks = []
    if enlarged:
        remarks.append(f"Smaller than they are trained in, and so enlarged: {name_some(enlarged)}.")
    if finder and len(unmasked) < len(samples) and unmasked:
        remarks.append(f"Without a mask picture, unlike others: {name_some(unmasked)}.")
    if unused:
        remarks.append(f"Masks that belong to no picture: {name_some(unused)}.")
    return remarks


def _nothing_usable(folders: Sequence[Path], skipped: Sequence[tuple[Path, str]]) -> str:
    where = ", ".join(map(str, folders))
    if not skipped:
        return f"There are no pictures in the folder {where}. Put some into it (PNG, JPEG, WebP, ...)."
    reasons = "; ".join(f"{path.name}: {reason}" for path, reason in skipped[:MOST_REASONS])
    more = f"; and {len(skipped) - MOST_REASONS} more" if len(skipped) > MOST_REASONS else ""
    return f"None of the pictures in the folder {where} can be used. {reasons}{more}."


def _file_digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise DataError(f"The picture {path} cannot be read any more: {error.strerror}.") from error


def _tensor(image: Image.Image) -> Tensor:
    """0..1, float32: (height, width, 3) of an RGB picture, (height, width) of a grey one."""
    return torch.from_numpy(np.array(image)).float() / 255
