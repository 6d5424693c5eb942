"""What settings are made of: a dataclass whose fields hold default, help text and check of each setting in one place.

A field made by `setting` is at once a command-line flag, a key of a TOML file and a keyword of the Python API. Only the
standard library is imported, so that the command line can build its flags without loading anything heavy.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
import tomllib
import types
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from tincture.errors import UsageError
from tincture.randomness import LARGEST_SEED

Check = Callable[[Any], str | None]
"""Says what is allowed when a value is not ("at least 1"), or None when it is fine."""


def setting(
    default: Any,
    group: str,
    help_text: str,
    check: Check | None = None,
    *,
    number: bool = False,
    strip: bool = False,
    secret: bool = False,
) -> Any:
    """A field of settings.

    Args:
        default: `dataclasses.MISSING` for a setting that must be given.
        group: the heading it stands under in the help.
        help_text: one sentence.
        check: of its value, beyond the type.
        number: a text that may also be given as a number, such as a schedule of one rate.
        strip: a text whose blanks at both ends don't count.
        secret: no message shows its value.
    """
    metadata = {"group": group, "help": help_text, "check": check, "number": number, "strip": strip, "secret": secret}
    return dataclasses.field(default=default, repr=not secret, metadata=metadata)


def at_least(minimum: float) -> Check:
    """The value must not be smaller."""
    return lambda value: None if value >= minimum else f"at least {minimum:g}"


def drawn_seed(value: int) -> str | None:
    """A seed of torch's own numbers, such as those of a picture."""
    return None if 0 <= value <= LARGEST_SEED else f"from 0 to {LARGEST_SEED}"


def share(value: float) -> str | None:
    """0 ≤ value < 1."""
    return None if 0 <= value < 1 else "at least 0 and below 1"


def part(value: float) -> str | None:
    """0 ≤ value ≤ 1."""
    return None if 0 <= value <= 1 else "at least 0 and at most 1"


def overlap(value: float) -> str | None:
    """What two tiles share of each; more would give hundreds that are all but the same."""
    return None if 0 <= value <= 0.9 else "at least 0 and at most 0.9"


def side(value: int) -> str | None:
    """Width or height of a crop in pixels."""
    return None if 8 <= value <= 16384 and value % 8 == 0 else "a multiple of 8 from 8 to 16384"


def multiple_of_8(value: int) -> str | None:
    """A picture's width or height."""
    return None if value >= 0 and value % 8 == 0 else "0 (the model's own size) or a multiple of 8"


def filled(value: str) -> str | None:
    """A text with something in it."""
    return None if value.strip() else "a text that is not empty"


def filled_each(value: str | tuple[str, ...]) -> str | None:
    """A text with something in it, or at least one of them."""
    texts = (value,) if isinstance(value, str) else value
    return None if texts and all(text.strip() for text in texts) else "a text that is not empty, or several"


def text_encoding(value: str) -> str | None:
    """An encoding of texts by Python's name."""
    try:
        bytes(4).decode(value)
    except (LookupError, ValueError):
        return "an encoding of texts, such as utf-8, latin-1, cp1252 or shift_jis"
    return None


def regular_expression(value: str) -> str | None:
    """A text that `re` can compile."""
    try:
        re.compile(value)
    except re.error as error:
        return f"a regular expression ({error})"
    return None


def gigabytes(value: str) -> str | None:
    """A device's memory: off, auto or a number above 0."""
    known = value in ("off", "auto") or (re.fullmatch(r"\d+(\.\d*)?|\.\d+", value) and float(value) > 0)
    return None if known else "off, auto or gigabytes, such as 8 or 5.5"


def device_name(value: str) -> str | None:
    """A device by torch's name, or auto."""
    known = re.fullmatch(r"auto|cpu|mps|(cuda|xpu)(:\d+)?", value)
    return None if known else "auto, cpu, mps, cuda, cuda:N, xpu or xpu:N"


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
        _refuse(self._faults(converted))

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
        specs = specs_of(cls)
        faults = [_unknown(name, specs) for name in values if name not in specs]
        missing = [spec for name, spec in specs.items() if spec.required and name not in values]
        faults += [f"{spec.name} is missing ({spec.help.rstrip('.')})" for spec in missing]
        known = {name: _converted(specs[name], value) for name, value in values.items() if name in specs}
        _refuse(faults + cls._faults(known), source)
        return cls(**known)

    @classmethod
    def from_toml(cls, path: str | Path, overrides: Mapping[str, Any] | None = None) -> Self:
        """Settings of a TOML file; `overrides` (the flags of a command line) win over it.

        Raises:
            UsageError: when the file cannot be read, is no TOML, or holds something that is not allowed.
        """
        return cls.from_dict({**read_toml(path), **(overrides or {})}, source=str(path))

    def replace(self, **changes: Any) -> Self:
        """A copy with some settings changed, checked anew."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold; `from_dict` makes the same settings of them."""
        plain = {name: getattr(self, name) for name in specs_of(type(self))}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}

    def to_toml(self) -> str:
        """A file that `from_toml` reads back; a setting that is None is left out."""
        lines = [f"{name} = {_toml_value(value)}" for name, value in self.to_dict().items() if value is not None]
        return "\n".join(lines) + "\n"

    @classmethod
    def _faults(cls, values: Mapping[str, Any]) -> list[str]:
        specs = specs_of(cls)
        faults = {name: fault for name, value in values.items() if (fault := _fault(specs[name], value))}
        return [*faults.values(), *cls.faults_between(values, faults)]


def read_toml(path: str | Path) -> dict[str, Any]:
    """The top-level table of a TOML file; UsageError when there is none."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"The run file {str(path)!r} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise UsageError(f"The run file {str(path)!r} is not UTF-8 text; save it as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"The run file {str(path)!r} is not valid TOML: {error}.") from None


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
    strip: bool
    secret: bool
    check: Check | None


def specs_of(settings: type[CheckedSettings]) -> Mapping[str, FieldSpec]:
    """Every setting of the class, by name and in order."""
    hints = typing.get_type_hints(settings)
    fields = dataclasses.fields(settings)
    return types.MappingProxyType({field.name: _spec(field, hints[field.name]) for field in fields})


def _spec(field: dataclasses.Field[Any], annotation: Any) -> FieldSpec:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    # "str | tuple[str, ...]": one text, or several
    lone = origin is types.UnionType and any(typing.get_origin(argument) is tuple for argument in arguments)
    optional = origin is types.UnionType and not lone
    repeated = origin is tuple or lone
    choices = arguments if origin is Literal else ()
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
        **field.metadata,
    )


def _converted(spec: FieldSpec, value: Any) -> Any:
    """Take the spellings that mean the same: 1 for 1.0, 1e-4 for "1e-4", a list for a tuple, or for its lone item."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if spec.type is float and is_number:
        return float(value)
    if spec.number and is_number:
        return repr(value)
    if spec.lone and isinstance(value, list | tuple) and len(value) == 1:
        return value[0]
    if spec.repeated and isinstance(value, list):
        return tuple(value)
    if spec.strip and isinstance(value, str):
        return value.strip()
    return value


def _fault(spec: FieldSpec, value: Any) -> str | None:
    if value is None and spec.optional:
        return None
    given = spec.name if spec.secret else f"{spec.name} is {value!r}, but"
    if not _has_type(spec, value):
        return f"{given} must be {_type_words(spec)}"
    if spec.choices and value not in spec.choices:
        return f"{given} must be {_any_of(spec.choices)}"
    if spec.type is float and not math.isfinite(value):
        return f"{given} must be a finite number"
    allowed = spec.check(value) if spec.check else None
    return f"{given} must be {allowed}" if allowed else None


def _has_type(spec: FieldSpec, value: Any) -> bool:
    if spec.repeated and not (spec.lone and isinstance(value, str)):
        return isinstance(value, tuple) and all(isinstance(item, spec.type) for item in value)
    return isinstance(value, spec.type) and (spec.type is bool or not isinstance(value, bool))


def _type_words(spec: FieldSpec) -> str:
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[spec.type]
    if spec.repeated:
        return "a text or a list of texts" if spec.lone else "a list of texts"
    return f"{words} or a number" if spec.number else words


def _any_of(choices: tuple[str, ...]) -> str:
    return ", ".join(choices[:-1]) + " or " + choices[-1]


def _unknown(name: str, specs: Mapping[str, FieldSpec]) -> str:
    near = difflib.get_close_matches(name.replace("-", "_"), specs, n=1, cutoff=0.5)
    hint = f"the nearest is {near[0]}" if near else f"known are {', '.join(specs)}"
    return f"there is no setting {name!r}; {hint}"


def _refuse(faults: list[str], source: str = "") -> None:
    where = f" in {source}" if source else ""
    if len(faults) == 1:
        raise UsageError(f"A setting{where} is not allowed: {faults[0]}.")
    if faults:
        lines = "".join(f"\n  {fault}" for fault in faults)
        raise UsageError(f"{len(faults)} settings{where} are not allowed:{lines}")


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    # a JSON string is a TOML basic string, except that JSON leaves DEL as it is
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
