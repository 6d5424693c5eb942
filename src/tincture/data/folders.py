"""Folders of pictures -> samples, each picture and mask decoded once for all that a run needs of it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tincture.data.captions import caption_in, caption_in_name
from tincture.data.dataset import PictureDataset, Sample
from tincture.data.decoded import DecodedPictures
from tincture.data.fitting import Buckets, Fit, Size, fitting
from tincture.data.listing import (
    PictureFile,
    Source,
    caption_remarks,
    inner_remarks,
    list_pictures,
    name_some,
    no_pictures,
)
from tincture.data.mask_files import MaskFinder
from tincture.data.masks import checked_mask, read_mask
from tincture.data.picture_check import PictureCheck, check_picture
from tincture.data.picture_files import UnreadablePictureError, read_picture
from tincture.errors import DataError
from tincture.formats.files import sha256_file

MOST_REASONS = 20
"""Of so many files it is said why they cannot be used, when none can."""


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
    described: Mapping[str, str] = MappingProxyType({}),
    check: Callable[[Path], PictureCheck] = check_picture,
    keep_pixels: int = 0,
) -> PictureDataset:
    """The pictures of one or more folders, with their captions (see `caption_for` and `read_metadata`).

    Every picture and mask is decoded, so that damaged ones are found now and not in the middle of a run; what the run
    needs of them is kept from this (see `DecodedPictures`). A picture
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
        described: By the sha256 of their files, captions of pictures that have none (see `has_caption`).
        check: What finds a picture's size, and decodes it for that; `LatentFiles.check` spares that where it can.
        keep_pixels: Bytes of pixels that stay from this for the first time that the pictures are encoded.

    Raises:
        DataError: a folder cannot be read, or there is no picture that can be used.
        UsageError: a size, the regex, the encoding or a number of repeats is not allowed.
    """
    reader = _SampleReader(
        fit=fitting(width, height, resize=resize, varsize=varsize, buckets=buckets, stride=stride),
        stride=stride,
        skip_small=skip_small,
        finder=None if masks is None else MaskFinder(masks),
        captions=_Captions(word_regex, join_string, caption_encoding, described),
        check=check,
        decoded=DecodedPictures(keep_pixels),
    )
    sources = [Source.parse(text) for text in ([folders] if isinstance(folders, str | Path) else folders)]
    roots = [source.folder for source in sources]
    listings = [list_pictures(source, recursive=recursive, folder_repeats=folder_repeats) for source in sources]
    files = [file for listing in listings for file in listing.files]
    samples, skipped = _usable(files, reader.sample)
    if not samples:
        raise DataError(_nothing_usable(roots, skipped))
    remarks = [remark for listing in listings for remark in listing.remarks]
    remarks += caption_remarks(listings) + ([] if recursive else inner_remarks(roots, files))
    remarks += _remarks(samples, reader.finder)
    if flip:
        samples = [both for sample in samples for both in (sample, dataclasses.replace(sample, flip=True))]
    return PictureDataset(samples, skipped, remarks, reader.decoded)


def has_caption(file: PictureFile, word_regex: str = "") -> bool:
    """Whether somebody gave a file a caption: its name counts as one where a regular expression finds words in it."""
    return file.has_caption or bool(word_regex and caption_in_name(file.path, word_regex))


@dataclass(frozen=True)
class _Captions:
    """What the pictures are called; the arguments are those of `load_dataset`."""

    word_regex: str
    join_string: str
    encoding: str
    described: Mapping[str, str]

    def of(self, file: PictureFile, digest: str) -> tuple[str, bool]:
        """The caption of a file, and whether somebody gave it.

        Args:
            digest: the sha256 of the file, where it is known.
        """
        given = has_caption(file, self.word_regex)
        if not given and self.described:
            text = self.described.get(digest or sha256_file(file.path))
            if text is not None:
                return text, True
        text = caption_in(
            *(file.text_file, file.path, self.word_regex, self.join_string),
            encoding=self.encoding,
            otherwise=file.caption,
        )
        return text, given


@dataclass
class _SampleReader:
    """Makes a sample of a file, and keeps what it decodes on the way."""

    fit: Callable[[Size], Fit]
    stride: int
    skip_small: bool
    finder: MaskFinder | None
    captions: _Captions
    check: Callable[[Path], PictureCheck]
    decoded: DecodedPictures

    def __post_init__(self) -> None:
        # Only what is small: of a picture that several folders show, neither decoded nor checked again.
        self._checked: dict[Path, PictureCheck] = {}
        # fox.jpg and fox.png, one after the other, have one mask.
        self._read_mask = functools.lru_cache(maxsize=1)(read_mask)

    def sample(self, file: PictureFile) -> Sample:
        """The sample of a file; UnreadablePictureError or DataError says why there is none."""
        mask = self.finder.find(file.path, file.root) if self.finder else None
        known = self._checked.get(file.path)
        check = known or self.check(file.path)
        fit = self.fit(check.size)
        _check_fit(check.size, fit, self.stride, self.skip_small)
        if mask and not (known and self.decoded.knows_mask(mask, fit)):
            _, fitted = checked_mask(mask, check.size, fit, self._read_mask)
            self.decoded.add_mask(mask, fit, fitted)
        caption, is_captioned = self.captions.of(file, check.digest)
        self._keep(file.path, check, fit, with_alpha=self.finder is not None and mask is None)
        return Sample(
            file.path,
            caption,
            *fit.size,
            original_size=check.size,
            scaled_size=fit.scaled,
            crop=fit.crop,
            mask=mask,
            repeats=file.repeats,
            digest=check.digest,
            root=file.root,
            is_captioned=is_captioned,
        )

    def _keep(self, path: Path, check: PictureCheck, fit: Fit, *, with_alpha: bool) -> None:
        self._checked[path] = dataclasses.replace(check, decoded=None)
        decoded = check.decoded
        if decoded is None and with_alpha and not self.decoded.knows_mask(path, fit):
            decoded = read_picture(path)
        if decoded is None:
            return
        picture, alpha = decoded
        if self.decoded.has_room(fit):
            self.decoded.add_picture(path, fit, fit.apply(picture))
        if with_alpha:
            self.decoded.add_mask(path, fit, alpha and fit.apply(alpha))


def _usable(
    files: Sequence[PictureFile], sample: Callable[[PictureFile], Sample]
) -> tuple[list[Sample], list[tuple[Path, str]]]:
    samples, skipped = [], []
    for file in files:
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
        return no_pictures(folders)
    reasons = "; ".join(f"{path.name}: {reason}" for path, reason in skipped[:MOST_REASONS])
    more = f"; and {len(skipped) - MOST_REASONS} more" if len(skipped) > MOST_REASONS else ""
    return f"None of the pictures in the folder {where} can be used. {reasons}{more}."
