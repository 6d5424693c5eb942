"""What can describe pictures here, and what is not there that it would need; nothing heavy is imported for that."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass

from tincture.errors import TinctureError
from tincture.preprocessing.blip_files import find_blip
from tincture.preprocessing.tagging import find_tagger
from tincture.server.requests.places import Places
from tincture.webui.translation import find_describers, missing_describer

DESCRIBERS = ("captioner", "tagger")
NEEDS_ONNX = "Tags by this model need onnxruntime, which is not installed: pip install 'tincture[tag]'."


@dataclass(frozen=True)
class Describer:
    """A model that describes pictures.

    Attributes:
        model: its place; empty where none is found by itself.
        missing: a sentence about what is not there; empty where it can be used.
    """

    model: str
    missing: str


def describers(places: Places) -> dict[str, Describer]:
    """``captioner`` and ``tagger``, as they are found by themselves."""
    found = find_describers(places.workspace)
    return {what: Describer(found.get(what, ""), missing_for(places, what, found.get(what, ""))) for what in DESCRIBERS}


def missing_for(places: Places, what: str, model: str) -> str:
    """A sentence about what the captioner or tagger ``model`` lacks; empty where it can be used, or is on the hub.

    Args:
        what: ``captioner`` or ``tagger``.
        model: as a person names it; empty: the one that is found by itself.
    """
    if not model and not (model := find_describers(places.workspace).get(what, "")):
        asked = "Captions are to be written" if what == "captioner" else "Tags are to be written"
        return missing_describer(what, asked)
    try:
        named = places.helper_model(model)
        if not os.path.exists(named):
            return ""  # on the hub, from which it is fetched
        if what == "captioner":
            find_blip(named)
            return ""
        _, labels = find_tagger(named)
    except TinctureError as error:
        return error.sentence
    return "" if labels is None or is_installed("onnxruntime") else NEEDS_ONNX


def is_installed(module: str) -> bool:
    """Whether a module could be imported; it is not."""
    return importlib.util.find_spec(module) is not None
