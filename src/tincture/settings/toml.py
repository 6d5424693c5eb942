"""TOML files of settings, read and written."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tincture.errors import UsageError
from tincture.settings.paths import pasted_path

LARGEST = 2**20
"""Bytes of a file of settings; what is larger is something else."""


def read_toml(path: str | Path, name: str = "") -> dict[str, Any]:
    """The top-level table of a TOML file; UsageError when there is none.

    Args:
        name: what messages call the file; empty: its path.
    """
    path = pasted_path(str(path))
    named = f"The run file {name or str(path)!r}"
    try:
        with Path(path).open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise UsageError(f"{named} cannot be read: {error.strerror or error}.") from None
    if len(content) > LARGEST:
        raise UsageError(f"{named} is larger than {LARGEST // 2**20} MiB, so that it is none; give a TOML file.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{named} is not UTF-8 text; save it as UTF-8.") from None
    return parse_toml(text, named)


def parse_toml(text: str, named: str) -> dict[str, Any]:
    """The top-level table of a text; UsageError where it is no TOML.

    Args:
        named: what a sentence calls the text, at its start.
    """
    try:
        return tomllib.loads(_one_line_end(text))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{named} is not valid TOML: {error}.") from None
    except (ValueError, RecursionError):  # a number of thousands of digits, a list in lists without end
        raise UsageError(f"{named} has a value in it that is too long or too deep; give settings only.") from None


def _one_line_end(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def toml_lines(values: Mapping[str, Any]) -> str:
    """A TOML file of these values, one a line; those that are None are left out."""
    return "".join(f"{name} = {toml_value(value)}\n" for name, value in values.items() if value is not None)


def toml_value(value: Any) -> str:
    """A text, number, truth value or list as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    # a JSON string is a TOML basic string, except that JSON leaves DEL as it is
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
