"""Training as pictures are drawn: guided away from a negative prompt, in which what is trained may stand."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tincture.settings.fields import CheckedSettings, setting
from tincture.settings.schedule import USUAL_STEPS, Schedule, schedule_faults

GROUP = "Negative prompt"
USUAL_GUIDANCE = "3"
_NO_GUIDANCE: Mapping[float, str] = {1.0: "negative_prompt", 0.0: "the prompts of the pictures"}
"""Scales at which only one of the two predictions is left, with what the other one is of."""


@dataclass(frozen=True, kw_only=True)
class NegativeSettings(CheckedSettings):
    """A prompt that predictions are guided away from while the run trains."""

    negative_prompt: str = setting(
        "",
        GROUP,
        "Train predictions that are guided away from this prompt, as pictures are drawn; with [name] in it the "
        "embedding is trained for negative prompts.",
        strip=True,
        largest=10_000,
    )
    guidance_scale: str = setting(
        "",
        GROUP,
        "How far they are guided, or its schedule; empty: 3. For --negative-prompt.",
        number=True,
        schedule=True,
        largest=2000,
    )

    @classmethod
    def faults_between(cls, values: Mapping[str, Any], faulty: Collection[str]) -> list[str]:
        faults = schedule_faults(values, faulty, ("guidance_scale",))
        scale, prompt = values.get("guidance_scale"), values.get("negative_prompt")
        if not prompt and "negative_prompt" not in faulty:
            if scale:
                faults.append(
                    f"guidance_scale is {scale!r}, but negative_prompt is empty, so that there is nothing to be guided "
                    "away from; give both or neither"
                )
            return faults
        if prompt and scale and not faults:
            schedule = Schedule.parse(scale, values.get("steps") or USUAL_STEPS)
            for level, uncounted in _NO_GUIDANCE.items():
                if all({phase.rate, phase.goal} <= {level, None} for phase in schedule.phases):
                    faults.append(
                        f"guidance_scale is {scale!r}, so that {uncounted} would not count; a usual one is "
                        f"{USUAL_GUIDANCE}"
                    )
        if prompt and values.get("attention_mask_weight"):
            faults.append(
                "negative_prompt is given, but attention_mask_weight holds the attention of a prediction without "
                "guidance to the masks; leave one of them out"
            )
        return faults
