"""With which settings a run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tincture.errors import UsageError
from tincture.run.folder import RECORD
from tincture.settings.groups.machine import COMPUTING_SETTINGS, MEMORY_SETTINGS
from tincture.settings.groups.tracking import TRACKING_SETTINGS
from tincture.settings.train import EARLIER_DEFAULTS, TrainSettings


def settings_again(
    run_dir: Path, record: Mapping[str, Any], memory: Mapping[str, Any], device: str = ""
) -> TrainSettings:
    """The settings of a run that goes on: those of its record, but for what is changed from now on.

    Args:
        memory: see ``run.train.resume``.
        device: another one to go on with; empty: the same.

    Raises:
        UsageError: something that cannot change, or a value that is not allowed.
    """
    values = {**EARLIER_DEFAULTS, **record["settings"]}
    recorded = TrainSettings.from_dict(values, source=str(run_dir / RECORD))
    changed = {**_changed_memory(memory), **({"device": device} if device else {})}
    return (TrainSettings.from_dict({**values, **changed}) if changed else recorded).resolved()


def _changed_memory(memory: Mapping[str, Any]) -> dict[str, Any]:
    wrong = set(memory) - {*MEMORY_SETTINGS, *COMPUTING_SETTINGS, *TRACKING_SETTINGS}
    if wrong:
        raise UsageError(
            f"A run cannot go on with another {', '.join(sorted(wrong))}; what can change is "
            f"{', '.join(MEMORY_SETTINGS)}, vram, threads and processes, and {', '.join(TRACKING_SETTINGS)}. For all "
            "else, begin a new run."
        )
    chooses = memory.get("vram", "off") != "off"
    open_again = {"offload": None, "slicing": None, "gradient_checkpointing": None} if chooses else {}
    return {**open_again, **memory}
