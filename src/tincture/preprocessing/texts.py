"""The caption of a crop: what stood beside the source, and what models say of the crop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tincture.data.captions import read_caption, written_caption
from tincture.data.listing import PictureFile

Existing = Literal["ignore", "copy", "prepend", "append"]
JOIN = ", "


def existing_caption(picture: Path, from_metadata: str | None, encoding: str = "utf-8") -> str | None:
    """The caption file's text beside `picture`, else what a metadata file said; None when there is neither.

    An empty one is a caption too: that of a picture to be learned without words.

    Raises:
        DataError: the caption file cannot be read in this encoding.
    """
    written = written_caption(picture, encoding)
    found = from_metadata if written is None else written
    return None if found is None else found.strip()


def listed_caption(found: PictureFile, encoding: str = "utf-8") -> str | None:
    """The same of a file that was listed, so that its folder need not be looked at again."""
    written = None if found.text_file is None else read_caption(found.text_file, encoding)
    caption = found.caption if written is None else written
    return None if caption is None else caption.strip()


def needs_words(existing: str | None, action: Existing) -> bool:
    """Whether what models say of the picture would be used."""
    return action != "copy" or existing is None


def compose(existing: str | None, texts: Sequence[str], action: Existing) -> str | None:
    """One caption of an existing one and of what models say; None for none.

    The action `copy` takes the existing one where there is one; `prepend` and `append` put it before or behind what
    models say; `ignore` leaves it out.
    """
    written = None if action == "ignore" else existing
    if action == "copy" and written is not None:
        return written
    words = [text.strip() for text in texts if text.strip()]
    whole = [*words, written] if action == "append" else [written, *words]
    composed = JOIN.join(text for text in whole if text)
    return composed if composed or written is not None else None
