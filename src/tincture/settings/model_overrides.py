"""What a user says of a base model, which counts instead of what its files say. Only the standard library is used."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelOverrides:
    """See ``models.loading.load_model``; None and "" leave it to the files.

    Attributes:
        vae: path of a VAE, or its name in the workspace's ``models/VAE``.
        family: ``sd1``, ``sd2`` or ``sdxl``.
        prediction_type: ``epsilon`` or ``v_prediction``.
        zero_terminal_snr: whether the last timestep is pure noise.
    """

    vae: str = ""
    family: str | None = None
    prediction_type: str | None = None
    zero_terminal_snr: bool | None = None
