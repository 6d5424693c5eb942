"""Settings of a single request, such as a drawing: the fault that one has is a sentence of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tincture.errors import UsageError, shortened
from tincture.settings.checks import Each
from tincture.settings.fields import (
    ITEM_WORDS,
    TYPE_WORDS,
    CheckedSettings,
    FieldSpec,
    has_type,
    item_has_type,
    specs_of,
)


@dataclass(frozen=True, kw_only=True)
class CheckedRequest(CheckedSettings):
    """The base of requests' settings: as `CheckedSettings`, but for the words of its messages, which are never long.

    Raises:
        UsageError: naming every value that is not allowed, all in one message.
    """

    UNKNOWN: ClassVar[str]
    """The sentence on a field that there is not, with {name} and {known}."""

    @classmethod
    def _fault(cls, spec: FieldSpec, value: Any) -> str | None:
        if value is None and spec.optional:
            return None
        if spec.repeated:
            return _list_fault(spec, value)
        if spec.choices and isinstance(value, str) and value not in spec.choices:
            return f"{spec.name} is {shortened(value)}, but must be one of {', '.join(spec.choices)}"
        finite = spec.type is not float or item_has_type(spec, value)
        if has_type(spec, value) and finite and not (spec.check and spec.check(value)):
            return None
        return f"{spec.name} is {shortened(value)}, but must be {_allowed(spec, value)}"

    @classmethod
    def _unknown(cls, name: str) -> str:
        return cls.UNKNOWN.format(name=shortened(name), known=", ".join(specs_of(cls)))

    @classmethod
    def _refuse(cls, faults: Sequence[str], source: str = "") -> None:
        if len(faults) == 1 and not source:
            raise UsageError(f"{faults[0]}.")
        super()._refuse(faults, source)


def _list_fault(spec: FieldSpec, values: Any) -> str | None:
    if not isinstance(values, tuple):
        return f"{spec.name} is {shortened(values)}, but must be a list"
    for item in values:
        if not item_has_type(spec, item) or (isinstance(spec.check, Each) and spec.check.bounds(item)):
            wrong = f"{spec.name} has {shortened(item)} in it"
            if spec.bounds:
                return f"{wrong}; a {spec.name.removesuffix('s')} is {spec.bounds.words}"
            return f"{wrong}, but must be a list of {ITEM_WORDS[spec.type]}"
    return None


def _allowed(spec: FieldSpec, value: Any) -> str:
    words, bounds = TYPE_WORDS[spec.type], spec.bounds
    if bounds is None:
        fault = spec.check(value) if spec.check and has_type(spec, value) else None
        return fault or words
    if has_type(spec, value) and bounds.multiple_of > 1 and value >= bounds.minimum:
        return f"a multiple of {bounds.multiple_of}"
    if bounds.maximum is None:
        return f"{words}, at least {bounds.minimum:g}"
    return f"{words}, from {bounds.minimum:g} to {bounds.maximum}"
