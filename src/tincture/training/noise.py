"""The noise of a step: what is added to latents, and what the denoiser is to find in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tincture import randomness


@dataclass(frozen=True)
class NoiseDraw:
    """Standard normal noise, changed as wanted.

    Attributes:
        offset: so much of one further number of each sample and channel is added to all of its cells, so that
            brightness and colour of whole pictures are learned too (Guttenberg 2023, "Diffusion with offset noise").
        perturbation: so much of a second noise is added to the first in what the denoiser is given; what it is to find
            is the first alone (Ning et al. 2023, arXiv:2301.11706).
    """

    offset: float = 0.0
    perturbation: float = 0.0

    def draw(self, shape: Sequence[int], seed: int, global_step: int, slots: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Of the samples ``slots`` of a step: a function of seed, step and slot alone.

        Args:
            shape: of a sample's latents: (channels, h, w).

        Returns:
            The noise to be found and that of the denoiser's input, (B, channels, h, w) float32 on the CPU; the same
            tensor where the input is not perturbed.
        """

        def drawn(purpose: str, size: Sequence[int]) -> Tensor:
            return torch.stack([randomness.normal(size, seed, purpose, global_step, slot) for slot in slots])

        noise = drawn("noise", shape)
        if self.offset:
            noise = noise + self.offset * drawn("offset noise", (shape[0], *(1 for _ in shape[1:])))
        if not self.perturbation:
            return noise, noise
        return noise, noise + self.perturbation * drawn("input perturbation", shape)


STANDARD = NoiseDraw()
"""Noise as models are made with."""
