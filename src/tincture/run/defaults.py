"""What a run takes where its settings leave something open: by its workspace, adapter and device, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from tincture.models.devices import free_memory, half_precision, resolve_device
from tincture.run.presence import with_describer, with_model
from tincture.settings.train import TrainSettings
from tincture.workspace import Workspace


@dataclass(frozen=True)
class Completed:
    """Settings with nothing left open but what `vram` chooses.

    Attributes:
        reasons: by the names of settings that were not given, why they are what they are.
    """

    settings: TrainSettings
    reasons: Mapping[str, str]

    @property
    def model_reason(self) -> str:
        """Why the model is the one it is; empty where it was named."""
        return self.reasons.get("model", "")


def completed(settings: TrainSettings, workspace: Workspace) -> Completed:
    """The settings of a new run.

    On a GPU what saves memory is chosen so that the run fits, and the frozen model is in the best half precision.

    Raises:
        UsageError: the adapter, the model, what describes pictures, or the device is not there.
    """
    named, why = with_model(settings, workspace)
    named, why_describer = with_describer(named, workspace)
    device = resolve_device(named.device)
    half = "" if device.type == "cpu" else half_precision(device)
    if half and not named.vram and free_memory(device) is None:
        named = named.replace(vram="off")
    found = named.resolved(half)
    reasons = {name: reason for name, reason in (("model", why), ("caption_model", why_describer)) if reason}
    return Completed(found, {**reasons, **dict(_card(settings, found, device))})


def _card(given: TrainSettings, found: TrainSettings, device: torch.device) -> Iterator[tuple[str, str]]:
    if not given.vram and found.vram == "auto":
        yield "vram", f"auto, since {device} is a GPU"
    elif not given.vram:
        yield "vram", f"off, since {'it is a CPU' if device.type == 'cpu' else f'{device} does not say what is free'}"
    if given.precision == "auto" and found.precision != "auto":
        best = "the usual one on a CPU" if device.type == "cpu" else f"the best half precision of {device}"
        yield "precision", f"{found.precision}, {best}"
