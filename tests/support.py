"""A tiny model of Stable Diffusion 1's anatomy with random weights, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection

from tincture.models.families import SD1, SD2, SDXL
from tincture.models.loading.clip_tokenizer import load_tokenizer
from tincture.models.stable_diffusion import StableDiffusion
from tincture.models.text_encoder import TextEncoder

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


def tiny_model(seed: int = 0, prediction_type: str = "epsilon", in_channels: int = 4) -> StableDiffusion:
    """A model of 64 x 64 pictures, widths 32 and 64, text width 32, its weights drawn from ``seed``.

    Nine ``in_channels`` make an inpainting model.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = load_tokenizer(TOKENIZER)
        return StableDiffusion(
            family=SD1,
            text_encoders=[TextEncoder(SD1.text_encoders[0], tokenizer, CLIPTextModel(CLIPTextConfig(**TEXT_ENCODER)))],
            vae=AutoencoderKL(**VAE),
            unet=UNet2DConditionModel(**{**UNET, "in_channels": in_channels}),
            noise_scheduler=DDPMScheduler(**SCHEDULER, prediction_type=prediction_type),
            name="tiny",
            hash="0123456789",
        )


def padded_tokenizer() -> Any:
    """Picto's, which fills up and reads as OpenCLIP's."""
    tokenizer = load_tokenizer(TOKENIZER, open_clip=True)
    tokenizer.pad_token = "!"
    return tokenizer


def tiny_sd2(seed: int = 0) -> StableDiffusion:
    """The same of the anatomy of SD 2: another activation, prompts filled up with "!", v prediction."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = padded_tokenizer()
        module = CLIPTextModel(CLIPTextConfig(**{**TEXT_ENCODER, "hidden_act": "gelu"}))
        return StableDiffusion(
            family=SD2,
            text_encoders=[TextEncoder(SD2.text_encoders[0], tokenizer, module)],
            vae=AutoencoderKL(**VAE),
            unet=UNet2DConditionModel(**UNET, use_linear_projection=True),
            noise_scheduler=DDPMScheduler(**SCHEDULER, prediction_type="v_prediction"),
            name="tiny-2",
            hash="0123456789",
        )


def tiny_sdxl(seed: int = 0) -> StableDiffusion:
    """The same of the anatomy of SDXL: text encoders of widths 32 and 48, the second one projected to 40 numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizers = [load_tokenizer(TOKENIZER), padded_tokenizer()]
        second = {**TEXT_ENCODER, "hidden_size": 48, "num_hidden_layers": 3, "projection_dim": 40, "hidden_act": "gelu"}
        modules = [
            CLIPTextModel(CLIPTextConfig(**{**TEXT_ENCODER, "num_hidden_layers": 3})),
            CLIPTextModelWithProjection(CLIPTextConfig(**second)),
        ]
        return StableDiffusion(
            family=SDXL,
            text_encoders=[TextEncoder(*parts) for parts in zip(SDXL.text_encoders, tokenizers, modules, strict=True)],
            vae=AutoencoderKL(**VAE),
            unet=UNet2DConditionModel(
                **{**UNET, "cross_attention_dim": 80, "transformer_layers_per_block": (1, 2)},
                addition_embed_type="text_time",
                addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=6 * 8 + 40,
            ),
            noise_scheduler=DDPMScheduler(**SCHEDULER),
            name="tiny-xl",
            hash="0123456789",
        )


def weights(model: StableDiffusion) -> dict[str, torch.Tensor]:
    """A copy of every parameter and buffer of ``model``, for comparing bit by bit."""
    parts = {encoder.spec.component: encoder.module for encoder in model.text_encoders}
    parts |= {"vae": model.vae, "unet": model.unet}
    return {
        f"{part}.{key}": value.clone() for part, module in parts.items() for key, value in module.state_dict().items()
    }


def save_folder(model: StableDiffusion, folder: Path) -> Path:
    """Writes ``model`` as a diffusers folder and returns it."""
    parts = {"unet": model.unet, "vae": model.vae, "scheduler": model.noise_scheduler}
    for encoder in model.text_encoders:
        parts |= {encoder.spec.component: encoder.module, encoder.spec.tokenizer: encoder.tokenizer}
    for name, part in parts.items():
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
