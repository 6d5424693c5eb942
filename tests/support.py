"""A tiny model of Stable Diffusion 1's anatomy with random weights, for tests."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from tincture.models.stable_diffusion import StableDiffusion

TOKENIZER = Path(__file__).parents[1] / "src" / "tincture" / "models" / "picto" / "weights" / "tokenizer"

UNET = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}
VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (8, 16, 16, 16),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 8,
    "sample_size": 64,
}
TEXT_ENCODER = {
    "vocab_size": 655,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
    "bos_token_id": 653,
    "eos_token_id": 654,
    "pad_token_id": 654,
}
SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "steps_offset": 1,
}


def tiny_model(seed: int = 0, prediction_type: str = "epsilon") -> StableDiffusion:
    """A model of 64 x 64 pictures, widths 32 and 64, text width 32, its weights drawn from ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return StableDiffusion(
            tokenizer=CLIPTokenizer.from_pretrained(TOKENIZER),
            text_encoder=CLIPTextModel(CLIPTextConfig(**TEXT_ENCODER)),
            vae=AutoencoderKL(**VAE),
            unet=UNet2DConditionModel(**UNET),
            noise_scheduler=DDPMScheduler(**SCHEDULER, prediction_type=prediction_type),
            name="tiny",
            hash="0123456789",
        )


def weights(model: StableDiffusion) -> dict[str, torch.Tensor]:
    """A copy of every parameter and buffer of ``model``, for comparing bit by bit."""
    parts = {"text_encoder": model.text_encoder, "vae": model.vae, "unet": model.unet}
    return {
        f"{part}.{key}": value.clone() for part, module in parts.items() for key, value in module.state_dict().items()
    }


def save_folder(model: StableDiffusion, folder: Path) -> Path:
    """Writes ``model`` as a diffusers folder and returns it."""
    parts = {name: getattr(model, name) for name in ("unet", "vae", "text_encoder", "tokenizer")}
    for name, part in {**parts, "scheduler": model.noise_scheduler}.items():
        part.save_pretrained(folder / name)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDPMScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
