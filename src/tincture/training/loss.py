"""The denoising loss: how far a prediction is from what the model's noise process aims at."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from tincture.models.noise_process import NoiseProcess

Predict = Callable[[Tensor, Tensor], Tensor]
"""``(noisy_latents, timesteps) -> noise_pred``: the model with its conditioning."""


def denoising_loss(
    predict: Predict,
    process: NoiseProcess,
    latents: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    weights: Tensor | None = None,
) -> Tensor:
    """Mean squared error of the prediction against the target, such as the noise or v: a float32 scalar.

    Args:
        predict: of the model.
        process: of the same model; it says what is predicted, and how much each timestep counts.
        latents, noise: (B, 4, h, w) float32.
        timesteps: (B,), drawn by ``process``.
        weights: (B, 1, h, w) with mean 1 over a picture, or None: how much each latent cell counts.
    """
    return squared_errors(predict, process, latents, noise, timesteps, weights).mean()


def squared_errors(
    predict: Predict,
    process: NoiseProcess,
    latents: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    weights: Tensor | None = None,
) -> Tensor:
    """(B, 4, h, w) float32: what ``denoising_loss`` is the mean of."""
    noisy_latents = process.add_noise(latents, noise, timesteps)
    target = process.target(latents, noise, timesteps)
    error = (predict(noisy_latents, timesteps).float() - target.float()).square()
    of_timesteps = process.loss_weights(timesteps)
    if of_timesteps is not None:
        error = error * of_timesteps[:, None, None, None]
    return error if weights is None else error * weights
