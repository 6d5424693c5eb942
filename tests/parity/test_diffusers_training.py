"""diffusers' training script on the embedded model: parts by ``from_pretrained``, three steps of the token table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from safetensors import safe_open
from tools.train_picto import save_half, text_config
from transformers.models.clip.modeling_clip import CLIPTextModel
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from tests.support import TOKENIZER
from tincture.models.loading.sources import PICTO, short_hash

PARTS = {"text_encoder": CLIPTextModel, "unet": UNet2DConditionModel, "vae": AutoencoderKL}
WEIGHT_FILES = ("text_encoder/model", "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model")


@pytest.mark.parametrize("part", PARTS)
def test_each_part_is_loaded_in_full_precision_where_none_is_asked_for(part: str) -> None:
    loaded = PARTS[part].from_pretrained(PICTO / part)
    assert {tensor.dtype for tensor in loaded.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", WEIGHT_FILES)
def test_weights_are_stored_in_half_precision(name: str) -> None:
    with safe_open(PICTO / f"{name}.safetensors", framework="pt") as file:
        assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"F16"}  # noqa: SIM118


def test_the_model_is_the_one_that_files_name() -> None:
    assert short_hash(PICTO) == "bc24991ae6"


def test_what_the_tool_writes_is_loaded_likewise(tmp_path: Path) -> None:
    save_half(CLIPTextModel(text_config(CLIPTokenizer.from_pretrained(TOKENIZER))), tmp_path)

    assert CLIPTextModel.from_pretrained(tmp_path).dtype == torch.float32
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert file.get_slice(next(iter(file.keys()))).get_dtype() == "F16"
    configs = [json.loads((folder / "config.json").read_text()) for folder in (tmp_path, PICTO / "text_encoder")]
    written, shipped = ({**config, "transformers_version": ""} for config in configs)
    assert written == shipped


def test_three_steps_have_finite_losses() -> None:
    """As examples/textual_inversion does them without mixed precision: the whole table is trained, by AdamW."""
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(PICTO / "tokenizer")
    scheduler = DDPMScheduler.from_pretrained(PICTO / "scheduler")
    text_encoder, unet, vae = (PARTS[part].from_pretrained(PICTO / part) for part in PARTS)
    tokenizer.add_tokens(["<rex>"])
    text_encoder.resize_token_embeddings(len(tokenizer))
    table = text_encoder.get_input_embeddings()
    for module in (unet, vae, text_encoder):
        module.requires_grad_(False)
    table.requires_grad_(True)
    optimizer = torch.optim.AdamW(table.parameters(), lr=5e-4)

    losses = [_step(tokenizer, scheduler, text_encoder, unet, vae, optimizer) for _ in range(3)]

    assert all(torch.isfinite(loss) for loss in losses) and torch.isfinite(table.weight).all()


def _step(tokenizer: Any, scheduler: Any, text_encoder: Any, unet: Any, vae: Any, optimizer: Any) -> torch.Tensor:
    latents = vae.encode(torch.rand(2, 3, 64, 64) * 2 - 1).latent_dist.sample() * vae.config.scaling_factor
    noise, timesteps = torch.randn_like(latents), torch.randint(1000, (2,))
    ids = tokenizer(["a photo of a <rex>"] * 2, padding="max_length", return_tensors="pt").input_ids
    hidden_states = text_encoder(ids)[0]
    noise_pred = unet(scheduler.add_noise(latents, noise, timesteps), timesteps, hidden_states).sample
    loss = torch.nn.functional.mse_loss(noise_pred.float(), noise.float())
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()
