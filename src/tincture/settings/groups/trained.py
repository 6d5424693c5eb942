"""What is trained, and on which model."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tincture.errors import UsageError
from tincture.kinds.registry import any_of, find_kind, kind_names
from tincture.settings.fields import CheckedSettings, same_as, setting
from tincture.settings.model_overrides import ModelChoice
from tincture.workspace import MAX_NAME_LENGTH, clean_name

GROUP = "What is trained"


def _name(value: str) -> str | None:
    try:
        clean_name(value)
    except UsageError:
        return f"made of letters, digits, blanks and . _ - only, and at most {MAX_NAME_LENGTH} characters long"
    return None


@dataclass(frozen=True, kw_only=True)
class TrainedSettings(CheckedSettings):
    """The adapter by kind and name, and the frozen model."""

    kind: str = setting(
        dataclasses.MISSING, GROUP, lambda: f"What is trained: {any_of(kind_names())}.", choices=kind_names
    )
    name: str = setting(
        dataclasses.MISSING,
        GROUP,
        lambda: f"Name of the {any_of(kind_names())}, made by create.",
        _name,
        strip=True,
    )
    model: str = same_as(ModelChoice, "model")
    vae: str = same_as(ModelChoice, "vae")
    family: Literal["auto", "sd1", "sd2", "sdxl"] = same_as(ModelChoice, "family")
    prediction_type: Literal["auto", "epsilon", "v_prediction"] = same_as(ModelChoice, "prediction_type")
    zero_terminal_snr: bool | None = same_as(ModelChoice, "zero_terminal_snr")

    @classmethod
    def faults_between(cls, values: Mapping[str, Any], faulty: Collection[str]) -> list[str]:
        return find_kind(values["kind"]).faults(values) if "kind" in values else []  # none before the kind is known
