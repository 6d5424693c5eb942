"""Small models have their channels side by side, large ones fewer multiplications; both predict what they did."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.support import tiny_model
from tincture.models import convolutions, winograd
from tincture.models.convolutions import speed_up_convolutions
from tincture.models.stable_diffusion import StableDiffusion


def predicted(model: StableDiffusion) -> tuple[Tensor, Tensor]:
    """A prediction, and the gradient of the text."""
    random = torch.Generator().manual_seed(0)
    conditions = model.encode_prompts(["a red circle"])
    conditions.hidden_states.detach_().requires_grad_()
    latents = torch.randn(1, 4, 16, 16, generator=random)
    made = model.predict_noise(latents, torch.tensor([500]), conditions)
    return made, torch.autograd.grad(made.square().sum(), conditions.hidden_states)[0]


def layers(model: StableDiffusion) -> list[nn.Conv2d]:
    return [each for each in model.unet.modules() if isinstance(each, nn.Conv2d)]


def test_a_small_model_has_its_channels_side_by_side() -> None:
    model = tiny_model()
    before = predicted(model)
    model.speed_up_convolutions()
    spatial = [layer for layer in layers(model) if layer.kernel_size != (1, 1)]
    assert all(layer.weight.is_contiguous(memory_format=torch.channels_last) for layer in spatial)
    assert all(type(layer) is nn.Conv2d for layer in layers(model))
    torch.testing.assert_close(predicted(model), before, rtol=1e-4, atol=1e-5)


def test_a_large_model_has_fewer_multiplications(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    before = predicted(model)
    monkeypatch.setattr(convolutions, "MOST_CHANNELS", 16)
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", 16)
    monkeypatch.setattr(winograd, "LEAST_TILES", 1)
    speed_up_convolutions(model.unet)
    torch.testing.assert_close(predicted(model), before, rtol=1e-4, atol=1e-5)
    transformed = [layer for layer in layers(model) if "sums" in layer._buffers]
    assert transformed
    spatial = [layer for layer in layers(model) if layer.kernel_size != (1, 1)]
    assert any(layer.weight.is_contiguous() for layer in spatial)
