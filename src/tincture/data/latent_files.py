"""Latents on disk: what one run has encoded, a later one reads.

One file per sample. Its name is the sha256 of the picture's content, and a hash of all else that decides the latents:
how the picture is fitted, whether it is mirrored, and what encodes it. What a file says that it is for must agree with
that, and its numbers must be sound; otherwise it is as good as none, and is written anew.

Any number of runs may share a folder at a time, and it may be deleted at any time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections import defaultdict
from pathlib import Path

import PIL
import torch
from torch import Tensor

from tincture.data.dataset import Sample
from tincture.data.picture_check import PictureCheck, check_picture
from tincture.errors import FileFormatError, StorageError, UsageError
from tincture.formats.checked_file import read_checked, write_checked
from tincture.formats.files import sha256_file
from tincture.formats.temporary_file import sweep

SUFFIX = ".latents"
# To be counted up whenever one and the same file gives other pixels than it did.
_PIXELS_VERSION = 2
# No model is trained on anything near: latents of 16,384 × 16,384 pixels are 128 MiB.
_LARGEST = 512 * 2**20

Moments = tuple[Tensor, Tensor]
"""Mean and standard deviation of a picture's latents, each (channels, h, w) float32."""


class LatentFiles:
    """A folder of encoded pictures. That it fails is no reason for a run to fail: it becomes a remark.

    Args:
        folder: is made when the first file is written.
        encoder: what decides the latents apart from the pictures, such as ``vae_hash`` and the kind of device.
        latent_channels: of the encoder.
        stride: pixels per cell of the latents.

    Raises:
        UsageError: ``folder`` is a file.
    """

    def __init__(self, folder: str | Path, encoder: str, *, latent_channels: int = 4, stride: int = 8) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError(f"The cache folder {folder} is a file; give a folder by --cache-dir, or leave it out.")
        # Other releases may decode and compute with other last bits.
        self.encoder = f"{encoder}, torch {torch.__version__}, Pillow {PIL.__version__}"
        self.latent_channels, self.stride = latent_channels, stride
        self._checks: dict[str, PictureCheck] = {}
        self._listed: dict[Path, defaultdict[str, list[Path]]] = {}
        self._damaged = 0
        self._failure = ""

    def remarks(self) -> list[str]:
        """What went wrong so far, in sentences."""
        remarks = [f"No more latents are kept for later runs: {self._failure}"] if self._failure else []
        if self._damaged:
            pictures = f"{self._damaged} picture" + ("s" if self._damaged > 1 else "")
            remarks.append(
                f"The folder {self.folder} had damaged latents of {pictures}, which were encoded again; if that "
                "happens more than once, check the disk."
            )
        return remarks

    def check(self, path: Path) -> PictureCheck:
        """As ``check_picture``, with the digest. A picture of which there are any latents can be read: no decoding.

        Raises:
            UnreadablePictureError: it cannot be read.
        """
        try:
            digest = sha256_file(path)
        except (FileFormatError, StorageError):
            return check_picture(path)  # which says why in its own words
        if digest not in self._checks:
            check = self._stored_check(digest) or check_picture(path, digest)
            self._checks[digest] = dataclasses.replace(check, decoded=None)
            return check
        return self._checks[digest]

    def read(self, sample: Sample) -> Moments | None:
        """The latents of ``sample``, on the CPU, or None where no sound ones are kept."""
        path = self._path(sample)
        if not sample.digest or not os.path.exists(path):
            return None
        shape = (self.latent_channels, sample.height // self.stride, sample.width // self.stride)
        try:
            tensors, metadata = read_checked(path, _LARGEST)
        except (FileFormatError, StorageError) as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None  # another run, or its user, has just deleted it
            tensors, metadata = {}, {}
        mean, std = tensors.get("mean"), tensors.get("std")
        if metadata.get("what") != self._what(sample) or not (_is_sound(mean, shape) and _is_sound(std, shape)):
            self._damaged += 1
            return None
        assert mean is not None and std is not None
        return mean, std

    def write(self, sample: Sample, mean: Tensor, std: Tensor) -> None:
        """Keeps the latents of ``sample``, each (channels, h, w) float32.

        Those of a picture that has changed since it was checked are not kept, nor is anything after a failure.
        """
        if self._failure or not sample.digest:
            return
        metadata = {"digest": sample.digest, "what": self._what(sample)}
        if check := self._checks.get(sample.digest):
            metadata["size"] = json.dumps(check.size)
        try:
            if sha256_file(sample.path) == sample.digest:
                write_checked(self._path(sample), {"mean": mean, "std": std}, metadata)
        except (FileFormatError, StorageError) as error:
            self._failure = str(error)

    def _what(self, sample: Sample) -> str:
        fit = [[sample.width, sample.height], sample.scaled_size, sample.crop, sample.flip]
        return json.dumps([_PIXELS_VERSION, sample.digest, *fit, self.encoder])

    def _path(self, sample: Sample) -> Path:
        name = f"{sample.digest}-{hashlib.sha256(self._what(sample).encode()).hexdigest()[:16]}{SUFFIX}"
        return self.folder / name[:2] / name

    def _stored_check(self, digest: str) -> PictureCheck | None:
        shard = self.folder / digest[:2]
        if shard not in self._listed:
            sweep(shard)
            self._listed[shard] = defaultdict(list)
            for name in _names_in(shard):
                self._listed[shard][name[: len(digest)]].append(shard / name)
        for path in self._listed[shard].get(digest, []):
            try:
                _, metadata = read_checked(path, _LARGEST)
                width, height = (_positive(side) for side in json.loads(metadata["size"]))
            except (FileFormatError, StorageError, KeyError, ValueError, TypeError):
                continue
            if metadata.get("digest") == digest:
                return PictureCheck((width, height), digest)
        return None


def _positive(side: object) -> int:
    if type(side) is not int or side < 1:
        raise ValueError(f"{side!r} is no number of pixels")
    return side


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith(SUFFIX))
    except OSError:
        return []


def _is_sound(latents: Tensor | None, shape: tuple[int, ...]) -> bool:
    if latents is None or latents.shape != shape or latents.dtype != torch.float32:
        return False
    return bool(torch.isfinite(latents).all())
