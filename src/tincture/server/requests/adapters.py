"""Requests that make adapter files: which options they may have, before a process takes memory for them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tincture.data.pictures import UnreadablePictureError
from tincture.errors import DataError, UsageError
from tincture.formats.layer_structure import layer_widths
from tincture.randomness import LARGEST_REQUESTED_SEED
from tincture.server.errors import TooMuchError
from tincture.server.requests.pictures import facts_of
from tincture.server.requests.places import Places
from tincture.server.requests.sizes import check_size, check_sizes, shortened

NETWORK_OPTIONS = (
    *("sizes", "layer_structure", "activation_func", "weight_init", "add_layer_norm", "activate_output"),
    *("dropout_structure", "seed", "overwrite"),
)
CONVERSION_OPTIONS = ("to", "name", "author", "license", "picture", "lora", "overwrite")
LORA_OPTIONS = ("model", "rank", "captions", "multiplier", "output_bias")
WIDEST_CONTEXT = 8192
MOST_LAYERS = 64
MOST_NUMBERS = 2**30
"""Of a hypernetwork: 4 GiB, where the largest in use have a tenth."""
LARGEST_RANK = 4096
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


def checked_conversion(options: Mapping[str, Any], places: Places) -> dict[str, Any]:
    """Options of ``conversion.convert_file`` as a request gives them, paths in them resolved.

    Args:
        options: ``picture`` is a path that a request gives, or a ``Path`` of a file that the server keeps itself.
        places: which paths requests may name.

    Raises:
        UsageError: there is no such option, or its value is not allowed.
        ForbiddenPathError: a path leads out.
        DataError: the picture cannot be read, or is of a format that uploads cannot have.
    """
    _refuse_unknown("conversion", options, CONVERSION_OPTIONS)
    checked = {name: value for name, value in options.items() if value is not None}
    check_sizes({name: value for name, value in checked.items() if name not in ("lora", "picture")})
    if "picture" in checked:
        checked["picture"] = _checked_picture(checked["picture"], places)
    if "lora" in checked:
        checked["lora"] = _checked_lora(checked["lora"], places)
    return checked


def _checked_picture(picture: Any, places: Places) -> Path:
    path = picture if isinstance(picture, Path) else places.path(picture)
    try:
        facts_of(path)
    except UnreadablePictureError as error:
        raise DataError(f"The picture {path.name} {str(error).rstrip('.')}; choose another one.") from error
    return path


def _checked_lora(lora: Any, places: Places) -> dict[str, Any]:
    if not isinstance(lora, Mapping):
        raise UsageError(f"lora is {shortened(lora)}, but must have {', '.join(LORA_OPTIONS)}.")
    _refuse_unknown("LoRA", lora, LORA_OPTIONS)
    checked = {name: value for name, value in lora.items() if value is not None}
    check_size("rank", checked.get("rank"), LARGEST_RANK)
    check_sizes({name: value for name, value in checked.items() if name != "rank"})
    if checked.get("model"):
        checked["model"] = places.model(checked["model"])
    return checked


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
