"""The samples of a run: pictures with captions, sizes and masks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, overload

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from tincture.data.decoded import DecodedPictures
from tincture.data.fitting import Fit
from tincture.data.masks import read_mask
from tincture.data.picture_files import UnreadablePictureError, read_picture
from tincture.errors import DataError

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
        root: the folder that was given, in which it was found.
        is_captioned: whether somebody gave it its caption, be it a model; else it is its name's.
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
    root: Path = Path()
    is_captioned: bool = True

    @property
    def fit(self) -> Fit:
        return Fit((self.width, self.height), self.scaled_size, self.crop)


class PictureDataset(Sequence[Sample]):
    """Pictures with captions. Pixels that were not kept when they were decoded are read from the files when asked for.

    Args:
        decoded: what was kept.

    Attributes:
        samples: in the order of their file names.
        skipped: files that could not be used, each with the reason.
        remarks: sentences about what is odd, but can be used.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        skipped: Sequence[tuple[Path, str]] = (),
        remarks: Sequence[str] = (),
        decoded: DecodedPictures | None = None,
    ) -> None:
        self.samples = tuple(samples)
        self.skipped = list(skipped)
        self.remarks = list(remarks)
        self._decoded = decoded or DecodedPictures()
        self._digest = ""
        self._digests: dict[Path, bytes] = {}

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

    def part(self, samples: Sequence[Sample], remarks: Sequence[str] = ()) -> PictureDataset:
        """Some of its samples as a data set of their own, with what is known and was decoded of them."""
        found = PictureDataset(samples, self.skipped, remarks, self._decoded)
        found._digests = self._digests
        return found

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
        fitted = self._decoded.picture(sample.path, sample.fit)
        if fitted is None:
            picture, _ = self._read(sample.path, read_picture)
            fitted = sample.fit.apply(picture)
            self._decoded.add_picture(sample.path, sample.fit, fitted)
        return _tensor(_turned(fitted, sample)).permute(2, 0, 1).contiguous() * 2 - 1

    def release_pixels(self) -> None:
        """Gives the memory of pixels that wait for `pixels` back; from now on they are read from the files."""
        self._decoded.release_pictures()

    def mask(self, index: int) -> Tensor | None:
        """(height, width) float32 in 0..1, where 1 is to be learned: the mask picture if there is one, else alpha.

        None for a picture with neither. Of masks that were loaded with the pictures, no file is opened.

        Raises:
            DataError: the file has become unreadable.
        """
        sample = self.samples[index]
        path, fit = sample.mask or sample.path, sample.fit
        if not self._decoded.knows_mask(path, fit):
            found = self._read(path, read_mask if sample.mask else _alpha)
            self._decoded.add_mask(path, fit, found and fit.apply(found))
        fitted = self._decoded.mask(path, fit)
        return None if fitted is None else _tensor(_turned(fitted, sample))

    def digest(self) -> str:
        """SHA-256 (hexadecimal) of what is learned from: pictures, captions, masks, repeats and mirroring, in order.

        Names don't count, nor do sizes, which follow from the pictures and the settings. The files are read once;
        later calls give the same answer.

        Raises:
            DataError: a file has become unreadable.
        """
        if not self._digest:
            total = hashlib.sha256()
            for sample in self.samples:
                # The caption is hashed by itself, so that the parts cannot run into each other.
                digest = bytes.fromhex(self.content(sample))
                total.update(digest + hashlib.sha256(sample.caption.encode()).digest())
                if sample.mask or sample.flip or sample.repeats != 1:
                    mask = self._file_digest(sample.mask).hex() if sample.mask else ""
                    total.update(hashlib.sha256(f"{mask} {sample.flip} {sample.repeats}".encode()).digest())
            self._digest = total.hexdigest()
        return self._digest

    def content(self, sample: Sample) -> str:
        """The sha256 (hexadecimal) of a sample's picture file, which is read once; DataError as ``digest``."""
        return sample.digest or self._file_digest(sample.path).hex()

    def _file_digest(self, path: Path) -> bytes:
        if path not in self._digests:  # a picture and its mirrored sample share files
            self._digests[path] = _file_digest(path)
        return self._digests[path]

    def _read(self, path: Path, read: Callable[[Path], T]) -> T:
        try:
            return read(path)
        except UnreadablePictureError as error:
            raise DataError(f"The picture {path} cannot be read any more: {error}.") from error


def _turned(fitted: Image.Image, sample: Sample) -> Image.Image:
    return ImageOps.mirror(fitted) if sample.flip else fitted


def _alpha(path: Path) -> Image.Image | None:
    return read_picture(path)[1]


def _file_digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise DataError(f"The picture {path} cannot be read any more: {error.strerror}.") from error


def _tensor(image: Image.Image) -> Tensor:
    """0..1, float32: (height, width, 3) of an RGB picture, (height, width) of a grey one."""
    return torch.from_numpy(np.array(image)).float() / 255
