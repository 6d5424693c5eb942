"""The denoising loss: how far a prediction is from what the model's noise process aims at."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from tincture.models.noise_process import NoiseProcess
from tincture.training.noise import STANDARD, NoiseDraw
from tincture.training.timesteps import OWN, TimestepDraw
from tincture.training.weighting import TimestepWeighting

Predict = Callable[[Tensor, Tensor], Tensor]
"""``(noisy_latents, timesteps) -> noise_pred``: the model with its conditioning."""
Error = Callable[[Tensor, Tensor, float], Tensor]
"""``(prediction, target, scale)``, both of one shape and float32, to the error of each number."""


def _squared(prediction: Tensor, target: Tensor, scale: float) -> Tensor:
    return (prediction - target).square()


def _absolute(prediction: Tensor, target: Tensor, scale: float) -> Tensor:
    return (prediction - target).abs()


def _huber(prediction: Tensor, target: Tensor, scale: float) -> Tensor:
    return functional.huber_loss(prediction, target, reduction="none", delta=scale)


def _smooth_l1(prediction: Tensor, target: Tensor, scale: float) -> Tensor:
    return functional.smooth_l1_loss(prediction, target, reduction="none", beta=scale)


ERRORS: Mapping[str, Error] = types.MappingProxyType(
    {"mse": _squared, "l1": _absolute, "huber": _huber, "smooth_l1": _smooth_l1}
)
"""By name. With d the difference and c the scale: d²; |d|; d²/2 up to c and c (|d| - c/2) beyond; that divided by c."""


@dataclass(frozen=True)
class TrainingLoss:
    """What a step makes smaller: which error, how it is weighed, and at which noise and timesteps it is taken.

    Attributes:
        error: a name of ``ERRORS``.
        scale: of ``huber`` and ``smooth_l1``: up to which difference they are squared, above 0.
        weighting: of timesteps, beside what the noise process itself makes of them.
        noise: draws it.
        timesteps: draws them.
    """

    error: str = "mse"
    scale: float = 1.0
    weighting: TimestepWeighting | None = None
    noise: NoiseDraw = STANDARD
    timesteps: TimestepDraw = OWN

    def errors(
        self,
        predict: Predict,
        process: NoiseProcess,
        latents: Tensor,
        noise: Tensor,
        timesteps: Tensor,
        weights: Tensor | None = None,
        *,
        input_noise: Tensor | None = None,
        global_step: int = 0,
    ) -> Tensor:
        """How far the prediction is from the target, such as the noise or v: (B, 4, h, w) float32, weighed.

        Args:
            predict: of the model.
            process: of the same model; it says what is predicted, and how much each timestep counts.
            latents, noise: (B, 4, h, w) float32.
            timesteps: (B,), drawn by ``process``.
            weights: (B, 1, h, w) with mean 1 over a picture, or None: how much each latent cell counts.
            input_noise: that of the denoiser's input, where it is another than ``noise``.
            global_step: the step that is being made starts from it.
        """
        noisy_latents = process.add_noise(latents, noise if input_noise is None else input_noise, timesteps)
        target = process.target(latents, noise, timesteps)
        error = ERRORS[self.error](predict(noisy_latents, timesteps).float(), target.float(), self.scale)
        own = None if self.weighting is None else self.weighting.weights(process, timesteps, global_step)
        for of_timesteps in (process.loss_weights(timesteps), own):
            if of_timesteps is not None:
                error = error * of_timesteps[:, None, None, None]
        return error if weights is None else error * weights


PLAIN = TrainingLoss()
"""The mean squared error, with nothing chosen: what models are made with, and what validation measures."""
