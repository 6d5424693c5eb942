"""A request for pictures: which fields it may have, and what they may hold. Paths in it are left to ``places``."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from tincture.errors import UsageError
from tincture.models.samplers import SAMPLERS
from tincture.server.errors import TooMuchError
from tincture.server.requests.sizes import DRAWING, LARGEST_REQUESTED_SEED, check_sizes, shortened

TEXTS = ("negative_prompt", "sampler", "model", "vae", "precision", "family", "prediction_type")
WHOLE = {"steps": 1, "clip_skip": 1, "width": 8, "height": 8, "batch_size": 1}
"""Whole numbers, and what they are at least."""
LISTS = ("prompts", "seeds", "strengths", "checkpoints")
OTHERS = ("guidance_scale", "zero_terminal_snr")
FIELDS = (*LISTS, *TEXTS, *WHOLE, *OTHERS)
CHOICES: Mapping[str, Sequence[str]] = {
    "precision": ("fp32", "bf16", "fp16"),
    "family": ("sd1", "sd2", "sdxl"),
    "prediction_type": ("epsilon", "v_prediction"),
}
DRAWN_BY = ("negative_prompt", "steps", "sampler", "guidance_scale", "width", "height", "clip_skip")
OVERRIDES = ("vae", "family", "prediction_type", "zero_terminal_snr")
BY_CHANCE = -1
SEEDS_BY_CHANCE = 2**32


def checked_drawing(request: Mapping[str, Any], *, most: int, side: int) -> dict[str, Any]:
    """The request as ``call_targets.draw`` takes it.

    Args:
        request: see ``Service.draw``; None stands for a field that is left out.
        most: pictures that it may ask for.
        side: pixels that a side may have.

    Returns:
        ``prompts``, ``seeds`` (those by chance drawn), ``strengths``, ``checkpoints``, ``drawing`` (fields of
        ``Drawing``), ``overrides`` (fields of ``ModelOverrides``), and those of ``model``, ``precision`` and
        ``batch_size`` that were given.

    Raises:
        UsageError: a value is not allowed.
        TooMuchError: more or larger pictures than allowed.
    """
    unknown = [name for name in request if name not in FIELDS]
    if unknown:
        raise UsageError(f"A drawing has no {shortened(unknown[0])}; it may have {', '.join(FIELDS)}.")
    given = {name: value for name, value in request.items() if value is not None}
    check_sizes(given, DRAWING)
    for name, value in given.items():
        _check(name, value)
    _check_sides(given, side)
    lists = {name: list(given.get(name, ())) for name in LISTS}
    lists["seeds"] = [_drawn(seed) for seed in lists["seeds"] or [BY_CHANCE]]
    _check_count(lists, most)
    return {
        **lists,
        **{name: given[name] for name in ("model", "precision", "batch_size") if given.get(name) not in (None, "")},
        "drawing": {name: given[name] for name in DRAWN_BY if name in given},
        "overrides": {name: given[name] for name in OVERRIDES if given.get(name) not in (None, "")},
    }


def _check(name: str, value: Any) -> None:
    if name in LISTS:
        _check_list(name, value)
    elif name in TEXTS and not isinstance(value, str):
        raise UsageError(f"{name} is {shortened(value)}, but must be a text.")
    elif name in WHOLE and (type(value) is not int or value < WHOLE[name]):
        raise UsageError(f"{name} is {shortened(value)}, but must be a whole number, at least {WHOLE[name]}.")
    elif name == "guidance_scale" and not (_is_number(value) and value >= 0):
        raise UsageError(f"guidance_scale is {shortened(value)}, but must be a number, at least 0.")
    elif name == "zero_terminal_snr" and not isinstance(value, bool):
        raise UsageError(f"zero_terminal_snr is {shortened(value)}, but must be true or false.")
    elif name in CHOICES and value not in CHOICES[name]:
        raise UsageError(f"{name} is {shortened(value)}, but must be one of {', '.join(CHOICES[name])}.")
    elif name == "sampler" and value not in SAMPLERS:
        raise UsageError(f"There is no sampler {shortened(value)}; known are {', '.join(SAMPLERS)}.")


def _check_list(name: str, value: Any) -> None:
    if not isinstance(value, list | tuple):
        raise UsageError(f"{name} is {shortened(value)}, but must be a list.")
    for item in value:
        if name in ("prompts", "checkpoints") and not isinstance(item, str):
            raise UsageError(f"{name} has {shortened(item)} in it, but must be a list of texts.")
        if name == "seeds" and (type(item) is not int or not BY_CHANCE <= item <= LARGEST_REQUESTED_SEED):
            raise UsageError(f"seeds has {shortened(item)} in it; a seed is a whole number, at least 0, or -1.")
        if name == "strengths" and not _is_number(item):
            raise UsageError(f"strengths has {shortened(item)} in it, but must be a list of numbers.")


def _check_sides(given: Mapping[str, Any], most: int) -> None:
    for name in ("width", "height"):
        value = given.get(name, 8)
        if value % 8:
            raise UsageError(f"{name} is {value}, but must be a multiple of 8.")
        if value > most:
            raise TooMuchError(f"{name} is {value}; this server draws pictures of at most {most} pixels a side.")


def _check_count(lists: Mapping[str, Sequence[Any]], most: int) -> None:
    prompts, seeds = lists["prompts"], lists["seeds"]
    if not prompts:
        raise UsageError("prompts is empty; give at least one prompt.")
    if lists["strengths"] or lists["checkpoints"]:
        if (len(prompts), len(seeds)) != (1, 1):
            raise UsageError(f"A sheet takes one prompt and one seed, but {len(prompts)} and {len(seeds)} were given.")
        count = max(1, len(lists["strengths"])) * max(1, len(lists["checkpoints"]))
    else:
        count = len(prompts) * len(seeds)
    if count > most:
        raise TooMuchError(f"{count} pictures were asked for; this server draws at most {most} at a time.")


def _drawn(seed: int) -> int:
    return secrets.randbelow(SEEDS_BY_CHANCE) if seed == BY_CHANCE else seed


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
