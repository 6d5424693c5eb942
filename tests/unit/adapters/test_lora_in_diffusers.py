"""LoRA files read by diffusers' own loader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from tests.support import tiny_sdxl
from tincture.adapters.hypernetwork import Hypernetwork
from tincture.adapters.lora import export_lora
from tincture.models.loading.load import load_model
from tincture.models.picto.world import random_scene, render
from tincture.models.stable_diffusion import StableDiffusion

SCENES = [random_scene(np.random.default_rng(seed)) for seed in range(4)]


@pytest.fixture(scope="module")
def picto() -> StableDiffusion:
    return load_model("picto")


def hypernetwork(model: StableDiffusion, activation: str | None, biases: float) -> Hypernetwork:
    made = Hypernetwork("ink", model.context_widths(), [1, 2, 1], activation)
    generator = torch.Generator().manual_seed(3)
    for parameter in made.parameters():
        spread = biases if parameter.ndim == 1 else 0.03
        parameter.data = spread * torch.randn(parameter.shape, generator=generator)
    return made


@torch.no_grad()
def predict(model: StableDiffusion) -> torch.Tensor:
    """The noise predicted in noisy pictures of the scenes, at an early, a late and two middling steps."""
    pixels = torch.from_numpy(np.stack([render(scene) for scene in SCENES])).permute(0, 3, 1, 2) / 127.5 - 1
    latents, _ = model.encode_pictures(pixels)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(7))
    timesteps = torch.tensor([150, 400, 650, 900])
    noisy = model.noise_scheduler.add_noise(latents, noise, timesteps)
    return model.predict_noise(noisy, timesteps, model.encode_prompts([scene.caption() for scene in SCENES]))


def predict_in_diffusers(model: StableDiffusion, folder: Path, name: str) -> torch.Tensor:
    pipeline = StableDiffusionPipeline(
        vae=model.vae,
        text_encoder=model.text_encoders[0].module,
        tokenizer=model.tokenizer,
        unet=model.unet,
        scheduler=model.noise_scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.load_lora_weights(folder, weight_name=name)
    try:
        return predict(model)
    finally:
        pipeline.unload_lora_weights()


@pytest.mark.parametrize(
    ("activation", "biases", "rank"),
    [
        (None, 0, 144),
        pytest.param(None, 0.1, 144, marks=pytest.mark.slow),
        pytest.param(None, 0.1, 8, marks=pytest.mark.slow),
        ("relu", 0.1, 144),
    ],
)
def test_diffusers_predicts_the_hypernetworks_noise_within_the_reported_error(
    picto: StableDiffusion, tmp_path: Path, activation: str | None, biases: float, rank: int
) -> None:
    ink = hypernetwork(picto, activation, biases)
    captions = [scene.caption() for scene in SCENES]
    report = export_lora(ink, picto, tmp_path / "ink.safetensors", rank=rank, captions=captions)
    before = predict(picto)
    with ink.attach(picto):
        wanted = predict(picto)
    made = predict_in_diffusers(picto, tmp_path, "ink.safetensors")
    assert torch.equal(predict(picto), before)
    error = float((made - wanted).norm() / (wanted - before).norm())
    assert report.noise_error is not None and report.noise_error_most is not None
    assert report.noise_error <= report.noise_error_most
    # a tenth more, since these noises and pictures are others than those that were measured
    assert error < 1.1 * report.noise_error_most + 1e-4
    assert error < (1e-4 if activation is None and not biases else 0.5)


@torch.no_grad()
def test_diffusers_reads_one_for_xl(tmp_path: Path) -> None:
    model = tiny_sdxl()
    network = hypernetwork(model, None, 0)
    noisy, timestep = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([400])
    conditions = model.encode_prompts(["red moon"])
    plain = model.predict_noise(noisy, timestep, conditions)
    with network.attach(model):
        wanted = model.predict_noise(noisy, timestep, conditions)
    export_lora(network, model, tmp_path / "ink.safetensors", rank=max(model.context_widths()))
    (first, second), unet = model.text_encoders, model.unet
    pipeline = StableDiffusionXLPipeline(
        vae=model.vae,
        text_encoder=first.module,
        tokenizer=first.tokenizer,
        text_encoder_2=second.module,
        tokenizer_2=second.tokenizer,
        unet=unet,
        scheduler=model.noise_scheduler,
        add_watermarker=False,
    )

    pipeline.load_lora_weights(tmp_path, weight_name="ink.safetensors")

    made = model.predict_noise(noisy, timestep, conditions)
    assert (made - wanted).norm() < 0.01 * (wanted - plain).norm()
