"""Where and how precisely a model computes, by the names that settings use."""

from __future__ import annotations

import gc
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


def accelerators() -> list[str]:
    """Names of all devices of the kind that ``auto`` takes, such as ``cuda:0``; none where that is the CPU."""
    if not torch.accelerator.is_available():
        return []
    kind = resolve_device("auto").type
    return [f"{kind}:{number}" for number in range(torch.accelerator.device_count())] if kind != "mps" else [kind]


def half_precision(device: torch.device) -> str:
    """The half precision that ``device`` computes well in: ``bf16``, or ``fp16`` where that is not its own."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "fp16"
    return "bf16"


def device_title(device: torch.device) -> str:
    """What people call it: the card's name, or ``CPU``."""
    if device.type in ("cuda", "xpu"):
        return str(getattr(torch, device.type).get_device_name(device))
    return device.type.upper()


def total_memory(device: torch.device) -> int | None:
    """Bytes that ``device`` has, of a CPU the machine; None where nobody tells."""
    if device.type in ("cuda", "xpu"):
        return int(getattr(torch, device.type).mem_get_info(device)[1])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory())
    try:
        import psutil
    except ImportError:
        return None
    return int(psutil.virtual_memory().total)


def release_memory() -> None:
    """Gives back the memory of models that nobody refers to any more."""
    gc.collect()  # their modules refer to each other
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on ``device`` now; None where nobody tells."""
    if device.type in ("cuda", "xpu"):
        free, _ = getattr(torch, device.type).mem_get_info(device)
        return int(free)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    try:
        import psutil
    except ImportError:
        return None
    return int(psutil.virtual_memory().available)
