"""One change to the tags of many captions."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tincture.errors import UsageError
from tincture.server.library.caption_tags import TagChange, change_tags, changed_caption


@pytest.mark.parametrize(
    ("caption", "change", "tag", "other", "result"),
    [
        ("moon, dots", "front", "night", "", "night, moon, dots"),
        ("moon, dots", "behind", "night", "", "moon, dots, night"),
        ("", "front", "night", "", "night"),
        ("Night, moon", "front", "night", "", "Night, moon"),
        ("moon, night , dots", "remove", "night", "", "moon, dots"),
        ("moon,  dots", "remove", "night", "", "moon,  dots"),
        ("moon, night", "replace", "NIGHT", "day, sun", "moon, day, sun"),
        ("moon,  dots", "replace", "night", "day", "moon,  dots"),
    ],
)
def test_one_caption(caption: str, change: TagChange, tag: str, other: str, result: str) -> None:
    assert changed_caption(caption, change, tag, other) == result


@dataclass
class Picture:
    file: str
    caption: str


class Store:
    def __init__(self) -> None:
        self.written: list[tuple[str, str, str]] = []

    def set_caption(self, folder: str, file: str, text: str) -> None:
        self.written.append((folder, file, text))


def test_only_captions_that_change_are_written() -> None:
    store = Store()
    pictures = [Picture("a.png", "moon, night"), Picture("b.png", "moon"), Picture("c.png", "")]
    assert change_tags(store, "moons", pictures, "remove", " night ") == {"a.png": "moon"}
    assert store.written == [("moons", "a.png", "moon")]


@pytest.mark.parametrize(
    ("change", "tag", "other", "words"),
    [
        ("front", " ", "", "not empty"),
        ("front", "a, b", "", "no comma"),
        ("replace", "night", " ", "Nothing is given to replace"),
    ],
)
def test_what_makes_no_sense_is_refused(change: TagChange, tag: str, other: str, words: str) -> None:
    store = Store()
    with pytest.raises(UsageError, match=words):
        change_tags(store, "moons", [Picture("a.png", "night")], change, tag, other)
    assert store.written == []
