"""Presets of a run: settings to begin from, by what is to be learned and how much care it is worth.

A preset is what people would change first; whatever it leaves out is as it usually is. What depends on the kind of
adapter stands in the kind's description. Only the standard library is imported.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tincture.errors import UsageError
from tincture.kinds.registry import find_kind

SMALL_MODEL = "picto"
"""The embedded model, which learns within some hundred steps; for it, a kind's ``preset`` counts."""


@dataclass(frozen=True)
class Preset:
    """Settings to begin from.

    Attributes:
        name: on the command line, and in the kinds' descriptions.
        title: what people read.
        help: what it is for, in a sentence.
        common: settings for every kind.
        small: what is other for the embedded model.
    """

    name: str
    title: str
    help: str
    common: Mapping[str, Any]
    small: Mapping[str, Any] = field(default_factory=dict)

    def settings(self, kind: str, model: str) -> dict[str, Any]:
        """Fields of ``TrainSettings``, by the kind of adapter and the base model's name."""
        described = find_kind(kind)
        own = described.presets.get(self.name, {})
        if model != SMALL_MODEL:
            return {**self.common, **own}
        template = {name: value for name, value in own.items() if name == "template"}
        return {**self.common, **described.preset, **template, **self.small}


_SMALL_STEPS = {"preview_every": 50, "save_every": 100}
PRESETS: tuple[Preset, ...] = (
    Preset(
        "quick",
        "Quick try",
        "A short run whose previews show whether pictures and captions are sound.",
        {"steps": 300, "preview_every": 50, "save_every": 0, "latent_sampling_method": "deterministic"},
        {"steps": 100, "preview_every": 25},
    ),
    Preset(
        "subject",
        "Subject",
        "A person, an animal or a thing, from a handful of pictures.",
        {"steps": 2000, "preview_every": 200, "save_every": 200, "latent_sampling_method": "deterministic"},
        _SMALL_STEPS,
    ),
    Preset(
        "style",
        "Style",
        "A manner of drawing or painting, from some dozen pictures with captions.",
        {
            "steps": 3000,
            "preview_every": 250,
            "save_every": 250,
            "latent_sampling_method": "deterministic",
            "shuffle_tags": True,
        },
        _SMALL_STEPS,
    ),
    Preset(
        "careful",
        "Careful",
        "Slower and steadier: more pictures a step, averaged weights, and the loss on pictures that are not trained.",
        {
            "steps": 5000,
            "preview_every": 250,
            "save_every": 250,
            "latent_sampling_method": "random",
            "gradient_accumulation_steps": 4,
            "clip_grad_mode": "norm",
            "clip_grad_value": "1",
            "ema": "0.99",
            "validation_share": 0.1,
            "validation_every": 250,
            "keep_copies": 8,
        },
        {**_SMALL_STEPS, "steps": 400, "validation_every": 50, "ema": "0.95"},
    ),
)
NAMED: Mapping[str, Preset] = types.MappingProxyType({preset.name: preset for preset in PRESETS})


def find_preset(name: str) -> Preset:
    """The preset called ``name``; UsageError names those that there are."""
    if name not in NAMED:
        raise UsageError(f"There is no preset {name!r}; there are {', '.join(NAMED)}.")
    return NAMED[name]
