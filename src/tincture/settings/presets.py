"""Presets of a run: settings to begin from, by what is to be learned and how much care it is worth.

A preset is what people would change first; whatever it leaves out is as it usually is. What depends on the kind of
adapter stands in the kind's description. A workspace has presets of its own, each a run file that does not say what is
trained on which pictures. Only the standard library is imported.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tincture.errors import UsageError
from tincture.kinds.registry import find_kind
from tincture.settings.run_file import checked_part
from tincture.settings.toml import read_toml
from tincture.workspace import Workspace

SUFFIX = ".toml"
NOT_IN_ONE = ("name", "data", "model", "device")
"""Settings that a workspace's own preset leaves to each run."""
SMALL_MODEL = "picto"
"""The embedded model, which learns within some hundred steps; for it, a kind's ``preset`` counts."""


@dataclass(frozen=True)
class Preset:
    """Settings to begin from.

    Attributes:
        name: on the command line, and in the kinds' descriptions.
        title: what people read.
        help: what it is for, in some words.
        common: settings for every kind.
        small: what is other for the embedded model.
        kind: the only kind it is for; empty for those that every kind has.
    """

    name: str
    title: str
    help: str
    common: Mapping[str, Any]
    small: Mapping[str, Any] = field(default_factory=dict)
    kind: str = ""

    def settings(self, kind: str, model: str) -> dict[str, Any]:
        """Fields of ``TrainSettings``, by the kind of adapter and the base model's name; UsageError: not for that kind.

        Of one kind's own presets the model does not matter.
        """
        described = find_kind(kind)
        if self.kind and kind != self.kind:
            raise UsageError(f"The preset {self.name!r} is for {find_kind(self.kind).one}, not for {described.one}.")
        if self.kind:
            return dict(self.common)
        own = described.presets.get(self.name, {})
        if model != SMALL_MODEL:
            return {**self.common, **own}
        template = {name: value for name, value in own.items() if name == "template"}
        small = described.small_presets.get(self.name, {})
        return {**self.common, **described.preset, **template, **self.small, **small}


_SMALL_STEPS = {"preview_every": 50, "save_every": 100}
PRESETS: tuple[Preset, ...] = (
    Preset(
        "quick",
        "Quick try",
        "are pictures and captions sound?",
        {"steps": 300, "preview_every": 50, "save_every": 0, "latent_sampling_method": "deterministic"},
        {"steps": 100, "preview_every": 25},
    ),
    Preset(
        "subject",
        "Subject",
        "a person, an animal, a thing",
        {"steps": 2000, "preview_every": 200, "save_every": 200, "latent_sampling_method": "deterministic"},
        _SMALL_STEPS,
    ),
    Preset(
        "style",
        "Style",
        "a manner of drawing or painting",
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
        "slower, averaged, with validation",
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


def find_preset(name: str, workspace: Workspace | None = None) -> Preset:
    """The preset called ``name``, which may be the workspace's own; UsageError names those that there are."""
    if name in NAMED:
        return NAMED[name]
    own = own_presets(workspace) if workspace else []
    if name not in own or workspace is None:
        raise UsageError(f"There is no preset {name!r}; there are {', '.join([*NAMED, *own])}.")
    path = workspace.presets / f"{name}{SUFFIX}"
    values = checked_part(read_toml(path), str(path))
    kind = values.get("kind")
    if not kind:
        raise UsageError(
            f'The preset {str(path)!r} does not say what it is for; add a line such as kind = "embedding".'
        )
    common = {setting: value for setting, value in values.items() if setting not in NOT_IN_ONE}
    return Preset(name, name, "", common, kind=kind)


def own_presets(workspace: Workspace) -> list[str]:
    """Names of the workspace's own presets, sorted; one that is called as a built-in one is none."""
    if not workspace.presets.is_dir():
        return []
    names = (path.stem for path in workspace.presets.glob(f"*{SUFFIX}") if path.is_file())
    return sorted(name for name in names if name not in NAMED and not name.startswith("."))
