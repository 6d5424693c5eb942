"""Numbers that a person writes as text: comma-separated lists."""

from __future__ import annotations

import math

from tincture.errors import UsageError


def number_list(name: str, text: str) -> list[float]:
    """The numbers of "1, 2, 0.5"; whole ones as int. UsageError names ``name`` and the part that is no number."""
    return [_number(name, part.strip()) for part in text.split(",")]


def whole_number_list(name: str, text: str) -> list[int]:
    """The whole numbers of "768, 320"; UsageError names ``name`` and the part that is none."""
    numbers = number_list(name, text)
    wrong = [number for number in numbers if not isinstance(number, int)]
    if wrong:
        raise UsageError(f"{name} has {wrong[0]:g}, which is not a whole number; give them like 768,320.")
    return [int(number) for number in numbers]


def typed_numbers(name: str, text: str, *, whole: bool = False, or_word: bool = False) -> list[float] | str:
    """A list as by the functions above; with ``or_word``, a text that begins with a letter is taken as it is."""
    if or_word and text[:1].isalpha():
        return text
    return [*whole_number_list(name, text)] if whole else number_list(name, text)


def _number(name: str, part: str) -> float:
    try:
        number = float(part)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{name} has {part!r}, which is not a number; give numbers like 1,2,1.")
    return int(number) if number.is_integer() else number
