"""What a setting's value may be beyond its type. Only the standard library is imported."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tincture.randomness import LARGEST_SEED
from tincture.settings.expressions import fault_of_expression

Check = Callable[[Any], str | None]
"""Says what is allowed when a value is not ("at least 1"), or None when it is fine."""


@dataclass(frozen=True)
class Bounds:
    """A check of numbers whose bounds schemas, inputs of the page and tests can read.

    Attributes:
        words: what is allowed, for the message.
        minimum: the smallest that is allowed.
        maximum: the largest that is allowed; None: no bound.
        below: what it must stay below; None: no bound.
        multiple_of: what it must be a multiple of.
    """

    words: str
    minimum: float
    maximum: float | None = None
    below: float | None = None
    multiple_of: int = 1

    def __call__(self, value: float) -> str | None:
        sound = (
            value >= self.minimum
            and (self.maximum is None or value <= self.maximum)
            and (self.below is None or value < self.below)
            and (self.multiple_of == 1 or value % self.multiple_of == 0)
        )
        return None if sound else self.words


@dataclass(frozen=True)
class Each:
    """The same of every number of a list."""

    bounds: Bounds

    def __call__(self, values: tuple[float, ...]) -> str | None:
        return next((fault for value in values if (fault := self.bounds(value))), None)


def at_least(minimum: float) -> Bounds:
    """The value must not be smaller."""
    return Bounds(f"at least {minimum:g}", minimum)


cpu_threads = Bounds("0 (chosen) or at most 1024", 0, 1024)
drawn_seed = Bounds(f"from 0 to {LARGEST_SEED}", 0, LARGEST_SEED)
"""A seed of torch's own numbers, such as those of a picture."""
share = Bounds("at least 0 and below 1", 0, below=1)
part = Bounds("at least 0 and at most 1", 0, 1)
overlap = Bounds("at least 0 and at most 0.9", 0, 0.9)
"""What two tiles share of each; more would give hundreds that are all but the same."""
side = Bounds("a multiple of 8 from 8 to 16384", 8, 16384, multiple_of=8)
"""Width or height of a crop in pixels."""
multiple_of_8 = Bounds("0 (the model's own size) or a multiple of 8", 0, multiple_of=8)
"""A picture's width or height in pixels."""
side_or_chosen = Bounds("0 (chosen for you) or a multiple of 8", 0, multiple_of=8)
MOST_PIXELS = 8192
"""Of a side, in a request."""


def filled(value: str) -> str | None:
    """A text with something in it."""
    return None if value.strip() else "a text that is not empty"


def filled_each(value: str | tuple[str, ...]) -> str | None:
    """A text with something in it, or at least one of them."""
    texts = (value,) if isinstance(value, str) else value
    return None if texts and all(text.strip() for text in texts) else "a text that is not empty, or several"


def filled_if_any(value: str | tuple[str, ...]) -> str | None:
    """None at all, or texts with something in each."""
    return None if not value else filled_each(value)


def text_encoding(value: str) -> str | None:
    """An encoding of texts by Python's name."""
    try:
        bytes(4).decode(value)
    except (LookupError, ValueError):
        return "an encoding of texts, such as utf-8, latin-1, cp1252 or shift_jis"
    return None


def regular_expression(value: str) -> str | None:
    """A regular expression that finds words: see ``fault_of_expression``."""
    return fault_of_expression(value)


def gigabytes(value: str) -> str | None:
    """A device's memory: off, auto or a number above 0; empty: the device decides."""
    known = value in ("", "off", "auto") or (re.fullmatch(r"\d+(\.\d*)?|\.\d+", value) and float(value) > 0)
    return None if known else "off, auto or gigabytes, such as 8 or 5.5"


def process_count(value: str) -> str | None:
    """How many processes: auto or a number; empty: one, or what a launcher says."""
    known = value in ("", "auto") or re.fullmatch(r"[1-9][0-9]?", value)
    return None if known else "auto, or a whole number from 1 to 99"


def device_name(value: str) -> str | None:
    """A device by torch's name, or auto."""
    known = re.fullmatch(r"auto|cpu|mps|(cuda|xpu)(:\d+)?", value)
    return None if known else "auto, cpu, mps, cuda, cuda:N, xpu or xpu:N"
