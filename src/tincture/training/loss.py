"""The denoising loss (Ho et al. 2020, equation 14; v-prediction: Salimans and Ho 2022, section 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor

Predict = Callable[[Tensor, Tensor], Tensor]


class AuxiliaryLoss(Protocol):
    """A term beside the denoising loss, made from what the U-Net does while it predicts."""

    def watching(self) -> AbstractContextManager[None]:
        """Sees the prediction that is made inside the context, and leaves it as it is."""
        ...

    def value(self, indices: Sequence[int], prompts: Sequence[str]) -> Tensor:
        """The term, a float32 scalar, for the prediction last seen: of the samples ``indices`` with ``prompts``."""
        ...


def denoising_loss(
    predict: Predict,
    noise_scheduler: Any,
    latents: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    weights: Tensor | None = None,
) -> Tensor:
    """Mean squared error of the predicted against the true noise (or v): a float32 scalar.

    Args:
        predict: ``(noisy_latents, timesteps) -> noise_pred``, the model with its conditioning.
        noise_scheduler: diffusers' DDPMScheduler; its config says what is predicted.
        latents, noise: (B, 4, h, w) float32.
        timesteps: (B,) int64.
        weights: (B, 1, h, w) with mean 1 over a picture, or None: how much each latent cell counts.
    """
    noisy_latents = noise_scheduler.add_noise(latents, noise, timesteps)
    if noise_scheduler.config.prediction_type == "v_prediction":
        target = noise_scheduler.get_velocity(latents, noise, timesteps)
    else:
        target = noise
    error: Tensor = (predict(noisy_latents, timesteps).float() - target.float()).square()
    return (error if weights is None else error * weights).mean()
