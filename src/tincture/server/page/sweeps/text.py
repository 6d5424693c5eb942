"""A sweep's file as a text that a person edits: what the page writes into it leaves all else as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tincture.errors import UsageError
from tincture.server.page.parts.fields import label_of
from tincture.settings.fields import FieldSpec
from tincture.settings.toml import toml_value
from tincture.settings.train import FIELDS

_HEAD = re.compile(r"^\s*\[+[^\]]+\]+\s*(#.*)?$")
_WORDS: Mapping[str, bool] = {"true": True, "yes": True, "false": False, "no": False}


def with_table(text: str, name: str, lines: str) -> str:
    """The text with ``lines`` as its table ``name``, in place of what stood there."""
    head, _, rest = _split(text, name)
    parts = [head.rstrip("\n"), f"[{name}]\n{lines.strip()}", rest.strip("\n")]
    return "\n\n".join(part for part in parts if part.strip()) + "\n"


def with_values(text: str, key: str, values: list[Any]) -> str:
    """The text with a list of values for a setting in its grid, in place of those that stood there."""
    _, own, _ = _split(text, "grid")
    line = f"{key} = {toml_value(values)}"
    others = [each for each in own.splitlines() if not re.match(rf"\s*{re.escape(key)}\s*=", each)]
    return with_table(text, "grid", "\n".join([*others, line]))


def values_of(key: str, typed: str) -> list[Any]:
    """What was typed as values of a setting, one a line; UsageError where one is of another type."""
    spec = FIELDS[key]
    lines = [line.strip() for line in typed.splitlines() if line.strip()]
    if not lines:
        raise UsageError(f"No values of “{label_of(key)}” are given; give each in a line of its own.")
    return [_value(spec, line) for line in lines]


def _value(spec: FieldSpec, line: str) -> Any:
    if spec.repeated and not spec.lone:
        return [part.strip() for part in line.split(",")]
    if spec.type is bool:
        if line.lower() not in _WORDS:
            raise UsageError(f"“{label_of(spec.name)}” is yes or no, not {line!r}.")
        return _WORDS[line.lower()]
    if spec.type in (int, float):
        try:
            return int(line) if spec.type is int else float(line)
        except ValueError:
            what = "a whole number" if spec.type is int else "a number"
            raise UsageError(f"“{label_of(spec.name)}” is {what}, not {line!r}.") from None
    return line


def _split(text: str, name: str) -> tuple[str, str, str]:
    """What stands before a table, its lines, and what stands behind; all before where there is no such table."""
    lines = text.splitlines()
    start = next((place for place, line in enumerate(lines) if line.split("#")[0].strip() == f"[{name}]"), None)
    if start is None:
        return text, "", ""
    behind = (place for place in range(start + 1, len(lines)) if _HEAD.match(lines[place]))
    end = next(behind, len(lines))
    return "\n".join(lines[:start]), "\n".join(lines[start + 1 : end]), "\n".join(lines[end:])
