"""One change to many captions: a tag added in front or behind, removed or replaced, or a text replaced."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, Protocol

from tincture.errors import UsageError

TagChange = Literal["front", "behind", "remove", "replace"]
CaptionChange = Literal["front", "behind", "remove", "replace", "text"]
"""``text`` replaces a text wherever it stands, be it a tag, a part of one, or some."""


class Captioned(Protocol):
    """A picture with its caption; both are only read."""

    @property
    def file(self) -> str: ...
    @property
    def caption(self) -> str: ...


class CaptionStore(Protocol):
    """Where captions lie."""

    def set_caption(self, folder: str, file: str, text: str) -> None: ...


def changed_caption(caption: str, change: TagChange, tag: str, other: str = "") -> str:
    """``caption`` with one tag changed; tags are what stands between commas, and compare without regard to case.

    Args:
        change: ``front`` and ``behind`` add ``tag`` where it is not there yet; ``replace`` puts ``other`` in its place.
        tag: without a comma, not empty.
        other: what replaces it; may hold commas.
    """
    tags = [part.strip() for part in caption.split(",") if part.strip()]
    there = [part.lower() for part in tags]
    if change == "remove":
        tags = [part for part in tags if part.lower() != tag.lower()]
    elif change == "replace":
        tags = [other if part.lower() == tag.lower() else part for part in tags]
    elif tag.lower() not in there:
        tags = [tag, *tags] if change == "front" else [*tags, tag]
    else:
        return caption
    return ", ".join(tags) if change in ("front", "behind") or tag.lower() in there else caption


def replaced_text(caption: str, text: str, by: str) -> str:
    """``caption`` with ``by`` in place of ``text``, capitals or not; where nothing is left between commas, they go."""
    replaced = re.sub(re.escape(text), lambda _: by, caption, flags=re.IGNORECASE)
    if replaced == caption or by:
        return replaced
    tags = [part.strip() for part in replaced.split(",")]
    return ", ".join(re.sub(r"\s{2,}", " ", tag) for tag in tags if tag)


def planned_changes(pictures: Sequence[Captioned], change: CaptionChange, tag: str, other: str = "") -> dict[str, str]:
    """The captions that would be new, by file; nothing is written.

    Args:
        pictures: whose captions are changed.
        change: what is done, see ``changed_caption`` and ``replaced_text``.
        tag: the tag, or the text that is searched.
        other: what replaces it.

    Raises:
        UsageError: the tag or text is empty, a tag holds a comma, or nothing is given to replace a tag.
    """
    if change == "text":
        if not tag:
            raise UsageError("Nothing is given to find; write a text that captions hold.")
        changed = {picture.file: replaced_text(picture.caption, tag, other) for picture in pictures}
    else:
        tag, other = tag.strip(), other.strip()
        if not tag or "," in tag:
            raise UsageError(f"The tag is {tag!r}; give one tag that is not empty and has no comma.")
        if change == "replace" and not other:
            raise UsageError(f"Nothing is given to replace {tag!r} by; write it, or use Remove.")
        changed = {picture.file: changed_caption(picture.caption, change, tag, other) for picture in pictures}
    former = {picture.file: picture.caption for picture in pictures}
    return {file: caption for file, caption in changed.items() if caption != former[file]}


def change_tags(
    store: CaptionStore, folder: str, pictures: Sequence[Captioned], change: CaptionChange, tag: str, other: str = ""
) -> dict[str, str]:
    """Changes the captions of ``pictures`` and returns the new ones by file; those that stay are not written.

    Raises:
        UsageError: as ``planned_changes``.
    """
    changed = planned_changes(pictures, change, tag, other)
    for file, caption in changed.items():
        store.set_caption(folder, file, caption)
    return changed
