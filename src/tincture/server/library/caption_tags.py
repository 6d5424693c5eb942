"""One change to the tags of many captions: add in front or behind, remove, replace."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol

from tincture.errors import UsageError

TagChange = Literal["front", "behind", "remove", "replace"]


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


def change_tags(
    store: CaptionStore, folder: str, pictures: Iterable[Captioned], change: TagChange, tag: str, other: str = ""
) -> dict[str, str]:
    """Changes the captions of ``pictures`` and returns the new ones by file; those that stay are not written.

    Raises:
        UsageError: the tag is empty or holds a comma, or nothing is given to replace it.
    """
    tag, other = tag.strip(), other.strip()
    if not tag or "," in tag:
        raise UsageError(f"The tag is {tag!r}; give one tag that is not empty and has no comma.")
    if change == "replace" and not other:
        raise UsageError(f"Nothing is given to replace {tag!r} by; write it, or use Remove.")
    changed = {}
    for picture in pictures:
        caption = changed_caption(picture.caption, change, tag, other)
        if caption != picture.caption:
            store.set_caption(folder, picture.file, caption)
            changed[picture.file] = caption
    return changed
