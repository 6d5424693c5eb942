"""Adapters that act while a run trains, and are not trained: ``KIND:NAME`` or ``KIND:NAME:STRENGTH``.

In a run file one may be a table of kind, name and multiplier.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tincture.errors import UsageError
from tincture.kinds.registry import AdapterKind, any_of, find_kind, kind_names
from tincture.settings.companions import adapter_stem, adapter_texts, sound_ones

FIXED = "fixed"
"""What flag and run files call the setting."""
FORM = "KIND:NAME, KIND:NAME:STRENGTH or a table of kind, name, multiplier"
STRONGEST = 10.0


@dataclass(frozen=True)
class FixedAdapter:
    """An adapter that acts while others are trained.

    Attributes:
        kind, name: of one in the workspace.
        multiplier: how strongly it acts, as in a prompt.
    """

    kind: str
    name: str
    multiplier: float = 1.0

    @classmethod
    def parse(cls, text: str) -> FixedAdapter:
        """Reads one; UsageError says what is wrong with it, without the text itself."""
        kind, name, strength = [part.strip() for part in [*text.split(":", 2), "", ""][:3]]
        if kind not in kind_names() or not name:
            raise UsageError(f"it must be {FORM}, where KIND is {any_of(kind_names())}")
        found = cls(kind, name, _strength(strength) if strength else 1.0)
        if found.adapter_kind.has_word and found.multiplier != 1:
            raise UsageError(f"{found.adapter_kind.one} has no strength but in a prompt, as (NAME:{strength})")
        return found

    def __str__(self) -> str:
        """As ``parse`` reads it."""
        return f"{self.kind}:{self.name}" + ("" if self.multiplier == 1 else f":{self.multiplier:g}")

    @property
    def adapter_kind(self) -> AdapterKind:
        """What is known of its kind."""
        return find_kind(self.kind)


def fixed_faults(values: Mapping[str, Any], trained: Sequence[tuple[str, str]]) -> list[str]:
    """What is wrong with those among the values of settings.

    Args:
        trained: kinds and names of what is trained.
    """
    faults, given = [], [(kind, adapter_stem(name)) for kind, name in trained]
    first = len(given)
    for text in values.get("fixed_adapters", ()):
        try:
            fixed = FixedAdapter.parse(text)
        except UsageError as error:
            faults.append(f"{FIXED} has {text!r}, but {error}")
            continue
        one = (fixed.kind, adapter_stem(fixed.name))
        if one in given[:first]:
            faults.append(f"{FIXED} has the {one[0]} {one[1]!r}, which is trained; it can be one or the other")
        elif one in given:
            faults.append(f"{FIXED} has the {one[0]} {one[1]!r} twice; give each adapter once")
        given.append(one)
    return faults


def fixed_texts(value: Any) -> Any:
    """See ``adapter_texts``."""
    return adapter_texts(value, ("kind", "name", "multiplier"))


def sound_fixed(values: Mapping[str, Any]) -> list[FixedAdapter]:
    """Those among the values of settings that can be read."""
    return sound_ones(values.get("fixed_adapters"), FixedAdapter.parse)


def _strength(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (0 < abs(value) <= STRONGEST):
        raise UsageError(f"its strength is {text!r}, but must be a number other than 0, at most {STRONGEST:g}")
    return value
