"""How large numbers, texts and lists in a request may be, before anything is done with them."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any

from tincture.errors import UsageError

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
LARGEST_REQUESTED_SEED = 2**63 - 1
"""Half of what the settings allow: many who read JSON know no larger whole numbers."""
SHOWN = 80
"""So many characters of a wrong value are told."""

TRAINING: Mapping[str, float] = types.MappingProxyType(
    {
        "steps": 10**7,
        "batch_size": 1024,
        "gradient_accumulation_steps": 10**4,
        "width": 8192,
        "height": 8192,
        "bucket_step": 8192,
        "bucket_min": 8192,
        "bucket_max": 8192,
        "clip_skip": 100,
        "preview_steps": 1000,
        "preview_width": 8192,
        "preview_height": 8192,
        "preview_guidance_scale": 1000,
        "seed": LARGEST_REQUESTED_SEED,
        "preview_seed": LARGEST_REQUESTED_SEED,
        "word_regex": 200,
        "learning_rate": 2000,
        "clip_grad_value": 2000,
        "preview_prompts": 64,
    }
)
PREPROCESSING: Mapping[str, float] = types.MappingProxyType(
    {
        "width": 8192,
        "height": 8192,
        "multicrop_min_dim": 8192,
        "multicrop_max_dim": 8192,
        "captioner_beams": 32,
        "captioner_min_tokens": 500,
        "captioner_max_tokens": 500,
        "caption_batch_size": 256,
        "workers": 64,
        "seed": LARGEST_REQUESTED_SEED,
    }
)
DRAWING: Mapping[str, float] = types.MappingProxyType(
    {"steps": 1000, "guidance_scale": 1000, "clip_skip": 100, "seeds": LARGEST_REQUESTED_SEED, "batch_size": 64}
)
"""What a number may be at most; of a text, how many characters; of a list, how many items. Others have the usual."""


def check_sizes(values: Mapping[str, Any], limits: Mapping[str, float]) -> None:
    """Refuses what is too large to be looked at any further.

    Args:
        values: texts, numbers, truth values and lists of them, by name.
        limits: see ``TRAINING``; a list's limit is of its length.

    Raises:
        UsageError: naming the first value that is too large, or of no such type.
    """
    if len(values) > MOST_SETTINGS:
        raise UsageError(f"{len(values)} settings were given; allowed are {MOST_SETTINGS}.")
    for name, value in values.items():
        if not isinstance(name, str) or len(name) > LONGEST_NAME:
            raise UsageError(f"There is no setting {shortened(name)}.")
        if isinstance(value, list | tuple):
            _check_list(name, value, limits)
        else:
            check_size(name, value, limits.get(name))
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


def _check_list(name: str, items: list[Any] | tuple[Any, ...], limits: Mapping[str, float]) -> None:
    most = min(limits.get(name, MOST_ITEMS), MOST_ITEMS)
    if len(items) > most:
        raise UsageError(f"{name} has {len(items):,} items; allowed are {int(most):,}.")
    for item in items:
        check_size(name, item, None if isinstance(item, str) else limits.get(name))


def shortened(value: object) -> str:
    """A value as an error tells it: in quotes where it is a text, and never long."""
    try:
        told = repr(value[: SHOWN + 1] if isinstance(value, str) else value)
    except (ValueError, RecursionError):  # of a number with thousands of digits, Python writes none
        return f"a very large {type(value).__name__}"
    return told if len(told) <= SHOWN else told[: SHOWN - 1] + "…"
