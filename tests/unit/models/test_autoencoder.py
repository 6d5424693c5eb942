from __future__ import annotations

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from tests.support import VAE
from tincture.models.autoencoder import Autoencoder


def autoencoder() -> Autoencoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Autoencoder(AutoencoderKL(**VAE, scaling_factor=0.25).eval())


def test_latents_are_in_the_denoisers_scale_both_ways() -> None:
    made, pixels = autoencoder(), torch.rand(2, 3, 32, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mean, std = made.encode(pixels)
    with torch.no_grad():
        posterior = made.vae.encode(pixels).latent_dist
        decoded = made.vae.decode(posterior.mean).sample.clamp(-1, 1)
    assert mean.shape == (2, made.latent_channels, 32 // made.scale_factor, 16 // made.scale_factor) == (2, 4, 4, 2)
    assert torch.equal(mean, posterior.mean * 0.25) and torch.equal(std, posterior.std * 0.25)
    torch.testing.assert_close(made.decode(mean), decoded)


@pytest.mark.parametrize(("side", "tiled"), [(64, False), (72, True)])
def test_what_is_larger_than_the_side_passes_in_tiles(side: int, tiled: bool) -> None:
    made = autoencoder()
    before = made.slicing
    made.enable_slicing(64)
    assert (before, made.slicing) == (False, True)
    mean, _ = made.encode(torch.zeros(1, 3, side, side))
    assert made.vae.use_tiling is tiled
    made.vae.use_tiling = not tiled
    made.decode(mean)
    assert made.vae.use_tiling is tiled
