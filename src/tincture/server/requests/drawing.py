"""A request for pictures, checked as far as its fields go. Paths in it are left to ``places``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tincture.errors import UsageError, shortened
from tincture.models.samplers import SAMPLERS
from tincture.server.errors import TooMuchError
from tincture.server.requests.sizes import check_sizes
from tincture.settings.drawing import REQUEST_FIELDS, DrawingRequest

OPEN = ("model", "vae", "precision")
"""Fields that are left out by an empty text too."""


def checked_drawing(request: Mapping[str, Any], *, most: int, side: int) -> DrawingRequest:
    """The request with its seeds by chance drawn.

    Args:
        request: fields of ``DrawingRequest``; None stands for a field that is left out.
        most: pictures that it may ask for.
        side: pixels that a side may have.

    Raises:
        UsageError: a value is not allowed.
        TooMuchError: more or larger pictures than allowed.
    """
    given = {name: value for name, value in request.items() if value is not None}
    given = {name: value for name, value in given.items() if not (name in OPEN and value == "")}
    check_sizes({name: value for name, value in given.items() if name in REQUEST_FIELDS}, REQUEST_FIELDS)
    settings = DrawingRequest.from_dict(given)
    if settings.sampler not in SAMPLERS:
        raise UsageError(f"There is no sampler {shortened(settings.sampler)}; known are {', '.join(SAMPLERS)}.")
    for name in ("width", "height"):
        if (value := getattr(settings, name) or 0) > side:
            raise TooMuchError(f"{name} is {value}; this server draws pictures of at most {side} pixels a side.")
    if settings.is_sheet and (len(settings.prompts), settings.seed_count) != (1, 1):
        raise UsageError(
            f"A sheet takes one prompt and one seed, but {len(settings.prompts)} and {settings.seed_count} were given."
        )
    if settings.picture_count > most:
        raise TooMuchError(
            f"{settings.picture_count} pictures were asked for; this server draws at most {most} at a time."
        )
    return settings.replace(seeds=tuple(settings.drawn_seeds()))
