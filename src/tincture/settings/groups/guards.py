"""Averages of the trained weights, and what becomes of steps that go wrong."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tincture.settings.checks import Bounds, at_least
from tincture.settings.fields import CheckedSettings, setting
from tincture.settings.optimizers import averages_by_itself
from tincture.settings.schedule import USUAL_STEPS, Schedule, schedule_faults

GROUP = "Averages and guards"


def _spike_threshold(value: float) -> str | None:
    return None if value == 0 or value > 1 else "0 or above 1"


def _decay_faults(values: Mapping[str, Any], faulty: Collection[str]) -> list[str]:
    text = values.get("ema", "")
    faults = schedule_faults(values, faulty, ("ema",))
    if faults or not text or "steps" in faulty:
        return faults
    if Schedule.parse(text, values.get("steps", USUAL_STEPS)).largest < 1:
        return []
    return [f"ema is {text!r}, but a decay must be below 1; usual ones are 0.99 to 0.9999"]


@dataclass(frozen=True, kw_only=True)
class GuardSettings(CheckedSettings):
    """What keeps a run from going astray."""

    ema: str = setting(
        "",
        GROUP,
        "Publish exponential averages of the trained weights: their decay, such as 0.999, or its schedule 'decay:step, "
        "decay'; empty: none.",
        schedule=True,
        largest=2000,
    )
    ema_warmup: bool = setting(True, GROUP, "The decay after n steps is at most (1 + n) / (10 + n).")
    ema_publish: Literal["average", "raw"] = setting(
        "average",
        GROUP,
        "Which weights the file, copies and previews show; the others stand beside, as NAME-raw or NAME-average.",
    )
    on_divergence: Literal["stop", "skip", "rollback"] = setting(
        "stop",
        GROUP,
        "What becomes of a step whose loss or gradients are NaN or infinite: the run stops, the step is left out, or "
        "the run goes back to its last state with a lower rate.",
    )
    divergence_limit: int = setting(
        3, GROUP, "How often steps may be skipped or gone back from; then the run stops.", at_least(1), largest=10**6
    )
    rollback_factor: float = setting(
        0.5, GROUP, "Going back multiplies the learning rate by this.", Bounds("above 0 and below 1", 1e-6, below=1)
    )
    spike_threshold: float = setting(
        0.0,
        GROUP,
        "A loss over so many times the mean of the 32 before is a divergence too; 0: none is.",
        _spike_threshold,
    )
    overflow_limit: int = setting(
        20, GROUP, "So many steps in a row whose float16 gradients overflow stop the run.", at_least(1), largest=1000
    )

    @classmethod
    def faults_between(cls, values: Mapping[str, Any], faulty: Collection[str]) -> list[str]:
        faults = _decay_faults(values, faulty)
        if values.get("ema") and averages_by_itself(values.get("optimizer", "")):
            faults.append(
                f"ema is {values['ema']!r}, but {values['optimizer']} averages the weights itself; leave ema empty, or "
                "choose another optimizer"
            )
        if values.get("norm_limit") and averages_by_itself(values.get("optimizer", "")):
            faults.append(
                f"norm_limit is {values['norm_limit']!r}, but {values['optimizer']} publishes averages, which a limit "
                "after each step does not hold; give norm_weight, or choose another optimizer"
            )
        if values.get("ema_publish", "average") == "raw" and not values.get("ema"):
            faults.append(
                "ema_publish is 'raw', but ema is empty, so that no weights are averaged; give both or neither"
            )
        return faults
