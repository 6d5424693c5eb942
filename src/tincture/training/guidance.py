"""Classifier-free guidance while training: what a picture is made of when it is drawn is what is learned.

Ho and Salimans 2022, equation 6: ``negative + scale * (positive - negative)``. With an embedding in the negative prompt
it learns what pictures like those that are trained must be guided away from.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tincture.settings.schedule import Schedule
from tincture.training.loss import Predict


@dataclass(frozen=True)
class Guidance:
    """What predictions are guided away from, and how far.

    Attributes:
        negative_prompt: with names in it, not placeholders.
        scale: by step; at 1 the negative prompt does not count.
    """

    negative_prompt: str
    scale: Schedule

    def apply(self, positive: Predict, negative: Predict, global_step: int) -> Predict:
        """A prediction of both, float32."""
        scale = self.scale.at(global_step)

        def predict(noisy_latents: Tensor, timesteps: Tensor) -> Tensor:
            away, towards = negative(noisy_latents, timesteps).float(), positive(noisy_latents, timesteps).float()
            return away + scale * (towards - away)

        return predict
