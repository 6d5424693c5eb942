"""Configurations of a model's parts, from the JSON files of a diffusers folder or from shapes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tincture.errors import ModelError
from tincture.models.loading.configs import ShapeError


def config_of(part: str, folder: Path | None, place: str, infer: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The configuration of ``part``: that of the diffusers folder ``folder`` if there is one, else what ``infer`` says.

    Args:
        place: what the part is and where it came from, for messages: "The unet in FILE".

    Raises:
        ModelError: the file cannot be read, or the shapes are not those of such a part.
    """
    if folder is not None:
        return read_config(folder / part / "config.json")
    try:
        return infer()
    except ShapeError as error:
        raise ModelError(f"{place} cannot be loaded: {error}.") from error


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``; ModelError where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"The model folder {path.parent} has no {path.name}; a diffusers folder is needed.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"The file {path} of the model cannot be read: {error}.") from error
    if not isinstance(content, dict):
        raise ModelError(f"The file {path} of the model holds no JSON object; copy the model folder again.")
    return content


def wrong_shape(place: str, name: str, given: tuple[int, ...], needed: tuple[int, ...]) -> ModelError:
    """The sentence for a weight that does not fit the configuration."""
    return ModelError(
        f"{place} cannot be loaded: its weight {name} has the shape {given}, and {needed} is needed; it does not fit "
        "its configuration."
    )
