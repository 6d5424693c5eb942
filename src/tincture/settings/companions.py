"""Adapters that are trained together with a run's own, each with a rate of its own.

One is written as ``KIND:NAME`` or ``KIND:NAME:RATE``, what else it has behind it: ``hypernetwork:ink:0:200, 1e-4;
weight_decay=0.01; template=style``. In a run file it may be a table of the same keys.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, TypeVar

from tincture.errors import UsageError
from tincture.kinds.registry import AdapterKind, any_of, find_kind, kind_names
from tincture.settings.optimizers import usual_rate
from tincture.settings.paths import pasted_path
from tincture.workspace import TRAINABLE_SUFFIXES

T = TypeVar("T")

WITH = "with"
"""What flag and run files call the setting."""
FORM = "KIND:NAME, KIND:NAME:RATE or a table of kind, name, learning_rate, weight_decay, template"
_OPTION = re.compile(r";\s*([a-z]\w*)\s*=")


@dataclass(frozen=True, kw_only=True)
class Companion:
    """An adapter that is trained together with a run's own.

    Attributes:
        kind, name: of one that was made by create.
        learning_rate: a rate or schedule over the run's steps; empty: the kind's.
        weight_decay: None: the kind's.
        template: a prompt template of its own, of whose lines prompts are made by turns; empty: none.
    """

    kind: str
    name: str
    learning_rate: str = ""
    weight_decay: float | None = None
    template: str = ""

    @classmethod
    def parse(cls, text: str) -> Companion:
        """Reads one; UsageError says what is wrong with it, without the text itself."""
        head, *options = _OPTION.split(text.strip().rstrip(";"))
        kind, name, rate = [part.strip() for part in [*head.split(":", 2), "", ""][:3]]
        given = [("kind", kind), ("name", name), ("learning_rate", rate)]
        given = [pair for pair in given if pair[1]] + [
            (key, value.strip()) for key, value in zip(options[::2], options[1::2], strict=True)
        ]
        values = dict(given)
        known = [field.name for field in dataclasses.fields(cls)]
        if unknown := [key for key in values if key not in known]:
            raise UsageError(f"it has the key {unknown[0]!r}; known are {', '.join(known)}")
        if len(values) < len(given):
            raise UsageError("it has a key twice")
        if values.get("kind") not in kind_names() or not values.get("name"):
            raise UsageError(f"it must be {FORM}, where KIND is {any_of(kind_names())} and NAME was made by create")
        template = pasted_path(values.get("template", ""))
        return cls(**{**values, "template": template, "weight_decay": _weight_decay(values.get("weight_decay"))})

    def __str__(self) -> str:
        """As ``parse`` reads it."""
        values = {"weight_decay": self.weight_decay, "template": self.template}
        rest = "".join(f"; {key}={value}" for key, value in values.items() if value not in (None, ""))
        return ":".join(part for part in (self.kind, self.name, self.learning_rate) if part) + rest

    @property
    def adapter_kind(self) -> AdapterKind:
        """What is known of its kind."""
        return find_kind(self.kind)

    @property
    def rate(self) -> str:
        """The learning rate that holds, the kind's where none is given."""
        return self.learning_rate or self.adapter_kind.learning_rate

    def resolved(self, optimizer: str) -> Companion:
        """A copy in which rate and weight decay are filled in, as far as the kind has them."""
        rate = self.learning_rate or usual_rate(optimizer, self.rate)
        decay = self.adapter_kind.weight_decay if self.weight_decay is None else self.weight_decay
        return dataclasses.replace(self, learning_rate=rate, weight_decay=decay)


def sound_companions(values: Mapping[str, Any]) -> list[Companion]:
    """Those among the values of settings that can be read."""
    return sound_ones(values.get("companions"), Companion.parse)


def sound_ones(texts: Sequence[str] | None, parse: Callable[[str], T]) -> list[T]:
    """What ``parse`` makes of those of ``texts`` that it takes."""
    found = []
    for text in texts or ():
        with contextlib.suppress(UsageError):
            found.append(parse(text))
    return found


def companion_texts(value: Any) -> Any:
    """See ``adapter_texts``."""
    return adapter_texts(value, ("kind", "name", "learning_rate"))


def adapter_texts(value: Any, keys: Sequence[str]) -> Any:
    """A setting's value as texts: tables become the texts that mean the same; what is of neither form stays.

    Args:
        keys: of a table, whose values stand in this order with colons between; all others stand behind.
    """
    items = [value] if isinstance(value, str | Mapping) else value
    if not isinstance(items, list | tuple):
        return value
    return tuple(_text_of(item, keys) for item in items)


def adapter_stem(name: str) -> str:
    """What an adapter that is given by ``name`` is called: without folders, and without the file's suffix."""
    path = PurePath(name.strip())
    return path.stem if path.suffix.lower() in TRAINABLE_SUFFIXES else path.name


def _text_of(item: Any, keys: Sequence[str]) -> Any:
    if not isinstance(item, Mapping):
        return item.strip() if isinstance(item, str) else item
    values = {re.sub(r"\W", "_", str(key)): value for key, value in item.items() if value is not None}
    head = ":".join(str(values.pop(key, "")) for key in keys).rstrip(":")
    return head + "".join(f"; {key}={value}" for key, value in values.items())


def _weight_decay(text: str | None) -> float | None:
    try:
        value = None if text is None else float(text)
    except ValueError:
        value = -1
    if value is not None and not 0 <= value < float("inf"):
        raise UsageError(f"its weight_decay is {text!r}, but must be a number, at least 0")
    return value
