"""How large numbers, texts and lists in a request may be, before anything is done with them."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any

from tincture.errors import UsageError, shortened
from tincture.settings.fields import FieldSpec

LONGEST_TEXT = 20_000
"""Characters of any text: a prompt, a schedule, a regular expression."""
MOST_TEXT = 2**17
"""Characters of all texts of a request together: those of a job are kept, and told with every list of jobs."""
LONGEST_NAME = 100
"""Characters of a setting's name."""
MOST_SETTINGS = 300
MOST_ITEMS = 1000
"""Of a list."""
LARGEST_NUMBER = 10**9
NONE: Mapping[str, FieldSpec] = types.MappingProxyType({})


def check_sizes(values: Mapping[str, Any], specs: Mapping[str, FieldSpec] = NONE) -> None:
    """Refuses what is too large to be looked at any further.

    Args:
        values: texts, numbers, truth values and lists of them, by name.
        specs: the settings that they are of, which say what is taken at most; of others, the usual.

    Raises:
        UsageError: naming the first value that is too large, or of no such type.
    """
    if len(values) > MOST_SETTINGS:
        raise UsageError(f"{len(values)} settings were given; allowed are {MOST_SETTINGS}.")
    for name, value in values.items():
        if not isinstance(name, str) or len(name) > LONGEST_NAME:
            raise UsageError(f"There is no setting {shortened(name)}.")
        if isinstance(value, list | tuple):
            _check_list(name, value, specs.get(name))
        else:
            check_size(name, value, specs[name].largest if name in specs else None)
    lists = [value if isinstance(value, list | tuple) else [value] for value in values.values()]
    if (count := sum(len(item) for items in lists for item in items if isinstance(item, str))) > MOST_TEXT:
        raise UsageError(f"The texts of the settings have {count:,} characters together; allowed are {MOST_TEXT:,}.")


def check_size(name: str, value: object, most: float | None = None) -> None:
    """Refuses one value that is too large, or no text, number, truth value or None; see ``check_sizes``."""
    if isinstance(value, str):
        allowed = min(most or LONGEST_TEXT, LONGEST_TEXT)
        if len(value) > allowed:
            raise UsageError(f"{name} has {len(value):,} characters; allowed are {int(allowed):,}.")
    elif isinstance(value, int | float):
        largest = most or LARGEST_NUMBER
        # NaN and infinity are left to the check of the setting itself, which names them
        if value == value and abs(value) != float("inf") and abs(value) > largest:
            raise UsageError(f"{name} is {shortened(value)}; allowed is at most {largest:,}.")
    elif value is not None:
        raise UsageError(f"{name} is {shortened(value)}, but must be a text, a number, or a list of them.")


def _check_list(name: str, items: list[Any] | tuple[Any, ...], spec: FieldSpec | None) -> None:
    most = (spec and spec.most_items) or MOST_ITEMS
    if len(items) > most:
        raise UsageError(f"{name} has {len(items):,} items; allowed are {most:,}.")
    for item in items:
        check_size(name, item, spec.largest if spec else None)
