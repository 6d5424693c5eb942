"""Which base model, and what a user says of it, which counts instead of what its files say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

from tincture.settings.fields import setting

MODEL = "Base model"


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

    @classmethod
    def of(cls, settings: Any) -> Self:
        """Those of settings with the fields of `ModelChoice`, where "auto" leaves it to the files."""
        return cls(
            vae=settings.vae,
            family=None if settings.family == "auto" else settings.family,
            prediction_type=None if settings.prediction_type == "auto" else settings.prediction_type,
            zero_terminal_snr=settings.zero_terminal_snr,
        )


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """The fields that name a base model and overrule its files; part of larger settings, which check them."""

    model: str = setting(
        "",
        MODEL,
        "Base model: picto, a name or hash in the workspace, a path, or a hub id (owner/name); empty: that of the "
        "adapter, else the only or the last used one of the workspace, or picto where there is none.",
        path=True,
    )
    vae: str = setting(
        "", MODEL, "VAE to use instead of the model's own: a name in the workspace, or a path.", path=True
    )
    family: Literal["auto", "sd1", "sd2", "sdxl"] = setting(
        "auto", MODEL, "Family of the model; auto: what its weights say."
    )
    prediction_type: Literal["auto", "epsilon", "v_prediction"] = setting(
        "auto", MODEL, "What the model predicts; auto: what its files say."
    )
    zero_terminal_snr: bool | None = setting(
        None, MODEL, "Whether its last timestep is pure noise; not given: what its files say."
    )

    def overrides(self) -> ModelOverrides:
        """What counts instead of what the model's files say."""
        return ModelOverrides.of(self)
