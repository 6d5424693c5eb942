"""The caption of a crop: what stood beside the source, and what models say of the crop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tincture.data.captions import caption_for

Existing = Literal["ignore", "copy", "prepend", "append"]
JOIN = ", "


def existing_caption(picture: Path, from_metadata: str | None, encoding: str = "utf-8") -> str:
    """The caption file's text beside `picture`, else what a metadata file said; "" when there is neither.

    Raises:
        DataError: the caption file cannot be read in this encoding.
    """
    return caption_for(picture, encoding=encoding, otherwise=from_metadata or "").strip()


def needs_words(existing: str, action: Existing) -> bool:
    """Whether what models say of the picture would be used."""
    return action != "copy" or not existing


def compose(existing: str, said: Sequence[str], action: Existing) -> str:
    """One caption of an existing one and of what models say; "" for none.

    The action `copy` takes the existing one where there is one; `prepend` and `append` put it before or behind what
    models say; `ignore` leaves it out.
    """
    words = [text.strip() for text in said if text.strip()]
    if action == "copy" and existing:
        return existing
    before = [existing] if action in ("prepend", "copy") and existing else []
    behind = [existing] if action == "append" and existing else []
    return JOIN.join([*before, *words, *behind])
