"""Requests that make adapter files: which options they may have, before a process takes memory for them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from tincture.errors import UsageError
from tincture.formats.layer_structure import layer_widths
from tincture.randomness import LARGEST_REQUESTED_SEED
from tincture.server.errors import TooMuchError
from tincture.server.requests.sizes import check_size, check_sizes, shortened

NETWORK_OPTIONS = (
    *("sizes", "layer_structure", "activation_func", "weight_init", "add_layer_norm", "activate_output"),
    *("dropout_structure", "seed", "overwrite"),
)
WIDEST_CONTEXT = 8192
MOST_LAYERS = 64
MOST_NUMBERS = 2**30
"""Of a hypernetwork: 4 GiB, where the largest in use have a tenth."""
_WIDTHS = (320, 640, 1280, 2048)  # of SD's models, where a request names none


def checked_network(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of ``recipe.create_hypernetwork`` as a request gives them.

    Raises:
        UsageError: there is no such option, or its value is not allowed.
        TooMuchError: the network would be larger than memory should be filled with.
    """
    _refuse_unknown("hypernetwork", options, NETWORK_OPTIONS)
    check_size("seed", options.get("seed"), LARGEST_REQUESTED_SEED)
    check_sizes({name: value for name, value in options.items() if name != "seed"})
    sizes = options.get("sizes") or ()
    structure = options.get("layer_structure", (1, 2, 1))
    for name, value in (("layer_structure", structure), ("dropout_structure", options.get("dropout_structure") or ())):
        _check_numbers(name, value)
    if not isinstance(sizes, str):
        _check_numbers("sizes", sizes, whole=True)
        if any(not 1 <= size <= WIDEST_CONTEXT for size in sizes):
            raise UsageError(f"sizes has {shortened(list(sizes))}; a width is from 1 to {WIDEST_CONTEXT}.")
    widths = [layer_widths(size, structure) for size in (_WIDTHS if isinstance(sizes, str) or not sizes else sizes)]
    count = sum(2 * one * other for row in widths for one, other in itertools.pairwise(row))
    if count > MOST_NUMBERS:
        raise TooMuchError(
            f"The layer structure {shortened(list(structure))} gives a hypernetwork of {count:,} numbers; this server "
            f"makes them up to {MOST_NUMBERS:,}."
        )
    return dict(options)


def _refuse_unknown(what: str, options: Mapping[str, Any], known: Sequence[str]) -> None:
    unknown = [name for name in options if name not in known]
    if unknown:
        raise UsageError(f"A {what} has no option {shortened(unknown[0])}; it has {', '.join(known)}.")


def _check_numbers(name: str, values: Any, *, whole: bool = False) -> None:
    kinds = int if whole else (int, float)
    sound = isinstance(values, list | tuple) and all(
        isinstance(value, kinds) and not isinstance(value, bool) for value in values
    )
    if not sound or len(values) > MOST_LAYERS:
        words = "whole numbers" if whole else "numbers"
        raise UsageError(f"{name} is {shortened(values)}, but must be a list of at most {MOST_LAYERS} {words}.")
