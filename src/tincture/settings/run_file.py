"""Run files: TOML files of a training's settings, whole or in part.

What a run file leaves out is as it usually is. A part, such as a preset, need not say what is trained on what.
Only the standard library is imported.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from tincture.kinds.registry import kind_names
from tincture.settings.fields import as_meant
from tincture.settings.toml import toml_lines
from tincture.settings.train import FIELDS, TrainSettings

_IN_ITS_PLACE = {"name": "any", "data": "any"}


def checked_part(values: Mapping[str, Any], source: str = "", kind: str = "") -> dict[str, Any]:
    """The values that a run file gives, as ``TrainSettings.to_dict`` has them.

    Args:
        values: what the file holds; what a run must have may be missing.
        source: what the file is called, for messages.
        kind: of the adapter, where the file does not say it; empty: any will do.

    Raises:
        UsageError: naming every value that is not allowed.
    """
    given = as_meant(FIELDS, values)
    lacking = {"kind": kind or kind_names()[0], **_IN_ITS_PLACE}
    made = TrainSettings.from_dict({**lacking, **values}, source=source).to_dict()
    return {name: made[name] for name in made if name in given}


def written(settings: TrainSettings, without: Collection[str] = ()) -> str:
    """A run file of what is other than usual in ``settings``, and of what every run must have.

    Args:
        without: settings that it leaves open.
    """
    values = {
        name: value
        for name, value in settings.to_dict().items()
        if name not in without and (FIELDS[name].required or getattr(settings, name) != FIELDS[name].default)
    }
    return toml_lines(values)
