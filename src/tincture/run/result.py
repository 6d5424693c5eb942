"""How a run ended, as those who asked for it get it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MEASURED = ("step_s", "pictures_per_s", "memory", "phases")
"""What a result says of ``events.RunMeasured``."""
COMPANIONS = "companions"
"""Key of what is said of each further adapter of a run, as of the first."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """An adapter that was trained together with a run's own: where it is, and where the best of it by validation."""

    kind: str
    name: str
    adapter_path: Path
    best_path: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        best = {"best_path": str(self.best_path)} if self.best_path else {}
        return {"kind": self.kind, "name": self.name, "adapter_path": str(self.adapter_path), **best}


@dataclasses.dataclass(frozen=True)
class RunResult:
    """How a run ended.

    ``loss`` is the mean over the window, NaN when no step was made; ``ending`` says why a run that was not interrupted
    ended before its last step, and is empty otherwise. ``overflows`` steps were made again since their gradients
    overflowed in float16; ``divergences`` were skipped or gone back from. ``best_path`` is the adapter as it was where
    validation found it best, None without validation. ``companions`` were trained together with it. ``measured`` has
    what ``MEASURED`` names.
    """

    adapter_path: Path
    run_dir: Path
    global_step: int
    loss: float
    interrupted: bool
    seconds: float
    ending: str = ""
    overflows: int = 0
    divergences: int = 0
    best_path: Path | None = None
    companions: tuple[Trained, ...] = ()
    measured: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, which has no NaN; what a run has nothing of is left out."""
        shown = {
            "adapter_path": str(self.adapter_path),
            "run_dir": str(self.run_dir),
            "global_step": self.global_step,
            "loss": self.loss if math.isfinite(self.loss) else None,
            "interrupted": self.interrupted,
            "ending": self.ending,
            "seconds": self.seconds,
            "overflows": self.overflows,
            "divergences": self.divergences,
        }
        best = {"best_path": str(self.best_path)} if self.best_path else {}
        others = [other.to_dict() for other in self.companions]
        return {**shown, **best, **({COMPANIONS: others} if others else {}), **self.measured}
