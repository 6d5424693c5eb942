"""What settings are made of: a dataclass whose fields hold default, help text and check of each setting in one place.

A field made by `setting` is at once a command-line flag, a key of a TOML file and a keyword of the Python API. Only the
standard library is imported, so that the command line can build its flags without loading anything heavy.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from tincture.errors import UsageError
from tincture.settings.checks import Bounds, Check, Each
from tincture.settings.paths import pasted_path
from tincture.settings.toml import read_toml, toml_lines

TYPE_WORDS: Mapping[type, str] = types.MappingProxyType(
    {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
)
ITEM_WORDS: Mapping[type, str] = types.MappingProxyType({int: "whole numbers", float: "numbers", str: "texts"})


def setting(
    default: Any,
    group: str,
    help_text: str | Callable[[], str],
    check: Check | None = None,
    *,
    choices: Callable[[], tuple[str, ...]] | None = None,
    number: bool = False,
    schedule: bool = False,
    strip: bool = False,
    path: bool = False,
    secret: bool = False,
    largest: float | None = None,
    most_items: int | None = None,
    alias: str = "",
    meaning: Callable[[Any], Any] | None = None,
) -> Any:
    """A field of settings.

    Args:
        default: `dataclasses.MISSING` for a setting that must be given.
        group: the heading it stands under in the help.
        help_text: one sentence; asked for whenever settings are described where it depends on what is registered.
        check: of its value, beyond the type.
        choices: all that is allowed of a text, asked for in the same way; those that never change are its type.
        number: a text that may also be given as a number.
        schedule: a text that is a ``Schedule``, or one value as a number; "" is none.
        strip: a text whose blanks at both ends don't count.
        path: a text that is a path, or may be one; it is taken as people paste it, see ``pasted_path``.
        secret: no message shows its value.
        largest: what a server takes in a request at most, where that is less than the check allows: of a number its
            size, of a text its characters; in a list, of each item.
        most_items: how many items of a list a server takes.
        alias: the name of its flag, and another one that values may be given by, where Python has no such name.
        meaning: gives the value that is meant by another form of it, such as a text for a table; all else unchanged.
    """
    metadata = {
        "group": group,
        "help": help_text,
        "check": check,
        "choices": choices,
        "number": number or schedule,
        "schedule": schedule,
        "strip": strip,
        "path": path,
        "secret": secret,
        "largest": largest,
        "most_items": most_items,
        "alias": alias,
        "meaning": meaning,
    }
    return dataclasses.field(default=default, repr=not secret, metadata=metadata)


def same_as(settings: type, name: str, *, help_text: str = "", **changes: Any) -> Any:
    """A field that is the field ``name`` of other settings once more: with its default, help, check and limits.

    Args:
        help_text: instead of its own.
        changes: arguments of `setting`, such as the heading, that are other ones here.
    """
    field = next(field for field in dataclasses.fields(settings) if field.name == name)
    options = {"default": field.default, **field.metadata, **changes}
    return setting(help_text=help_text or options.pop("help"), **{k: v for k, v in options.items() if k != "help"})


@dataclass(frozen=True)
class CheckedSettings:
    """Settings that are immutable and checked when made; the base of dataclasses whose fields `setting` makes.

    Raises:
        UsageError: naming every value that is not allowed, all in one message.
    """

    def __post_init__(self) -> None:
        converted = {name: _converted(spec, getattr(self, name)) for name, spec in specs_of(type(self)).items()}
        for name, value in converted.items():
            object.__setattr__(self, name, value)
        self._refuse(self._faults(converted))

    @classmethod
    def faults_between(cls, values: Mapping[str, Any], faulty: Collection[str]) -> list[str]:
        """What is wrong with settings taken together, as words that name them; for subclasses to say.

        Args:
            values: those that were given, or all.
            faulty: settings whose own check has failed already.
        """
        return []

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, source: str = "") -> Self:
        """Settings from plain values, as JSON or TOML give them.

        Args:
            values: setting names and values; lists stand for tuples.
            source: where they come from, for the message ("run.toml").

        Raises:
            UsageError: for unknown, missing and wrong settings, all in one message.
        """
        cls._refuse(cls.faults_in(values), source)
        return cls(**_known(specs_of(cls), values))

    @classmethod
    def faults_in(cls, values: Mapping[str, Any]) -> list[str]:
        """What `from_dict` would refuse, as words that name the settings; none where it makes settings of them."""
        specs = specs_of(cls)
        named, faults = _by_names(specs, values)
        faults += [cls._unknown(name) for name in named if name not in specs]
        missing = [spec for name, spec in specs.items() if spec.required and name not in named]
        faults += [f"{spec.name} is missing ({spec.help.rstrip('.')})" for spec in missing]
        return faults + cls._faults(_known(specs, values))

    @classmethod
    def from_toml(cls, path: str | Path, overrides: Mapping[str, Any] | None = None) -> Self:
        """Settings of a TOML file; `overrides` (the flags of a command line) win over it.

        Raises:
            UsageError: when the file cannot be read, is no TOML, or holds something that is not allowed.
        """
        return cls.from_dict(overridden(specs_of(cls), read_toml(path), overrides or {}), source=str(path))

    def replace(self, **changes: Any) -> Self:
        """A copy with some settings changed, checked anew."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold; `from_dict` makes the same settings of them."""
        plain = {name: getattr(self, name) for name in specs_of(type(self))}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}

    def to_toml(self) -> str:
        """A file that `from_toml` reads back; a setting that is None is left out."""
        return toml_lines(self.to_dict())

    @classmethod
    def _faults(cls, values: Mapping[str, Any]) -> list[str]:
        specs = specs_of(cls)
        faults = {name: fault for name, value in values.items() if (fault := cls._fault(specs[name], value))}
        return [*faults.values(), *cls.faults_between(values, faults)]

    @classmethod
    def _fault(cls, spec: FieldSpec, value: Any) -> str | None:
        """What is wrong with one value, as words that name it."""
        if value is None and spec.optional:
            return None
        given = spec.name if spec.secret else f"{spec.name} is {value!r}, but"
        if not has_type(spec, value):
            return f"{given} must be {_type_words(spec)}"
        if spec.choices and value not in spec.choices:
            return f"{given} must be {_any_of(spec.choices)}"
        if spec.type is float and not spec.repeated and not math.isfinite(value):
            return f"{given} must be a finite number"
        allowed = spec.check(value) if spec.check else None
        return f"{given} must be {allowed}" if allowed else None

    @classmethod
    def _unknown(cls, name: str) -> str:
        specs = specs_of(cls)
        near = difflib.get_close_matches(name.replace("-", "_"), specs, n=1, cutoff=0.5)
        hint = f"the nearest is {near[0]}" if near else f"known are {', '.join(specs)}"
        return f"there is no setting {name!r}; {hint}"

    @classmethod
    def _refuse(cls, faults: Sequence[str], source: str = "") -> None:
        where = f" in {source}" if source else ""
        if len(faults) == 1:
            raise UsageError(f"A setting{where} is not allowed: {faults[0]}.")
        if faults:
            lines = "".join(f"\n  {fault}" for fault in faults)
            raise UsageError(f"{len(faults)} settings{where} are not allowed:{lines}")


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """What is known of one setting: the command line makes a flag of it."""

    name: str
    group: str
    help: str
    default: Any  # None where the setting is required
    required: bool
    type: type  # bool, int, float or str; of the items where `repeated`
    optional: bool  # None is allowed
    repeated: bool
    choices: tuple[str, ...]
    lone: bool  # of repeated ones: a single item may stand alone
    number: bool
    schedule: bool
    strip: bool
    path: bool
    secret: bool
    check: Check | None
    largest: float | None  # in a request: of a number, or characters of a text
    most_items: int | None  # in a request
    alias: str
    meaning: Callable[[Any], Any] | None

    @property
    def bounds(self) -> Bounds | None:
        """Of the number, or of each number of the list; None where any is allowed."""
        bounds = self.check.bounds if isinstance(self.check, Each) else self.check
        return bounds if isinstance(bounds, Bounds) else None


def specs_of(settings: type) -> Mapping[str, FieldSpec]:
    """Every setting of the class, by name and in order."""
    hints = typing.get_type_hints(settings)
    fields = dataclasses.fields(settings)
    return types.MappingProxyType({field.name: _spec(field, hints[field.name]) for field in fields})


def _spec(field: dataclasses.Field[Any], annotation: Any) -> FieldSpec:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    union = origin in (types.UnionType, typing.Union)  # the latter where a Literal is among them
    # "str | tuple[str, ...]": one text, or several
    lone = union and any(typing.get_origin(argument) is tuple for argument in arguments)
    optional = union and not lone
    repeated = origin is tuple or lone
    alone = arguments[0] if optional else annotation
    metadata = dict(field.metadata)
    help_text, asked = metadata.pop("help"), metadata.pop("choices")
    choices = asked() if asked else typing.get_args(alone) if typing.get_origin(alone) is Literal else ()
    base = str if choices else arguments[0] if optional or repeated else annotation
    required = field.default is dataclasses.MISSING
    return FieldSpec(
        name=field.name,
        default=None if required else field.default,
        required=required,
        type=base,
        optional=optional,
        repeated=repeated,
        lone=lone,
        choices=choices,
        help=help_text() if callable(help_text) else help_text,
        **metadata,
    )


def overridden(
    specs: Mapping[str, FieldSpec], values: Mapping[str, Any], overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Values with others that win over them, by whichever of a setting's names either are given."""
    names = {spec.alias: name for name, spec in specs.items() if spec.alias}
    given = {names.get(name, name) for name in overrides}
    return {**{name: value for name, value in values.items() if names.get(name, name) not in given}, **overrides}


def as_meant(specs: Mapping[str, FieldSpec], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by the settings' own names, where they were given by another, and in the form that each setting has."""
    named, _ = _by_names(specs, values)
    meanings = {name: spec.meaning for name, spec in specs.items() if spec.meaning}
    return {name: meanings[name](value) if name in meanings else value for name, value in named.items()}


def _known(specs: Mapping[str, FieldSpec], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of settings that there are, in the form that each has."""
    named, _ = _by_names(specs, values)
    return {name: _converted(specs[name], value) for name, value in named.items() if name in specs}


def _by_names(specs: Mapping[str, FieldSpec], values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values by the settings' own names, and what is wrong with the names."""
    names = {spec.alias: name for name, spec in specs.items() if spec.alias}
    twice = [alias for alias, name in names.items() if alias in values and name in values]
    faults = [f"{alias} and {names[alias]} are one setting; give one of them" for alias in twice]
    return {names.get(name, name): value for name, value in values.items()}, faults


def _converted(spec: FieldSpec, value: Any) -> Any:
    converted = _as_meant(spec, value)
    if spec.path and isinstance(converted, str):
        return pasted_path(converted)
    if spec.path and isinstance(converted, tuple):
        return tuple(pasted_path(item) if isinstance(item, str) else item for item in converted)
    return converted


def _as_meant(spec: FieldSpec, value: Any) -> Any:
    """Take the spellings that mean the same: 1 for 1.0, 1e-4 for "1e-4", a list for a tuple, or for its lone item."""
    value = spec.meaning(value) if spec.meaning else value
    if spec.type is float and not spec.repeated:
        return _as_float(value)
    if spec.number and _is_number(value):
        return repr(value)
    if spec.lone and isinstance(value, list | tuple) and len(value) == 1:
        return value[0]
    if spec.repeated and isinstance(value, list | tuple):
        return tuple(_as_float(item) if spec.type is float else item for item in value)
    if spec.strip and isinstance(value, str):
        return value.strip()
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _as_float(value: Any) -> Any:
    try:
        return float(value) if _is_number(value) else value
    except OverflowError:  # of a whole number with hundreds of digits; it is refused as no number
        return value


def has_type(spec: FieldSpec, value: Any) -> bool:
    """Whether the value, or every item of the list, is of the setting's type; of numbers in lists, finite too."""
    if spec.repeated and not (spec.lone and isinstance(value, str)):
        return isinstance(value, tuple) and all(item_has_type(spec, item) for item in value)
    return isinstance(value, spec.type) and (spec.type is bool or not isinstance(value, bool))


def item_has_type(spec: FieldSpec, item: Any) -> bool:
    """The same of one item of a list."""
    sound = isinstance(item, spec.type) and not isinstance(item, bool)
    return sound and (spec.type is not float or math.isfinite(item))


def _type_words(spec: FieldSpec) -> str:
    words = TYPE_WORDS[spec.type]
    if spec.repeated:
        return "a text or a list of texts" if spec.lone else f"a list of {ITEM_WORDS[spec.type]}"
    return f"{words} or a number" if spec.number else words


def _any_of(choices: tuple[str, ...]) -> str:
    return ", ".join(choices[:-1]) + " or " + choices[-1]
