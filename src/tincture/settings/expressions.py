"""Whether a regular expression that somebody typed is one, and no larger than what it takes to find words.

A library of regular expressions writes repetitions out: ``(a|b){1000000000}`` fills all memory before it is asked for
anything. So an expression is parsed, which takes no longer than its text explains, and its parts are counted first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from re import _parser  # type: ignore[attr-defined]
from typing import Any

LONGEST = 2000
"""Characters of an expression."""
MOST_PARTS = 10_000
"""Parts of an expression, repeated ones counted as often as they must come."""
_REPEATS = frozenset({"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"})


def fault_of_expression(expression: str) -> str | None:
    """What it must be, as words that follow "must be"; None for one that can be used.

    In verbose mode blanks inside of counts do not mean the same to all libraries, so it is refused.
    """
    if len(expression) > LONGEST:
        return f"a regular expression of at most {LONGEST:,} characters"
    try:
        parsed = _parser.parse(expression)
        if parsed.state.flags & re.VERBOSE or any(_is_verbose(part) for part in _parts(parsed)):
            return "a regular expression without (?x)"
        if _size(parsed) > MOST_PARTS:
            return f"a regular expression that repeats less: written out, this has more than {MOST_PARTS:,} parts"
    except (re.error, RecursionError, OverflowError) as error:
        return f"a regular expression ({error})"
    return None


def _size(parsed: Any) -> int:
    """How many parts it has when all repetitions are written out as often as they must come, and once more."""
    total = 0
    for operation, argument in parsed:
        least = argument[0] if str(operation) in _REPEATS else 0
        total += 1 + (1 + int(least)) * sum(_size(inner) for inner in _inner(argument))
        if str(operation) == "IN":
            total += len(argument)
    return total


def _parts(parsed: Any) -> Iterator[tuple[Any, Any]]:
    for part in parsed:
        yield part
        for inner in _inner(part[1]):
            yield from _parts(inner)


def _inner(argument: Any) -> Iterator[Any]:
    """The expressions inside an argument of a part: of a group, repetition, alternative, condition or assertion."""
    if isinstance(argument, _parser.SubPattern):
        yield argument
    elif isinstance(argument, list | tuple):
        for each in argument:
            yield from _inner(each)


def _is_verbose(part: tuple[Any, Any]) -> bool:
    operation, argument = part
    return str(operation) == "SUBPATTERN" and bool(argument[1] & re.VERBOSE)
