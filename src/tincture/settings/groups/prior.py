"""Pictures of what the model knows already and shall not forget, trained beside those to be learned."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tincture.randomness import LARGEST_REQUESTED_SEED
from tincture.settings.checks import at_least, drawn_seed, filled_if_any
from tincture.settings.drawing import Drawing
from tincture.settings.fields import CheckedSettings, same_as, setting
from tincture.settings.schedule import weight_faults

GROUP = "Prior preservation"
_DRAWN = "; of pictures that --prior-prompt draws."
_OF_PICTURES = ("prior_weight", "prior_template")
"""What counts only where there are pictures."""
_OF_DRAWING = ("count", "negative_prompt", "steps", "sampler", "guidance_scale", "seed")
"""What counts only where the model draws them."""


@dataclass(frozen=True, kw_only=True)
class PriorSettings(CheckedSettings):
    """Regularisation pictures."""

    prior_data: str | tuple[str, ...] = setting(
        (),
        GROUP,
        "Folder of pictures of what the model shall not forget, trained beside those in the data; repeat for several.",
        filled_if_any,
        path=True,
    )
    prior_weight: str = setting(
        "", GROUP, "How much their loss counts, or its schedule; empty: 1.", number=True, schedule=True, largest=2000
    )
    prior_template: str = setting(
        "", GROUP, "Their prompt template, by name or path; empty: the caption alone.", path=True
    )
    prior_prompt: str = setting(
        "",
        GROUP,
        "Prompt by which the model itself draws such pictures before the run: those that are not yet in --prior-data, "
        "or, without that, in a folder where later runs with the same settings find them.",
        strip=True,
    )
    prior_count: int | None = setting(
        None, GROUP, f"How many it draws; not given: 50{_DRAWN}", at_least(1), largest=10**4
    )
    prior_negative_prompt: str = same_as(
        Drawing, "negative_prompt", group=GROUP, help_text=f"What they must not show{_DRAWN}"
    )
    prior_steps: int = same_as(Drawing, "steps", group=GROUP, help_text=f"Sampling steps{_DRAWN}")
    prior_sampler: str = same_as(Drawing, "sampler", group=GROUP, help_text=f"Sampler, as of previews{_DRAWN}")
    prior_guidance_scale: float | None = same_as(
        Drawing, "guidance_scale", group=GROUP, help_text=f"Guidance; not given: the model's own{_DRAWN}"
    )
    prior_seed: int = setting(
        0, GROUP, f"Seed of the first; the others count up{_DRAWN}", drawn_seed, largest=LARGEST_REQUESTED_SEED
    )

    @classmethod
    def faults_between(cls, values: Mapping[str, Any], faulty: Collection[str]) -> list[str]:
        faults = weight_faults(values, faulty, "prior_weight", "so that prior_data would not count; leave both out")
        data, prompt = values.get("prior_data"), values.get("prior_prompt")
        if not data and not prompt and not {"prior_data", "prior_prompt"} & set(faulty):
            faults += [
                f"{name} is {values[name]!r}, but prior_data is empty, so that there are no pictures it could "
                "be of; give both or neither"
                for name in _OF_PICTURES
                if values.get(name)
            ]
        if not prompt and "prior_prompt" not in faulty:
            usual = {field.name: field.default for field in dataclasses.fields(PriorSettings)}
            faults += [
                f"{name} is {values[name]!r}, but prior_prompt is empty, so that no pictures are drawn; give both or "
                "neither"
                for name in (f"prior_{part}" for part in _OF_DRAWING)
                if name not in faulty and values.get(name, usual[name]) != usual[name]
            ]
        if prompt and isinstance(data, tuple) and len(data) > 1:
            faults.append(
                f"prior_data has {len(data)} folders, but the pictures of prior_prompt are drawn into one; name one, "
                "or none"
            )
        return faults
