"""Who else is given a run's numbers: TensorBoard and other trackers, and which numbers these are.

None of it changes what a run trains, so that one that goes on may have others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tincture.settings.checks import filled
from tincture.settings.fields import CheckedSettings, setting

GROUP = "Trackers"
TENSORBOARD = "tensorboard"
TRACKERS: Mapping[str, str] = {
    TENSORBOARD: "tensorboard",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "comet_ml": "comet_ml",
    "aim": "aim",
    "clearml": "clearml",
    "dvclive": "dvclive",
    "swanlab": "swanlab",
    "trackio": "trackio",
}
"""Those that Accelerate knows, with the module that each of them brings."""
SERVERS: Mapping[str, str] = {"mlflow": "MLFLOW_TRACKING_URI", "wandb": "WANDB_BASE_URL"}
"""The variables by which trackers find a server; where it does not answer, they try again for minutes."""
TRACKING_SETTINGS = ("tensorboard", "log_with", "log_project", "log_norms")
"""What a run that goes on may have otherwise."""


def tracker_names(value: Any) -> Any:
    """Names of trackers, also as one text with commas between them; each once."""
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list | tuple) or not all(isinstance(each, str) for each in given):
        return value
    return tuple(dict.fromkeys(name for each in given for name in (part.strip() for part in each.split(",")) if name))


def known_trackers(names: tuple[str, ...]) -> str | None:
    """Trackers that there are."""
    return None if set(names) <= TRACKERS.keys() else f"one or more of {', '.join(TRACKERS)}"


@dataclass(frozen=True, kw_only=True)
class TrackingSettings(CheckedSettings):
    """Trackers and what they get."""

    tensorboard: bool = setting(False, GROUP, "Write TensorBoard logs too (needs tincture[tensorboard]).")
    log_with: tuple[str, ...] = setting(
        (),
        GROUP,
        f"Give the run's numbers and previews to trackers too: {', '.join(TRACKERS)}; repeat for several.",
        known_trackers,
        meaning=tracker_names,
        most_items=len(TRACKERS),
    )
    log_project: str = setting("tincture", GROUP, "Project or experiment of the trackers.", filled, largest=100)
    log_norms: bool = setting(
        False, GROUP, "Log norms of gradients and weights of every step; with a tracker they always are."
    )

    @property
    def trackers(self) -> tuple[str, ...]:
        """All that get the numbers."""
        return tuple(dict.fromkeys((*([TENSORBOARD] if self.tensorboard else []), *self.log_with)))

    @property
    def logs_norms(self) -> bool:
        """Whether norms are logged."""
        return self.log_norms or bool(self.trackers)
