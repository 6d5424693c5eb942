"""Texts that were made to keep a server busy for hours: a million characters, read as fast as a million others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tincture.data import captions
from tincture.data.caption_lists import LONGEST_LINE, MOST_FAULTS, MOST_READ_FAULTS, read_metadata
from tincture.data.captions import caption_for
from tincture.errors import UsageError
from tincture.formats.picture_text import parse_parameters
from tincture.models.prompt import parse_weights
from tincture.server.api_webui.session import title_matches
from tincture.server.page.try_it.prompt_edit import named_in, without
from tincture.server.queue.folder import JobFolder

MANY = 10**6
MODEL = {"name": "moon.safetensors", "path": "/models/moon.safetensors"}


def _log(folder: Path) -> str:
    (folder / "log.txt").write_text("x" * MANY + "\rshort")
    return JobFolder(folder).log_tail(2 * MANY)


@pytest.mark.parametrize(
    ("read", "result"),
    [
        (lambda _: title_matches("moon" + " " * MANY, MODEL), False),
        (lambda _: title_matches("moon" + " " * MANY + "[0123abcd]", MODEL), True),
        (lambda _: title_matches("[" * MANY, MODEL), False),
        (lambda _: parse_parameters(" " * MANY + "x").settings, {}),
        (lambda _: parse_parameters('a: "' + "\\,a:" * MANY).settings, {}),
        (lambda _: parse_weights(":" + "1" * MANY)[0].weight, 1.0),
        (lambda _: parse_weights("(x:" + "1." * MANY)[0].text[:3], "x:1"),
        (lambda _: without(" " * MANY + "x", []), "x"),
        (lambda _: named_in("(moon:" + "1" * MANY, {"embedding": ["moon"]}), [("embedding", "moon", 1.0)]),
        (lambda _: named_in("<hypernet:" * (MANY // 10), {"hypernetwork": ["moon"]}), []),
        (_log, "short"),
    ],
)
def test_no_text_takes_longer_than_its_length_explains(
    read: Callable[[Path], object], result: object, tmp_path: Path
) -> None:
    assert read(tmp_path) == result


def test_a_word_regex_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions, "REGEX_WITHIN_S", 0.05)
    with pytest.raises(UsageError, match=r"has not come to an end with 'a+b'"):
        caption_for(Path("a" * 60 + "b.png"), "(a|a)+$")


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_metadata_that_are_none_are_not_read_to_their_end(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("x\n" * MANY)
    found, (remark,) = read_metadata(tmp_path)
    assert found == {} and f"and {MOST_READ_FAULTS + 1 - MOST_FAULTS} more faults" in remark


@pytest.mark.parametrize(("name", "line"), [("metadata.jsonl", "[],"), ("metadata.csv", "a,")])
def test_a_line_of_metadata_that_no_caption_explains_is_not_read(name: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    sound = json.dumps({"file_name": "a.png", "text": "a fox"}) if name.endswith("jsonl") else "file_name,text\na.png,x"
    (tmp_path / name).write_text(f"{sound}\n{line * LONGEST_LINE}\n")
    found, (remark,) = read_metadata(tmp_path)
    assert list(found) == [tmp_path / "a.png"] and "the rest cannot be read: a line has more than" in remark
