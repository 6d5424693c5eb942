"""Text to pictures: a sampler under classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598)."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from tincture import randomness
from tincture.errors import UsageError
from tincture.models.conditions import Conditions
from tincture.models.diffusion_model import DiffusionModel
from tincture.settings.drawing import CompleteDrawing, Drawing

# Decoded at once: four pictures of 512 x 512. More would need gigabytes for the decoder's widest layers.
_DECODED_PIXELS = 2**20


@torch.no_grad()
def generate(
    model: DiffusionModel,
    prompts: Sequence[str],
    drawing: Drawing | None = None,
    *,
    seeds: Sequence[int],
    batch_size: int = 16,
    interrupted: Callable[[], bool] | None = None,
    on_step: Callable[[int, int], object] | None = None,
    on_pictures: Callable[[int], object] | None = None,
) -> Tensor:
    """One picture per pair of prompt and seed: uint8 (B, height, width, 3) on the CPU.

    Attached embeddings and hypernetworks act. Every random number of a picture comes from its own generator made from
    its seed: neither the other pictures nor torch's global random state matter, and the latter is not touched.

    Args:
        model: the frozen model.
        prompts: B texts.
        drawing: everything else about the pictures, the same for all.
        seeds: B seeds.
        batch_size: pictures at a time.
        interrupted: asked before every step; True ends the work, and only pictures of finished batches are returned.
        on_step: told after every step of a batch how many are done, and of how many; what it raises ends the work.
        on_pictures: told after every batch how many pictures are finished.

    Raises:
        UsageError: one of the above is not allowed.
    """
    drawing = complete(drawing or Drawing(), model)
    _check(model, len(prompts), len(seeds), drawing, batch_size)
    randomness.require_seeds(seeds)
    done = [torch.empty(0, drawing.height, drawing.width, 3, dtype=torch.uint8)]
    for batch, length in _batches(model, prompts, drawing, batch_size):
        scheduler = model.noise_process.make_scheduler(drawing.sampler)
        _set_steps(scheduler, drawing, model.device)
        generators = [randomness.torch_generator(seed) for seed in seeds[batch]]
        conditions = model.encode_prompts(prompts[batch], drawing.clip_skip, length)
        if drawing.guidance_scale != 1:
            negative = model.encode_negative_prompt(drawing.negative_prompt, drawing.clip_skip, length)
            conditions = Conditions.cat([negative.expand(len(conditions)), conditions])
        latents = _start(model, scheduler, generators, drawing)
        extra = {"generator": generators} if "generator" in inspect.signature(scheduler.step).parameters else {}
        for done_steps, timestep in enumerate(scheduler.timesteps, start=1):
            if interrupted is not None and interrupted():
                return torch.cat(done)
            noise_pred = _predict(model, scheduler, latents, timestep, conditions, drawing.guidance_scale)
            latents = scheduler.step(noise_pred, timestep, latents, **extra, return_dict=False)[0]
            if on_step is not None:
                on_step(done_steps, len(scheduler.timesteps))
        done.append(_decode(model, latents))
        if on_pictures is not None:
            on_pictures(sum(map(len, done)))
    return torch.cat(done)


def complete(drawing: Drawing, model: DiffusionModel) -> CompleteDrawing:
    """``drawing`` with what it leaves open taken from ``model``: size and guidance."""
    guidance = model.guidance_scale if drawing.guidance_scale is None else drawing.guidance_scale
    width, height = drawing.width or model.default_size, drawing.height or model.default_size
    chosen = {"guidance_scale": guidance, "width": width, "height": height}
    return CompleteDrawing(**dataclasses.asdict(drawing) | chosen)


def _check(model: DiffusionModel, prompts: int, seeds: int, drawing: CompleteDrawing, batch_size: int) -> None:
    if prompts != seeds:
        raise UsageError(f"{prompts} prompts and {seeds} seeds were given; every prompt needs one seed.")
    if drawing.steps < 1:
        raise UsageError(f"{drawing.steps} sampling steps are not allowed; give at least 1.")
    if batch_size < 1:
        raise UsageError(f"Batch size {batch_size} is not allowed; give at least 1.")
    cell = model.vae_scale_factor
    for side, value in (("width", drawing.width), ("height", drawing.height)):
        if value < cell or value % cell:
            raise UsageError(f"The {side} {value} is not allowed; give a multiple of {cell} pixels.")


def _batches(
    model: DiffusionModel, prompts: Sequence[str], drawing: Drawing, batch_size: int
) -> Iterator[tuple[slice, int]]:
    """Slices of ``prompts`` that are drawn together, and how many tokens their hidden states have.

    Prompts of unequal length are drawn apart: filling them up to the longest would make a picture depend on the others.
    """
    negative = model.text.lengths([drawing.negative_prompt])[0] if drawing.guidance_scale != 1 else 0
    start = 0
    for length, alike in groupby(max(length, negative) for length in model.text.lengths(prompts)):
        end = start + len(list(alike))
        for first in range(start, end, batch_size):
            yield slice(first, min(first + batch_size, end)), length
        start = end


def _set_steps(scheduler: Any, drawing: Drawing, device: torch.device) -> None:
    try:
        scheduler.set_timesteps(drawing.steps, device=device)
    except ValueError as error:
        raise UsageError(f"The sampler {drawing.sampler!r} cannot make {drawing.steps} steps: {error}") from error


def _start(
    model: DiffusionModel, scheduler: Any, generators: Sequence[torch.Generator], drawing: CompleteDrawing
) -> Tensor:
    """Pure noise (B, 4, h, w) float32 of the sampler's first noise level."""
    cell = model.vae_scale_factor
    shape = (model.latent_channels, drawing.height // cell, drawing.width // cell)
    noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
    started: Tensor = noise.to(model.device) * scheduler.init_noise_sigma
    return started


def _predict(
    model: DiffusionModel,
    scheduler: Any,
    latents: Tensor,
    timestep: Tensor,
    conditions: Conditions,
    guidance_scale: float,
) -> Tensor:
    """The guided prediction in float32: schedulers lose too much in half precision."""
    scaled = scheduler.scale_model_input(latents, timestep)
    if guidance_scale == 1:
        return model.predict_noise(scaled, timestep, conditions).float()
    negative, positive = model.predict_noise(torch.cat([scaled, scaled]), timestep, conditions).float().chunk(2)
    return negative + guidance_scale * (positive - negative)


def pictures_decoded_at_once(width: int, height: int) -> int:
    """How many pictures of a size the VAE decodes in one go."""
    return max(1, _DECODED_PIXELS // (width * height))


def _decode(model: DiffusionModel, latents: Tensor) -> Tensor:
    """Pictures uint8 (B, H, W, 3) on the CPU, decoded a few at a time."""
    height, width = (side * model.vae_scale_factor for side in latents.shape[-2:])
    parts = torch.split(latents, pictures_decoded_at_once(width, height))
    pictures = torch.cat([((model.decode_latents(part) + 1) * 127.5).round().to(torch.uint8).cpu() for part in parts])
    return pictures.permute(0, 2, 3, 1).contiguous()
