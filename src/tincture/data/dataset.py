"""A folder of pictures as training samples."""

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

from tincture.data.captions import caption_for
from tincture.data.masks import read_mask
from tincture.data.pictures import UnreadablePictureError, read_picture
from tincture.data.sizes import Fit, own, stretch
from tincture.errors import DataError, UsageError

# What lies beside pictures without being meant as one. Everything else is tried: an ending says little of a content.
NO_PICTURES = frozenset(
    {".txt", ".caption", ".json", ".jsonl", ".csv", ".tsv", ".md", ".toml", ".yaml", ".yml", ".xml", ".html", ".log"}
    | {".py", ".ini", ".db", ".zip", ".npy", ".npz", ".pt", ".safetensors", ".ckpt", ".bin", ".optim"}
)


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

    @property
    def fit(self) -> Fit:
        return Fit((self.width, self.height), self.scaled_size, self.crop)


class PictureDataset(Sequence[Sample]):
    """Pictures with captions. Pixels are read from the files when they are asked for, and not kept.

    Attributes:
        samples: in the order of their file names.
        skipped: files that could not be used, each with the reason.
    """

    def __init__(self, samples: Sequence[Sample], skipped: Sequence[tuple[Path, str]] = ()) -> None:
        self.samples = tuple(samples)
        self.skipped = list(skipped)
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
        """SHA-256 (hexadecimal) over the samples' file contents and captions, in order; names and sizes don't count.

        The files are read once; later calls give the same answer.

        Raises:
            DataError: a file has become unreadable.
        """
        if not self._digest:
            total = hashlib.sha256()
            for sample in self.samples:
                # The caption is hashed by itself, so that the parts cannot run into each other.
                total.update(_file_digest(sample.path) + hashlib.sha256(sample.caption.encode()).digest())
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
    folder: str | Path,
    *,
    width: int,
    height: int,
    varsize: bool = False,
    stride: int = 8,
    word_regex: str = "",
    join_string: str = " ",
) -> PictureDataset:
    """The pictures that lie in `folder` itself (not in folders inside it), with their captions (see `caption_for`).

    Every picture is decoded once, so that damaged ones are found now and not in the middle of a run. Hidden files and
    files that plainly are no pictures (`NO_PICTURES`) are passed over.

    Args:
        width: Pixels, a multiple of `stride`. Every picture is resized to width × height, whatever its proportions.
        height: Likewise.
        varsize: Keep every picture's own size instead; what exceeds a multiple of `stride` is cropped evenly off the
            edges.
        stride: Pixels per cell of the latents.

    Raises:
        DataError: the folder cannot be read, or holds no picture that can be used.
        UsageError: a size or the regex is not allowed.
    """
    _check_size("width", width, stride)
    _check_size("height", height, stride)
    samples: list[Sample] = []
    skipped: list[tuple[Path, str]] = []
    for path in _candidates(Path(folder)):
        try:
            picture, _ = read_picture(path)
            fit = own(picture.size, stride) if varsize else stretch((width, height))
            if 0 in fit.size:
                raise UnreadablePictureError(f"is {picture.width}×{picture.height}, smaller than {stride} pixels")
            caption = caption_for(path, word_regex, join_string)
            samples.append(Sample(path, caption, *fit.size, picture.size, fit.scaled, fit.crop))
        except (UnreadablePictureError, DataError) as error:
            skipped.append((path, str(error)))
    if not samples:
        raise DataError(_nothing_usable(folder, skipped))
    return PictureDataset(samples, skipped)


def _check_size(name: str, size: int, stride: int) -> None:
    if size < stride or size % stride:
        near = max(_floor(size, stride), stride)
        raise UsageError(
            f"The pictures' {name} is {size}, but must be a multiple of {stride}, such as {near} or {near + stride}."
        )


def _floor(size: int, stride: int) -> int:
    return size - size % stride


def _candidates(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except FileNotFoundError:
        raise DataError(f"The picture folder {folder} does not exist. Check the path.") from None
    except NotADirectoryError:
        raise DataError(f"{folder} is a file. Give the folder that holds the pictures.") from None
    except OSError as error:
        raise DataError(f"The picture folder {folder} cannot be read: {error.strerror}.") from error
    visible = (path for path in entries if not path.name.startswith(".") and path.suffix.lower() not in NO_PICTURES)
    # Neither folders nor pipes, which would keep the reader waiting; but links that lead nowhere, to be named.
    return [path for path in visible if path.is_file() or (path.is_symlink() and not path.exists())]


def _nothing_usable(folder: str | Path, skipped: Sequence[tuple[Path, str]]) -> str:
    if not skipped:
        return f"There are no pictures in the folder {folder}. Put some into it (PNG, JPEG, WebP, ...)."
    reasons = "; ".join(f"{path.name}: {reason}" for path, reason in skipped)
    return f"None of the pictures in the folder {folder} can be used. {reasons}."


def _file_digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise DataError(f"The picture {path} cannot be read any more: {error.strerror}.") from error


def _tensor(image: Image.Image) -> Tensor:
    """0..1, float32: (height, width, 3) of an RGB picture, (height, width) of a grey one."""
    return torch.from_numpy(np.array(image)).float() / 255
