"""What settings name that torch alone knows: found out before diffusers and transformers load, which takes longer."""

from __future__ import annotations

from tincture.models.devices import resolve_device
from tincture.settings.optimizers import parse_arguments
from tincture.settings.train import TrainSettings
from tincture.training.optimizer import require_optimizer


def require_usable(settings: TrainSettings) -> None:
    """UsageError for a device that is not there, an optimizer that is none, and arguments that it does not take."""
    if settings.processes in ("", "1"):  # several have rules of their own, which stand where they are started
        resolve_device(settings.device)
    if settings.optimizer:
        require_optimizer(settings.optimizer, parse_arguments(settings.optimizer_args))
