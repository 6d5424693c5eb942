"""The parts of a model on the way from its files to a ``StableDiffusion``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tincture.models.families import Family
from tincture.models.loading.prediction import Prediction
from tincture.models.text_encoder import TextEncoder


@dataclass(frozen=True)
class LoadOptions:
    """What the user says of a model, instead of what its files say, and where it shall go.

    Attributes:
        device: where the weights shall lie.
        dtype: of U-Net and text encoders; the VAE is float32.
        family: ``sd1``, ``sd2`` or ``sdxl``; None for what its weights say.
        prediction_type: ``epsilon`` or ``v_prediction``; None for what its files say.
        zero_terminal_snr: see ``Prediction``; None for what its files say.
        text_only: whether U-Net and VAE may stay without values.
        configs: diffusers folder whose configurations and tokenizers a single file is loaded with; None for those that
            follow from its shapes and family.
    """

    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32
    family: str | None = None
    prediction_type: str | None = None
    zero_terminal_snr: bool | None = None
    text_only: bool = False
    configs: Path | None = None

    @property
    def picture_device(self) -> torch.device | str:
        """Where U-Net and VAE go."""
        return "meta" if self.text_only else self.device


@dataclass(frozen=True)
class Parts:
    """What a model is made of.

    Attributes:
        scheduler_config: of diffusers' DDPMScheduler.
        prediction: what the U-Net predicts, and who says so.
        notes: what is worth telling the user, as sentences.
    """

    family: Family
    text_encoders: tuple[TextEncoder, ...]
    vae: Any
    unet: Any
    scheduler_config: dict[str, Any]
    prediction: Prediction
    notes: tuple[str, ...] = ()
