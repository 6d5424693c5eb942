"""What can describe pictures here, and what is not there that it would need; nothing heavy is imported for that."""

from __future__ import annotations

from dataclasses import dataclass

from tincture.errors import TinctureError
from tincture.preprocessing.describer_kinds import fault_of, find_describers, is_installed, missing_describer
from tincture.server.requests.places import Places

DESCRIBERS = ("captioner", "tagger")
NEEDS_OPENCV = (
    "Faces and corners need OpenCV, which is not installed: pip install 'tincture[preprocess]'. Without it they do not "
    "count, and entropy alone decides."
)


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


def missing_for_faces() -> str:
    """A sentence about what a focal crop lacks to find faces and corners; empty where it can."""
    return "" if is_installed("cv2") else NEEDS_OPENCV


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
        return fault_of(what, places.helper_model(model))
    except TinctureError as error:
        return error.sentence
