"""Requests that make adapter files: which options they may have, before a process takes memory for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tincture.errors import UsageError, shortened
from tincture.kinds.registry import AdapterKind, Option
from tincture.server.errors import TooMuchError
from tincture.server.requests.sizes import check_size, check_sizes

MOST_LAYERS = 64
MOST_NUMBERS = 2**30
"""Of a new adapter: 4 GiB, where the largest hypernetworks in use have a tenth."""


def checked_options(kind: AdapterKind, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of ``recipe.create`` for this kind as a request gives them, ``overwrite`` among them.

    Raises:
        UsageError: there is no such option, or its value is not allowed.
        TooMuchError: the adapter would be larger than memory should be filled with.
    """
    _refuse_unknown(kind, options, (*(option.name for option in kind.options), "overwrite"))
    limited = {option.name: option.largest for option in kind.options if option.largest}
    for name, largest in limited.items():
        check_size(name, options.get(name), largest)
    check_sizes({name: value for name, value in options.items() if name not in limited})
    for option in kind.options:
        if option.several:
            _check_list(option, options.get(option.name, option.default))
    if kind.size is not None:
        _refuse_large(kind, *kind.size(options), options)
    return dict(options)


def _check_list(option: Option, value: Any) -> None:
    if (option.default is None and not value) or (option.or_word and isinstance(value, str)):
        return
    _check_numbers(option.name, value, whole=option.several is int)
    least, most = (option.request_bounds.get(bound) for bound in ("ge", "le"))
    if least is not None and most is not None and any(not least <= number <= most for number in value):
        raise UsageError(f"{option.name} has {shortened(list(value))}; a {option.item} is from {least} to {most}.")


def _refuse_large(kind: AdapterKind, count: int, decisive: str, options: Mapping[str, Any]) -> None:
    if count <= MOST_NUMBERS:
        return
    value = options.get(decisive, kind.option(decisive).default)
    shown = shortened(list(value) if isinstance(value, tuple) else value)
    raise TooMuchError(
        f"The {decisive.replace('_', ' ')} {shown} gives {kind.one} of {count:,} numbers; this server makes them up to "
        f"{MOST_NUMBERS:,}."
    )


def _refuse_unknown(kind: AdapterKind, options: Mapping[str, Any], known: Sequence[str]) -> None:
    unknown = [name for name in options if name not in known]
    if unknown:
        raise UsageError(f"{kind.one.capitalize()} has no option {shortened(unknown[0])}; it has {', '.join(known)}.")


def _check_numbers(name: str, values: Any, *, whole: bool = False) -> None:
    kinds = int if whole else (int, float)
    sound = isinstance(values, list | tuple) and all(
        isinstance(value, kinds) and not isinstance(value, bool) for value in values
    )
    if not sound or len(values) > MOST_LAYERS:
        words = "whole numbers" if whole else "numbers"
        raise UsageError(f"{name} is {shortened(values)}, but must be a list of at most {MOST_LAYERS} {words}.")
