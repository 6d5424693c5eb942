"""Requests to look into a file, to write an adapter in another format or to merge several, with paths resolved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tincture.data.picture_files import UnreadablePictureError
from tincture.errors import DataError, UsageError, shortened
from tincture.server.requests.pictures import facts_of
from tincture.server.requests.places import Places
from tincture.server.requests.sizes import check_sizes
from tincture.settings.conversion import CONVERSION_FIELDS, ConversionRequest, InspectionRequest
from tincture.settings.merging import MERGE_FIELDS, MergeRequest, is_name
from tincture.workspace import clean_name

LORA = "lora"
LORA_OPTIONS: Mapping[str, str] = {
    **{name: name for name in ("model", "rank", "captions", "output_bias")},
    "multiplier": "strength",
}
"""What a mapping ``lora`` among the options may have, as programs gave it before each had a field of its own."""


def checked_inspection(request: Mapping[str, Any], places: Places) -> Path:
    """The file that fields of ``InspectionRequest`` name; errors as of ``Places.path``, and UsageError."""
    return places.path(InspectionRequest.from_dict(request).path)


def checked_conversion(request: Mapping[str, Any], places: Places) -> dict[str, Any]:
    """The arguments of ``targets.convert``, paths in them resolved.

    Args:
        request: fields of ``ConversionRequest``; None stands for one that is left out. ``picture`` may also be a
            ``Path`` of a file that the server keeps itself, and ``lora`` a mapping of what is of a LoRA, where
            ``strength`` is called ``multiplier`` and captions are texts.
        places: which paths requests may name.

    Raises:
        UsageError: there is no such option, or its value is not allowed.
        ForbiddenPathError: a path leads out.
        DataError: the picture cannot be read, or is of a format that uploads cannot have.
    """
    given = {name: value for name, value in request.items() if value is not None and name != LORA}
    picture, captions = given.pop("picture", None), None
    if request.get(LORA) is not None:
        lora = _lora(request[LORA])
        captions = lora.pop("captions", None)
        given |= lora
    check_sizes(given, CONVERSION_FIELDS)
    asked = ConversionRequest.from_dict({**given, "picture": "" if isinstance(picture, Path) else picture or ""})
    made: dict[str, Any] = {name: getattr(asked, name) for name in ("to", "name", "author", "license", "overwrite")}
    made |= {"path": places.path(asked.path), "out": places.path(asked.out, writing=True)}
    if picture:
        made["picture"] = _checked_picture(picture, places)
    if asked.captions:
        captions = places.path(asked.captions)
    options = asked.lora_options() or {}
    if options.get("model"):
        options["model"] = places.model(asked.model)
    if captions:
        options["captions"] = captions
    return {**made, LORA: options} if options else made


def checked_merge(request: Mapping[str, Any], places: Places) -> dict[str, Any]:
    """The arguments of ``targets.merge``: files as paths, the new one as a name where it is given so.

    Args:
        request: fields of ``MergeRequest``; None stands for one that is left out.
        places: which paths requests may name.

    Raises:
        UsageError: there is no such option, or its value is not allowed, or no adapter of a name.
        ForbiddenPathError: a path leads out.
    """
    given = {name: value for name, value in request.items() if value is not None}
    check_sizes(given, MERGE_FIELDS)
    asked = MergeRequest.from_dict(given)
    sources = [
        (places.workspace.find_named(place) if is_name(place) else places.path(place), weight)
        for place, weight in asked.weighted()
    ]
    out = clean_name(asked.out) if is_name(asked.out) else places.path(asked.out, writing=True)
    further = {name: getattr(asked, name) for name in MERGE_FIELDS if name not in ("sources", "out", "method")}
    return {**further, "sources": sources, "out": out, "method": asked.chosen_method}


def _lora(lora: Any) -> dict[str, Any]:
    """Fields of ``ConversionRequest``, with captions as texts, of what is called ``lora``."""
    if not isinstance(lora, Mapping):
        raise UsageError(f"lora is {shortened(lora)}, but must have {', '.join(LORA_OPTIONS)}.")
    unknown = [name for name in lora if name not in LORA_OPTIONS]
    if unknown:
        raise UsageError(f"A LoRA has no option {shortened(unknown[0])}; it has {', '.join(LORA_OPTIONS)}.")
    given = {LORA_OPTIONS[name]: value for name, value in lora.items() if value is not None}
    check_sizes(given, CONVERSION_FIELDS)
    if not isinstance(given.get("captions", ()), list | tuple):
        raise UsageError(f"captions is {shortened(given['captions'])}, but must be a list.")
    return given


def _checked_picture(picture: Any, places: Places) -> Path:
    path = picture if isinstance(picture, Path) else places.path(picture)
    try:
        facts_of(path)
    except UnreadablePictureError as error:
        raise DataError(f"The picture {path.name} {str(error).rstrip('.')}; choose another one.") from error
    return path
