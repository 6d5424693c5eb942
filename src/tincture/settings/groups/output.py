"""What a run writes beside the adapter: copies, states, logs, and who made it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tincture.settings.checks import at_least
from tincture.settings.fields import CheckedSettings, setting

GROUP = "Copies and logs"


@dataclass(frozen=True, kw_only=True)
class OutputSettings(CheckedSettings):
    """Copies, states and logs."""

    log_dir: str = setting("", GROUP, "Folder for run folders; empty: textual_inversion in the workspace.", path=True)
    save_every: int = setting(500, GROUP, "Steps between copies of the adapter; 0: none.", at_least(0))
    keep_copies: int = setting(0, GROUP, "Keep only so many of the newest copies; 0: all.", at_least(0))
    keep_copies_every: int = setting(
        0, GROUP, "Keep copies whose step is a multiple of this too; 0: none of them.", at_least(0)
    )
    keep_states: int = setting(
        2, GROUP, "Keep so many of the newest training states, which a resume begins from.", at_least(1)
    )
    keep_states_every: int = setting(
        0, GROUP, "Keep states whose step is a multiple of this too; 0: none of them.", at_least(0)
    )
    save_optimizer_state: bool = setting(
        False,
        GROUP,
        "Keep the optimizer's state beside the finished file and its copies, for a later training.",
    )
    author: str = setting("", GROUP, "Who made it, kept in the finished file.")
    license: str = setting("", GROUP, "Licence of the finished file, kept in it.")
    log_every: int = setting(
        10,
        GROUP,
        "Steps between readings of the losses from the device, which a NaN is noticed by; the log has each step.",
        at_least(1),
    )

    @classmethod
    def faults_between(cls, values: Mapping[str, Any], faulty: Collection[str]) -> list[str]:
        if values.get("keep_copies_every") and not values.get("keep_copies"):
            return ["keep_copies_every is given, but keep_copies is 0, so that all copies are kept; give both"]
        return []
