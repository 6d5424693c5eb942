"""Every picture encoded once; latents drawn from what was kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from tincture import randomness
from tincture.data.dataset import PictureDataset
from tincture.data.latent_files import LatentFiles, Moments
from tincture.errors import UsageError
from tincture.processes.ranks import ALONE, Processes

_PIXELS_AT_ONCE = 2**19
_PER_ROUND = 16
"""Pictures that each of several processes encodes before they hand each other what they have."""
SAMPLING_METHODS = ("once", "deterministic", "random")


class PictureEncoder(Protocol):
    """What is needed of a model."""

    @property
    def device(self) -> torch.device: ...

    def encode_pictures(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, each (B, 4, h, w), of the latents of pixels (B, 3, H, W) in -1..1."""


class LatentCache:
    """Mean and standard deviation of every picture's latents, each (4, h, w) float32, kept on the model's device."""

    def __init__(self, means: Sequence[Tensor], stds: Sequence[Tensor], seed: int = 0) -> None:
        self.means, self.stds, self.seed = means, stds, seed
        self._once: dict[int, Tensor] = {}

    @classmethod
    def encode(
        cls,
        model: PictureEncoder,
        dataset: PictureDataset,
        *,
        batch_size: int | None = None,
        seed: int = 0,
        on_progress: Callable[[int, int], None] | None = None,
        files: LatentFiles | None = None,
        processes: Processes = ALONE,
    ) -> LatentCache:
        """Encodes each picture of `dataset` once; pixels that it kept for this are released.

        Args:
            batch_size: Pictures per call of the encoder; those of different sizes never share one. Not given, it is
                what `pictures_at_once` says.
            seed: Of the latents that the sampling method "once" draws.
            on_progress: Is told how many pictures are done, and how many there are.
            files: Holds latents of earlier runs, which are not encoded again, and keeps the others.
            processes: Share the pictures out, and hand each other what came of them.
        """
        encoded: dict[int, Moments] = {}

        def advance(made: Mapping[int, Moments]) -> None:
            encoded.update(made)
            if made and on_progress:
                on_progress(len(encoded), len(dataset))

        for indices in _rounds(len(dataset), processes.world_size):
            made = _encoded(model, dataset, processes.share(indices), batch_size, files)
            for part in made if processes.world_size == 1 else _exchanged(processes, made, model.device):
                advance(part)
        dataset.release_pixels()
        means, stds = zip(*(encoded[index] for index in range(len(dataset))), strict=True)
        return cls(means, stds, seed)

    def __len__(self) -> int:
        return len(self.means)

    def shape(self, index: int) -> tuple[int, ...]:
        """(4, h, w) of a picture's latents."""
        return tuple(self.means[index].shape)

    def sample(self, indices: Sequence[int], method: str, noise: Callable[[int], Tensor]) -> Tensor:
        """Latents (B, 4, h, w) float32 of pictures of one size, on the model's device.

        Args:
            method: "once": one sample per picture, drawn by the cache's seed and the picture's index, always the same;
                "deterministic": the mean; "random": a sample drawn with `noise`.
            noise: Position in `indices` -> standard normal numbers (4, h, w). Asked by "random" only.

        Raises:
            UsageError: `method` is none of these.
        """
        if method == "once":
            return torch.stack([self._drawn_once(index) for index in indices])
        if method not in SAMPLING_METHODS:
            raise UsageError(
                f"The latent sampling method is {method!r}, but must be one of {', '.join(SAMPLING_METHODS)}."
            )
        mean = torch.stack([self.means[index] for index in indices])
        if method == "deterministic":
            return mean
        std = torch.stack([self.stds[index] for index in indices])
        drawn = torch.stack([noise(position) for position in range(len(indices))])
        return mean + std * drawn.to(mean.device, non_blocking=True)

    def _drawn_once(self, index: int) -> Tensor:
        if index not in self._once:
            noise = randomness.normal(self.shape(index), self.seed, "latents drawn once", index)
            self._once[index] = self.means[index] + self.stds[index] * noise.to(self.means[index].device)
        return self._once[index]


def _rounds(count: int, world_size: int) -> list[range]:
    """Pictures in the order in which processes encode them, each round of them before anything is handed over."""
    at_once = count if world_size == 1 else _PER_ROUND * world_size
    return [range(first, min(first + at_once, count)) for first in range(0, count, at_once)]


def _encoded(
    model: PictureEncoder,
    dataset: PictureDataset,
    indices: Sequence[int],
    batch_size: int | None,
    files: LatentFiles | None,
) -> Iterator[dict[int, Moments]]:
    """Mean and deviation of the pictures on the model's device: first of those that are known, then batch by batch."""
    device = model.device
    stored = {} if files is None else {index: files.read(dataset[index]) for index in indices}
    known = {index: (latents[0].to(device), latents[1].to(device)) for index, latents in stored.items() if latents}
    yield known
    missing = [index for index in indices if index not in known]
    for batch in _batches_of_one_size(dataset, missing, batch_size, device.type):
        pixels = torch.stack([dataset.pixels(index) for index in batch])
        with torch.no_grad():
            mean, std = model.encode_pictures(pixels.to(device))
        made = dict(zip(batch, zip(mean.float(), std.float(), strict=True), strict=True))
        if files is not None:
            for index in batch:
                files.write(dataset[index], *made[index])
        yield made


def _exchanged(
    processes: Processes, made: Iterable[Mapping[int, Moments]], device: torch.device
) -> Iterator[dict[int, Moments]]:
    """What all processes made, by way of the CPU."""
    own = {index: (mean.cpu(), std.cpu()) for part in made for index, (mean, std) in part.items()}
    for found in processes.gathered(own):
        yield {index: (mean.to(device), std.to(device)) for index, (mean, std) in found.items()}


def pictures_at_once(width: int, height: int, device_type: str) -> int:
    """How many pictures of a size the VAE encodes in one go: two of 512 x 512, and up to 8 smaller ones.

    One on a CPU: the last bits of a picture's latents depend on what shares its batch, so on what else is in the folder
    or known already, and a CPU gains little from batches.
    """
    return 1 if device_type == "cpu" else min(8, max(1, _PIXELS_AT_ONCE // (width * height)))


def _batches_of_one_size(
    dataset: PictureDataset, indices: Sequence[int], batch_size: int | None, device_type: str
) -> list[list[int]]:
    groups = defaultdict(list)
    for index in indices:
        groups[dataset[index].width, dataset[index].height].append(index)
    batches = []
    for size, group in groups.items():
        at_once = batch_size or pictures_at_once(*size, device_type)
        batches += [group[at : at + at_once] for at in range(0, len(group), at_once)]
    return batches
