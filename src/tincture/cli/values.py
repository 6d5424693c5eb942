"""Values that a flag holds as text: comma-separated lists."""

from __future__ import annotations

import math

from tincture.errors import UsageError


def number_list(flag: str, text: str) -> list[float]:
    """The numbers of "1, 2, 0.5"; whole ones as int. UsageError names the flag and the part that is no number."""
    return [_number(flag, part.strip()) for part in text.split(",")]


def whole_number_list(flag: str, text: str) -> list[int]:
    """The whole numbers of "768, 320"; UsageError names the flag and the part that is none."""
    numbers = number_list(flag, text)
    wrong = [number for number in numbers if not isinstance(number, int)]
    if wrong:
        raise UsageError(f"{flag} has {wrong[0]:g}, which is not a whole number; give them like 768,320.")
    return [int(number) for number in numbers]


def _number(flag: str, part: str) -> float:
    try:
        number = float(part)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{flag} has {part!r}, which is not a number; give numbers like 1,2,1.")
    return int(number) if number.is_integer() else number
