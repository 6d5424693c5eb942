"""What is measured on: a workspace with pictures and new adapters, and SD 1.5's anatomy with random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from PIL import Image
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel

from tincture import recipe
from tincture.models.loading import PICTO
from tincture.models.picto import world
from tincture.workspace import Workspace

NAME = "glimmer"
TEMPLATES = {"embedding": "a picture of [name], [filewords]", "hypernetwork": "a picture of [filewords]"}
"""One line each, so that an epoch meets every prompt: what is cached is then in the cache once it is over."""

# The values of runwayml/stable-diffusion-v1-5, unet/config.json, vae/config.json and text_encoder/config.json.
SD15_UNET: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
SD15_VAE: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
}
SD15_TEXT_ENCODER: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "projection_dim": 768,
    # picto's tokenizer stands in for CLIP's: ids are rows of a random table either way
    "bos_token_id": 653,
    "eos_token_id": 654,
    "pad_token_id": 654,
}
SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "steps_offset": 1,
}


def make_workspace(root: Path, pictures: int) -> Workspace:
    """An empty workspace at ``root`` with ``pictures`` pictures of 64 x 64, no two captions alike, in ``data``."""
    workspace = Workspace(root)
    workspace.templates.mkdir(parents=True)
    for kind, line in TEMPLATES.items():
        (workspace.templates / f"{kind}-bench.txt").write_text(line + "\n", encoding="utf-8")
    data = root / "data"
    data.mkdir()
    scenes: dict[str, world.Scene] = {}
    rng = np.random.default_rng(0)
    while len(scenes) < pictures:
        scene = world.random_scene(rng)
        scenes.setdefault(scene.caption(), scene)
    for number, (caption, scene) in enumerate(scenes.items()):
        Image.fromarray(world.render(scene)).save(data / f"{number:02}.png")
        (data / f"{number:02}.txt").write_text(caption + "\n", encoding="utf-8")
    return workspace


def create_adapter(workspace: Workspace, kind: str, model: str) -> None:
    """A new adapter called NAME, as the demo makes them: 4 vectors, or a pair (1, 2, 1) with relu for every width."""
    if kind == "embedding":
        recipe.create_embedding(NAME, workspace=workspace, model=model, num_vectors=4, overwrite=True)
    else:
        recipe.create_hypernetwork(NAME, workspace=workspace, model=model, activation_func="relu", overwrite=True)


def write_random_sd15(folder: Path) -> Path:
    """Writes Stable Diffusion 1.5's parts with random weights, half precision, as a diffusers folder of 2.1 GB."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        UNet2DConditionModel(**SD15_UNET).half().save_pretrained(folder / "unet")
        AutoencoderKL(**SD15_VAE).half().save_pretrained(folder / "vae")
        CLIPTextModel(CLIPTextConfig(**SD15_TEXT_ENCODER)).half().save_pretrained(folder / "text_encoder")
    DDPMScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")
    shutil.copytree(PICTO / "tokenizer", folder / "tokenizer")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDPMScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder
