"""Which folders of crops are for validation, and which crops show one source."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tincture.data.listing import Source, list_pictures
from tincture.data.preprocessed import (
    REPORT,
    groups_of_sources,
    is_for_validation,
    is_no_training_data,
    sides_of,
)


def preprocessed(folder: Path, content: object = None) -> Path:
    for inner in ("train", "validation", "debug"):
        (folder / inner).mkdir(parents=True)
    report = {"settings": {"validation_share": 0.2}} if content is None else content
    (folder / REPORT).write_text(report if isinstance(report, str) else json.dumps(report))
    return folder


def test_a_part_set_aside_is_known_by_the_report(tmp_path: Path) -> None:
    made, plain = preprocessed(tmp_path / "made"), preprocessed(tmp_path / "plain")
    (plain / REPORT).unlink()
    assert sides_of(made) == (made / "train", made / "validation")
    assert sides_of(plain) is None
    assert sides_of(made / "train") is None
    assert [is_for_validation(folder / "validation") for folder in (made, plain)] == [True, False]
    assert [is_no_training_data(made / name) for name in ("train", "validation", "debug")] == [False, True, True]
    (tmp_path / "link").symlink_to(made / "validation")
    assert is_for_validation(tmp_path / "link")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"settings": {"validation_share": 0.0}}, False),
        ({"settings": {}}, True),
        ("{torn", True),
        ("[1]", True),
        ({"settings": 3}, True),
    ],
)
def test_a_report_that_says_nothing_keeps_validation_apart(tmp_path: Path, content: object, expected: bool) -> None:
    made = preprocessed(tmp_path / "made", content)
    assert is_for_validation(made / "validation") is expected
    assert (sides_of(made) is not None) is expected


def test_a_half_made_folder_has_no_sides(tmp_path: Path) -> None:
    made = preprocessed(tmp_path / "made")
    (made / "validation").rmdir()
    assert sides_of(made) is None


def test_inner_folders_leave_out_what_is_not_to_be_trained(tmp_path: Path) -> None:
    made = preprocessed(tmp_path / "data" / "rex")
    (tmp_path / "data" / "validation").mkdir()  # a person's own: no report beside it
    places = [made / inner for inner in ("train", "validation", "debug")] + [tmp_path / "data" / "validation"]
    for folder in places:
        (folder / "a.png").write_bytes(b"x")
    found = list_pictures(Source(tmp_path / "data"), recursive=True)
    assert [file.path.parent for file in found.files] == [made / "train", tmp_path / "data" / "validation"]
    left_out = (
        f"The folder {made / 'validation'} is what preprocessing set aside for validation; its pictures are left out."
    )
    assert found.remarks == [left_out]
    every = list_pictures(Source(tmp_path / "data"), recursive=True, set_aside=True)
    assert sorted(file.path.parent for file in every.files) == sorted(places)
    assert not every.remarks
    named = list_pictures(Source(made / "validation"), recursive=True)
    assert [file.path for file in named.files] == [made / "validation" / "a.png"]


def test_a_metadata_file_brings_none_of_them_in(tmp_path: Path) -> None:
    made = preprocessed(tmp_path / "rex")
    for inner in ("train", "validation"):
        (made / inner / "a.png").write_bytes(b"x")
    lines = [json.dumps({"file_name": f"{inner}/a.png", "text": "a fox"}) for inner in ("train", "validation")]
    (made / "metadata.jsonl").write_text("\n".join(lines))
    found = list_pictures(Source(made))
    assert [file.path for file in found.files] == [made / "train" / "a.png"]
    assert len(found.remarks) == 1 and "set aside for validation" in found.remarks[0]


def grouped(contents: dict[Path, str]) -> set[frozenset[str]]:
    groups = groups_of_sources(contents)
    assert sorted(path for group in groups for path in group) == sorted(contents)
    return {frozenset(path.name for path in group) for group in groups}


def test_crops_of_one_source_are_together(tmp_path: Path) -> None:
    names = ("00000-0-fox.png", "00000-1-fox.png", "00001-0-fox.png", "00001-0-owl.png", "fox.png", "12-fox.png")
    contents = {tmp_path / name: name for name in names}
    assert grouped(contents) == {
        frozenset({"00000-0-fox.png", "00000-1-fox.png"}),
        *(frozenset({name}) for name in names[2:]),
    }


def test_what_the_report_knows_counts_too(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    made = preprocessed(
        tmp_path / "made",
        {
            "settings": {"source": str(photos), "validation_share": 0.2},
            "sources": [
                {"index": 0, "source": "a.jpg"},
                {"index": 1, "source": "b.jpg"},
                {"index": 2, "source": "c.jpg"},
            ],
            "near_duplicates": [{"first": "a.jpg", "second": "b.jpg", "distance": 3}],
        },
    )
    crops = [made / "train" / f"0000{number}-0-{stem}.png" for number, stem in enumerate("abc")]
    contents = {path: str(path) for path in (*crops, photos / "c.jpg", photos / "d.jpg")}
    assert grouped(contents) == {
        frozenset({"00000-0-a.png", "00001-0-b.png"}),
        frozenset({"00002-0-c.png", "c.jpg"}),
        frozenset({"d.jpg"}),
    }


def test_files_of_one_content_are_together_and_so_are_their_fellows(tmp_path: Path) -> None:
    """Whatever the order in which they come."""
    contents = {
        tmp_path / "00007-0-x.png": "same",
        tmp_path / "copy.png": "same",
        tmp_path / "00007-1-x.png": "other",
        tmp_path / "alone.png": "third",
    }
    for seed in range(6):
        items = list(contents.items())
        random.Random(seed).shuffle(items)
        assert grouped(dict(items)) == {
            frozenset({"00007-0-x.png", "copy.png", "00007-1-x.png"}),
            frozenset({"alone.png"}),
        }


@pytest.mark.parametrize(
    "content",
    [
        '{"sources": [{"index": 0, "source": "a\\u0000"}]}',
        "{torn",
        '{"sources": 3, "near_duplicates": [1, {}]}',
        '{"sources": [{"index": []}]}',
    ],
)
def test_a_damaged_report_knows_nothing(tmp_path: Path, content: str) -> None:
    made = preprocessed(tmp_path / "made", content)
    path = made / "train" / "00000-0-a.png"
    assert grouped({path: "1"}) == {frozenset({path.name})}
