"""What HTML and words are made of, on the page and in reports."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any


def escape(text: object) -> str:
    """Text that means itself, in elements as in quoted attributes."""
    return html.escape(str(text), quote=True)


def plain(value: Any) -> str:
    """A value of a report or of settings in words; empty for what says nothing."""
    if value is None or value in ("", [], {}, ()):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain(part) for part in value)
    return str(value)
