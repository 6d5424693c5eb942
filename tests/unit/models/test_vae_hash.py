from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from tests.support import VAE
from tincture.models.vae_hash import vae_hash


@pytest.fixture(scope="module")
def vae() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoencoderKL(**VAE)


def test_a_hash_is_64_hex_digits_and_of_equal_vaes_equal(vae: Any) -> None:
    assert len(bytes.fromhex(vae_hash(vae))) == 32
    assert vae_hash(copy.deepcopy(vae)) == vae_hash(vae)


def test_what_decides_the_latents_counts(vae: Any) -> None:
    hashes = {vae_hash(vae)}
    with torch.no_grad():
        for name, parameter in vae.named_parameters():
            if not name.startswith(("decoder.", "post_quant_conv.")):
                value = parameter.view(-1)[0].item()
                parameter.view(-1)[0] += 1
                hashes.add(vae_hash(vae))
                parameter.view(-1)[0] = value
    encoder = sum(not name.startswith(("decoder.", "post_quant_conv.")) for name, _ in vae.named_parameters())
    assert len(hashes) == encoder + 1 > 20
    assert vae_hash(copy.deepcopy(vae).half()) != vae_hash(vae)
    other = copy.deepcopy(vae)
    other.register_to_config(scaling_factor=0.5)
    assert vae_hash(other) != vae_hash(vae)


def test_the_decoder_does_not_count(vae: Any) -> None:
    other = copy.deepcopy(vae)
    with torch.no_grad():
        for parameter in other.decoder.parameters():
            parameter += 1
    assert vae_hash(other) == vae_hash(vae)
