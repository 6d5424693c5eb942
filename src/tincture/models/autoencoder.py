"""The VAE of a model: pictures to latents and back, whole or in slices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Autoencoder:
    """Latents in the denoiser's scale, which is the VAE's times its scaling factor.

    Args:
        vae: diffusers' AutoencoderKL, float32.

    Attributes:
        scale_factor: pixels per latent cell along a side.
        latent_channels: of the latents.
        largest_whole: pixels of the largest picture that passes whole; None where all do.
    """

    def __init__(self, vae: Any) -> None:
        self.vae = vae
        self.scale_factor: int = 2 ** (len(vae.config.block_out_channels) - 1)
        self.latent_channels: int = vae.config.latent_channels
        self.largest_whole: int | None = None

    @property
    def slicing(self) -> bool:
        """Whether ``enable_slicing`` was called."""
        return self.largest_whole is not None

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (B, latent_channels, h, w) of the latents of ``pixels`` (B, 3, H, W) in -1..1."""
        self._choose_tiles(pixels.shape[-2] * pixels.shape[-1])
        posterior = self.vae.encode(pixels).latent_dist
        scaling_factor: float = self.vae.config.scaling_factor
        return posterior.mean * scaling_factor, posterior.std * scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in -1..1 from latents (B, latent_channels, h, w)."""
        self._choose_tiles(latents.shape[-2] * latents.shape[-1] * self.scale_factor**2)
        pixels: Tensor = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        return pixels.clamp(-1, 1)

    def enable_slicing(self, side: int) -> None:
        """Sends pictures through one at a time, and those of more than ``side`` squared pixels in tiles.

        Less memory. Tiles overlap and are blended, so that larger pictures differ a little.
        """
        self.largest_whole = side**2
        self.vae.enable_slicing()
        self.vae.tile_sample_min_size = side
        self.vae.tile_latent_min_size = side // self.scale_factor

    def _choose_tiles(self, pixels_each: int) -> None:
        if self.largest_whole is not None:
            self.vae.use_tiling = pixels_each > self.largest_whole
