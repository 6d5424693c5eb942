"""Settings so that a run fits into its device's memory, and what to do when it did not."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from tincture.errors import OutOfMemoryError, UsageError
from tincture.models.devices import free_memory, half_precision
from tincture.run.memory.estimate import PREVIEWS, MemoryEstimate, MemoryEstimator
from tincture.settings.groups.machine import MEMORY_SETTINGS
from tincture.settings.train import TrainSettings

_SHARE = 0.92
"""Of the memory that is there: what is freed leaves gaps, and some kernels want room of their own."""
_CUDA_ITSELF = 512 * 2**20
"""Bytes that CUDA takes on a device before torch asks for any: about 300 to 500 MiB, by device and driver."""
_SHORTAGE = re.compile(
    r"out of memory|not enough memory|can't allocate memory|cannot allocate memory|DefaultCPUAllocator|ALLOC_FAILED",
    re.I,
)

_SMALLER_PICTURES = "a smaller --width and --height"

Change = dict[str, Any]


def available_memory(settings: TrainSettings, device: torch.device) -> int:
    """Bytes that a run may take by ``settings.vram``, which is not off.

    Raises:
        UsageError: it is auto, and nobody tells what the device has.
    """
    if settings.vram != "auto":
        total = float(settings.vram) * 2**30
        return int((total - (_CUDA_ITSELF if device.type == "cuda" else 0)) * _SHARE)
    free = free_memory(device)
    if free is None:
        raise UsageError(
            f"--vram auto cannot find out how much memory the device {device} has; install psutil, or give gigabytes."
        )
    return int(free * _SHARE)


def fit(
    settings: TrainSettings, estimator: MemoryEstimator, available: int, device: torch.device
) -> tuple[TrainSettings, MemoryEstimate]:
    """``settings`` with the cheapest choice, in time, of what they leave open, so that the run fits.

    Measures are taken in the order of ``MEMORY_SETTINGS`` until it fits; those that turn out to be needless are dropped
    again, the dearest first. What the user gave stays.

    Args:
        available: bytes that the run may take.

    Raises:
        OutOfMemoryError: it does not fit whatever is chosen.
    """
    usual = settings.open_memory_settings()
    measures = {name: value for name, value in saving(device).items() if name in usual}

    def chosen(names: list[str]) -> TrainSettings:
        return settings.replace(**{**usual, **{name: measures[name] for name in names}})

    def fits(names: list[str]) -> bool:
        return estimator.estimate(chosen(names)).peak <= available

    order = list(measures)
    enough = next((order[:count] for count in range(len(order) + 1) if fits(order[:count])), None)
    if enough is None:
        raise OutOfMemoryError(_too_large(chosen(order), estimator, available, device))
    for name in reversed(enough[:-1]):
        fewer = [other for other in enough if other != name]
        # To round weights to eight bits and compute with 32 would be slow for nothing.
        if not (name == "precision" and "weight_storage" in fewer) and fits(fewer):
            enough = fewer
    found = chosen(enough)
    return found, estimator.estimate(found)


def saving(device: torch.device) -> dict[str, Any]:
    """Of ``MEMORY_SETTINGS``, the values that save memory on ``device``, those that cost least time first."""
    values = {
        "offload": True,
        "slicing": True,
        "precision": half_precision(device),
        "gradient_checkpointing": True,
        "weight_storage": "float8",
    }
    unusable = {"cpu": {"offload"}, "mps": {"weight_storage"}}.get(device.type, set())
    return {name: values[name] for name in MEMORY_SETTINGS if name not in unusable}


# --- shortage ---------------------------------------------------------------------------------------------------------


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a CPU or an accelerator."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and bool(_SHORTAGE.search(str(error)))


@contextmanager
def shortage_explained(
    settings: TrainSettings, device: torch.device, estimator: Callable[[], MemoryEstimator | None], saved: str = ""
) -> Iterator[None]:
    """Turns an error that says that memory ran out into a sentence on what to change.

    Args:
        settings: of the run, all its memory settings given.
        estimator: makes what tells the memory of other settings, or None where there is none.
        saved: the run's folder, if there is something in it to go on from.

    Raises:
        OutOfMemoryError: memory ran out inside.
    """
    try:
        yield
    except Exception as error:
        if not is_shortage(error):
            raise
        cause = error.with_traceback(None)  # whose frames hold on to the tensors that filled the memory
    else:
        return
    try:
        text = shortage_text(settings, device, estimator(), saved)
    except Exception:  # a wish to help must not hide what happened
        text = shortage_text(settings, device, None, saved)
    raise OutOfMemoryError(text) from cause


def shortage_text(
    settings: TrainSettings, device: torch.device, estimator: MemoryEstimator | None, saved: str = ""
) -> str:
    """What to change, and how much memory the run takes then; see ``shortage_explained``."""
    begin = f"The memory of the device {device} ran out."
    changes = _savings(settings, device)
    if not saved:
        advice = _advice(settings, [*changes, *_smaller(settings, estimator)], estimator, _SMALLER_PICTURES)
        return f"{begin} {advice} --vram auto chooses among them by itself."
    whole = f"What was saved is whole: go on with tincture resume {saved!r} and"
    if not changes:
        return f"{begin} {whole} more memory, or begin a new run with smaller pictures or batches."
    return f"{begin} {_advice(settings, changes, estimator)} {whole} such an option."


def _too_large(settings: TrainSettings, estimator: MemoryEstimator, available: int, device: torch.device) -> str:
    is_guess = settings.vram == "auto"
    given = "is free" if is_guess else f"is to be used of {settings.vram} (--vram)"
    return (
        f"The run does not fit into the memory of the device {device}, of which {_gib(available)} {given}. "
        f"{_advice(settings, _smaller(settings, estimator), estimator, _SMALLER_PICTURES)}"
        f"{' With --vram off it is tried all the same.' if is_guess else ''}"
    )


def _advice(
    settings: TrainSettings, changes: list[Change], estimator: MemoryEstimator | None, besides: str = ""
) -> str:
    """What the run takes, and what it would take after each of the changes and after all; ``besides`` always helps."""
    if estimator is None:
        return f"Give {_either([*map(_flags, changes), *([besides] if besides else [])])}."
    now = estimator.estimate(settings)
    if len(changes) > 1:
        changes = [*changes, {name: value for change in changes for name, value in change.items()}]
    options = [
        f"{_gib(estimator.estimate(settings.replace(**change)).peak)} with {_flags(change)}" for change in changes
    ]
    options += [f"less with {besides}"] if besides else []
    return f"The run takes about {_gib(now.peak)} ({now.fullest}), and {_either(options)}."


def _savings(settings: TrainSettings, device: torch.device) -> list[Change]:
    """What may be changed to save memory, each by itself."""
    return [
        {name: value}
        for name, value in saving(device).items()
        if getattr(settings, name) != value and not (name == "precision" and settings.precision in ("bf16", "fp16"))
    ]


def _smaller(settings: TrainSettings, estimator: MemoryEstimator | None) -> list[Change]:
    """What makes a run smaller: its batch in parts, which comes to about the same; no previews, if they take most."""
    changes: list[Change] = []
    if settings.batch_size > 1:
        parts = settings.batch_size * settings.gradient_accumulation_steps
        changes.append({"batch_size": 1, "gradient_accumulation_steps": parts})
    if estimator is not None and estimator.estimate(settings).fullest == PREVIEWS:
        changes.append({"preview_every": 0})
    return changes


def _flags(change: Mapping[str, Any]) -> str:
    return " ".join(
        f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}") for name, value in change.items()
    )


def _either(texts: Iterable[str]) -> str:
    listed = list(texts)
    return " or ".join([", ".join(listed[:-1]), listed[-1]] if len(listed) > 1 else listed)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:.1f} MiB"
