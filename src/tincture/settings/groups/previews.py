"""The pictures that are drawn while a run goes on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tincture.kinds.registry import find_kind
from tincture.randomness import LARGEST_REQUESTED_SEED
from tincture.settings.checks import MOST_PIXELS, at_least, drawn_seed, side_or_chosen
from tincture.settings.companions import sound_companions
from tincture.settings.drawing import Drawing
from tincture.settings.fields import CheckedSettings, same_as, setting

GROUP = "Previews"


@dataclass(frozen=True, kw_only=True)
class PreviewSettings(CheckedSettings):
    """How previews are drawn, and when."""

    preview_every: int = setting(500, GROUP, "Steps between previews; 0: none.", at_least(0))
    preview_prompts: tuple[str, ...] = setting(
        (), GROUP, "Prompt of a preview; repeat for several. Not given: a prompt of the data.", most_items=64
    )
    preview_negative_prompt: str = same_as(Drawing, "negative_prompt", group=GROUP)
    preview_steps: int = same_as(Drawing, "steps", group=GROUP)
    preview_sampler: str = same_as(Drawing, "sampler", group=GROUP)
    preview_guidance_scale: float | None = same_as(Drawing, "guidance_scale", group=GROUP)
    preview_seed: int = setting(0, GROUP, "Seed of the previews.", drawn_seed, largest=LARGEST_REQUESTED_SEED)
    preview_width: int = setting(
        0, GROUP, "Width of the previews in pixels; 0: that of --width.", side_or_chosen, largest=MOST_PIXELS
    )
    preview_height: int = setting(
        0, GROUP, "Height of the previews in pixels; 0: that of --height.", side_or_chosen, largest=MOST_PIXELS
    )
    preview_with_embedding: bool = setting(
        False, GROUP, "Save the first preview once more as a PNG card that holds the embedding, in image_embeddings."
    )

    @classmethod
    def faults_between(cls, values: Mapping[str, Any], faulty: Collection[str]) -> list[str]:
        kinds = [values["kind"], *(other.kind for other in sound_companions(values))] if "kind" in values else []
        has_card = not kinds or any(find_kind(kind).has_card for kind in kinds)
        if values.get("preview_with_embedding") and values.get("preview_every") == 0 and has_card:
            return ["preview_with_embedding is on, but preview_every is 0, so that there is no preview; leave one out"]
        return []
