"""Averages of a run: made where the settings ask for them, and the file that they add beside the adapter's."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from tincture.adapters.adapter import Adapter, adapter_class
from tincture.adapters.averaged import BESIDE, WEIGHTS, Averaged
from tincture.adapters.evaluated import Evaluated
from tincture.adapters.joint import MEMBER
from tincture.errors import TinctureError, UsageError
from tincture.kinds.registry import find_kind
from tincture.settings.schedule import Schedule
from tincture.settings.train import TrainSettings
from tincture.workspace import path_beside


def averaged(settings: TrainSettings, adapter: Adapter, optimizer: Any = None) -> Adapter:
    """The adapter, with averages of its weights if the settings ask for them; of several, each with its own.

    So it is if the ``optimizer``, which trains it, averages them by itself.
    """
    for member in adapter.members():
        member.provenance.pop(WEIGHTS, None)  # what it held before the run
    if hasattr(optimizer, "eval"):
        return adapter.with_members([Evaluated(member, optimizer) for member in adapter.members()])
    if not settings.ema:
        return adapter
    decay, publish = Schedule.parse(settings.ema, settings.steps), settings.ema_publish
    members = [Averaged(one, decay.at, warmup=settings.ema_warmup, publish=publish) for one in adapter.members()]
    return adapter.with_members(members)


def check_beside(settings: TrainSettings, adapter: Adapter, path: Path) -> None:
    """Makes sure that the file beside the adapter's ``path`` is the run's to write.

    Raises:
        UsageError: another adapter bears its name.
    """
    if not settings.ema:
        return
    beside = path_beside(path, adapter.name, BESIDE[settings.ema_publish])
    if beside.exists() and not belongs_to(adapter, beside):
        raise UsageError(
            f"{beside} would be overwritten: with ema, weights that are not published are saved under that name, and "
            f"it is not of a run of {adapter.name!r}. Rename it, or train without ema."
        )


def belongs_to(adapter: Adapter, beside: Path) -> bool:
    """Whether the file beside that of ``adapter`` was left by a run of it, and is no adapter of its own by now."""
    try:
        found = adapter_class(find_kind(adapter.kind)).load(beside).provenance
    except TinctureError:
        return False
    settings, own = found.get("settings"), found.get(MEMBER)
    names = (adapter.name, f"{adapter.name}{beside.suffix}")  # as it was asked for, with or without the file's ending
    asked = own if isinstance(own, dict) else settings
    return WEIGHTS in found and isinstance(asked, dict) and asked.get("name") in names


def planned(settings: TrainSettings, adapter: Adapter, path: Path) -> dict[str, str]:
    """By file that the run will write, which weights it holds; nothing without averages."""
    if not settings.ema:
        return {}
    other = "raw" if settings.ema_publish == "average" else "average"
    beside = path_beside(path, adapter.name, BESIDE[settings.ema_publish])
    return {str(path): settings.ema_publish, str(beside): other}


def remark_average(adapter: Adapter, path: Path) -> None:
    """Warns that the adapter in ``path`` holds averages, when what was trained lies beside it."""
    raw = path_beside(path, adapter.name, BESIDE["average"])
    if adapter.provenance.get(WEIGHTS) == "average" and raw.exists():
        warnings.warn(
            f"{path.name} holds averaged weights, from which this training begins. What was trained, with the "
            f"optimizer's state if that was saved, is {raw.stem!r}.",
            stacklevel=3,
        )
