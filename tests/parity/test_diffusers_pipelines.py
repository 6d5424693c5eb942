"""diffusers' own pipelines, given the same weights, prompts and first noise, come to the same latents."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_inpaint import StableDiffusionInpaintPipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline

from tests.support import tiny_model, tiny_sd2, tiny_sdxl
from tincture.models.sampling import generate
from tincture.models.stable_diffusion import StableDiffusion
from tincture.settings.drawing import Drawing

PROMPT, NEGATIVE = "a small red moon on the left", "blue"
STEPS, GUIDANCE = 3, 5.0
HEIGHT, WIDTH = 64, 48


def components(model: StableDiffusion) -> dict[str, Any]:
    parts: dict[str, Any] = {"vae": model.vae, "unet": model.unet, "scheduler": model.noise_scheduler}
    for encoder in model.text_encoders:
        parts |= {encoder.spec.component: encoder.module, encoder.spec.tokenizer: encoder.tokenizer}
    return parts


def pipeline(model: StableDiffusion, sampler: str) -> Any:
    parts = components(model)
    if model.family.knows_sizes:
        made: Any = StableDiffusionXLPipeline(**parts, force_zeros_for_empty_prompt=True, add_watermarker=False)
    elif model.is_inpainting:
        made = StableDiffusionInpaintPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    else:
        made = StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    made.scheduler = model.noise_process.make_scheduler(
        sampler
    )  # afterwards: the pipeline would mend what it takes for outdated
    made.set_progress_bar_config(disable=True)
    return made


def first_noise(seed: int) -> torch.Tensor:
    return torch.randn(4, HEIGHT // 8, WIDTH // 8, generator=torch.Generator().manual_seed(seed))[None]


def ours(
    model: StableDiffusion, negative: str, sampler: str, clip_skip: int, monkeypatch: pytest.MonkeyPatch
) -> torch.Tensor:
    """The latents of the finished picture."""
    decoded: list[torch.Tensor] = []
    decode = model.decode_latents

    def recorded(latents: torch.Tensor) -> torch.Tensor:
        decoded.append(latents)
        return decode(latents)

    monkeypatch.setattr(model, "decode_latents", recorded)
    drawing = Drawing(negative, STEPS, sampler, GUIDANCE, WIDTH, HEIGHT, clip_skip)
    generate(model, [PROMPT], drawing, seeds=[5])
    return decoded[0]


@pytest.mark.parametrize("sampler", ["DDIM", "Euler", "DPM++ 2M Karras", "UniPC"])
@pytest.mark.parametrize("make", [tiny_model, tiny_sd2, tiny_sdxl])
def test_the_latents_are_those_of_the_pipeline(make: Any, sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make()
    theirs = pipeline(model, sampler)(
        PROMPT,
        negative_prompt=NEGATIVE,
        height=HEIGHT,
        width=WIDTH,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        latents=first_noise(5),
        output_type="latent",
    ).images

    torch.testing.assert_close(ours(model, NEGATIVE, sampler, 1, monkeypatch), theirs, atol=1e-5, rtol=1e-5)


def test_an_empty_negative_prompt_of_sdxl_is_zeros_as_there(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_sdxl()
    theirs = pipeline(model, "DDIM")(
        PROMPT,
        height=HEIGHT,
        width=WIDTH,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        latents=first_noise(5),
        output_type="latent",
    ).images

    mine = ours(model, "", "DDIM", 1, monkeypatch)
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(mine, ours(model, " ", "DDIM", 1, monkeypatch), atol=1e-5)


def test_clip_skip_of_sdxl_counts_from_the_layer_before_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers counts the layers that are skipped, so that its 1 is our 2."""
    model = tiny_sdxl()
    theirs = pipeline(model, "DDIM")(
        PROMPT,
        negative_prompt=NEGATIVE,
        clip_skip=1,
        height=HEIGHT,
        width=WIDTH,
        num_inference_steps=STEPS,
        guidance_scale=1.0,
        latents=first_noise(5),
        output_type="latent",
    ).images
    decoded: list[torch.Tensor] = []
    monkeypatch.setattr(model, "decode_latents", lambda latents: decoded.append(latents) or torch.zeros(1, 3, 64, 48))
    generate(model, [PROMPT], Drawing("", STEPS, "DDIM", 1.0, WIDTH, HEIGHT, 2), seeds=[5])

    torch.testing.assert_close(decoded[0], theirs, atol=1e-5, rtol=1e-5)


def test_an_inpainting_model_draws_what_the_pipeline_makes_of_a_wholly_masked_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model(in_channels=9)
    # The pipeline samples the masked picture's latents, and we take their mean: make both the same. Random weights
    # make chaos of a picture of one colour, so the mean is set too.
    model.vae.quant_conv.weight.data[:] = 0
    model.vae.quant_conv.bias.data[:] = torch.tensor([0.1, -0.2, 0.3, 0.4, *[-30.0] * 4])
    theirs = pipeline(model, "DDIM")(
        PROMPT,
        negative_prompt=NEGATIVE,
        image=np.zeros((1, HEIGHT, WIDTH, 3), np.float32),
        mask_image=np.ones((1, HEIGHT, WIDTH), np.float32),
        height=HEIGHT,
        width=WIDTH,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        latents=first_noise(5),
        strength=1.0,
        output_type="latent",
    ).images

    torch.testing.assert_close(ours(model, NEGATIVE, "DDIM", 1, monkeypatch), theirs, atol=1e-5, rtol=1e-5)


def test_time_ids_are_those_of_the_pipeline() -> None:
    model = tiny_sdxl()
    # its sizes are (height, width), its crop (top, left)
    theirs = pipeline(model, "DDIM")._get_add_time_ids(
        (600, 800), (10, 20), (48, 64), torch.float32, text_encoder_projection_dim=40
    )

    assert torch.equal(StableDiffusion.time_ids((800, 600), (20, 10), (64, 48)), theirs)


def test_time_ids_reach_the_unet() -> None:
    model = tiny_sdxl()
    latents, timesteps = torch.ones(2, 4, 8, 6), torch.tensor([500, 20])
    conditions = model.encode_prompts(["red", "blue"])
    size = model.time_ids((48, 64), (0, 0), (48, 64)).expand(2, -1)
    cropped = model.time_ids((480, 640), (100, 0), (48, 64)).expand(2, -1)
    plain = model.predict_noise(latents, timesteps, conditions)

    assert torch.equal(plain, model.predict_noise(latents, timesteps, conditions, size))
    assert not torch.allclose(plain, model.predict_noise(latents, timesteps, conditions, cropped))


def test_sizes_are_not_rounded_in_half_precision() -> None:
    model, told = tiny_sdxl().to("cpu", torch.bfloat16), list[torch.Tensor]()
    model.unet.register_forward_pre_hook(
        lambda _, args, kwargs: told.append(kwargs["added_cond_kwargs"]["time_ids"]), with_kwargs=True
    )
    sizes = model.time_ids((1333, 2001), (0, 517), (48, 64))

    noise_pred = model.predict_noise(torch.ones(1, 4, 8, 6), torch.tensor([500]), model.encode_prompts(["red"]), sizes)

    assert noise_pred.dtype == torch.bfloat16
    assert told[0].tolist() == [[2001, 1333, 517, 0, 64, 48]]


@pytest.mark.parametrize("make", [tiny_model, tiny_sd2])
def test_noise_levels_and_targets_are_the_published_ones(make: Any) -> None:
    """Rombach et al. 2022: betas linear in their roots; Salimans and Ho 2022, section 4: v = alpha e - sigma x."""
    scheduler = make().noise_scheduler
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    signal = np.cumprod(1 - betas)
    np.testing.assert_allclose(scheduler.alphas_cumprod.numpy(), signal, rtol=1e-4)
    x, noise = torch.full((1, 1), 2.0), torch.full((1, 1), 3.0)
    for timestep in (0, 300, 999):
        alpha, sigma = signal[timestep] ** 0.5, (1 - signal[timestep]) ** 0.5
        noisy = scheduler.add_noise(x, noise, torch.tensor([timestep]))
        v = scheduler.get_velocity(x, noise, torch.tensor([timestep]))
        np.testing.assert_allclose([noisy.item(), v.item()], [2 * alpha + 3 * sigma, 3 * alpha - 2 * sigma], rtol=1e-4)
