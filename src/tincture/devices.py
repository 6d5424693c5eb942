"""Where and how precisely a model computes, by the names that settings use."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch

from tincture.errors import UsageError

PRECISIONS: Mapping[str, torch.dtype] = MappingProxyType(
    {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
)


def resolve_device(name: str) -> torch.device:
    """``auto`` is the first accelerator there is, else the CPU; UsageError for a device that is not there."""
    if name == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found or torch.device("cpu")
    device = torch.device(name)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"Device {name!r} cannot be used here: {reason} Try --device auto; tincture doctor lists what is there."
        ) from error
    return device
