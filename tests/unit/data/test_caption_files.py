"""Which caption file belongs to which picture."""

from __future__ import annotations

from pathlib import Path

import pytest

from tincture.data.caption_files import find_caption_file, place_for_caption
from tincture.data.captions import caption_for
from tincture.data.listing import Source, list_pictures


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_text(f"in {name}")


def read(folder: Path) -> dict[str, str | None]:
    return {found.path.name: found.text_file and found.text_file.name for found in list_pictures(Source(folder)).files}


@pytest.mark.parametrize(
    ("picture", "caption"),
    [
        ("1.png", "1.txt"),
        ("1.png", "1.TXT"),
        ("1.png", "1.Txt"),
        ("1.png", "1.caption"),
        ("1.png", "1.CAPTION"),
        ("1.png", "1.png.txt"),
        ("1.png", "1.PNG.TXT"),
        ("1.PNG", "1.png.Caption"),
        ("1.png", "1.txt.txt"),
        ("1.png", "1.caption.txt"),
        ("1.png", "1.png.txt.txt"),
        ("1.png", "1 .txt"),
        ("img_1.JPG", "IMG_1.txt"),
        ("1.webp", "1.png.txt"),
        ("1.jpeg", "1.jpg.txt"),
        ("caf\u00e9.png", "cafe\u0301.txt"),
        ("a.b.png", "a.b.txt"),
    ],
)
def test_a_caption_whose_picture_is_clear_is_used(tmp_path: Path, picture: str, caption: str) -> None:
    put(tmp_path, picture, caption, "other.png")
    assert read(tmp_path) == {picture: caption, "other.png": None}
    assert find_caption_file(tmp_path / picture) == tmp_path / caption
    assert caption_for(tmp_path / picture) == f"in {caption}".strip()
    assert list_pictures(Source(tmp_path)).unused_captions == []


def test_what_may_mean_two_pictures_is_named(tmp_path: Path) -> None:
    put(tmp_path, "1.png", "1.jpg", "1.txt.txt", "A.png", "a.png", "A .txt", "12.png", "1.2.txt")
    listing = list_pictures(Source(tmp_path))
    assert {found.text_file for found in listing.files} == {None}
    assert [path.name for path in listing.unused_captions] == ["1.2.txt", "1.txt.txt", "A .txt"]
    assert find_caption_file(tmp_path / "1.png") is None
    put(tmp_path, "1.PNG.txt")  # which of the two is clear
    assert read(tmp_path) == {"1.png": "1.PNG.txt", "1.jpg": None, "A.png": None, "a.png": None, "12.png": None}


def test_a_usual_name_serves_all_pictures_of_that_stem(tmp_path: Path) -> None:
    put(tmp_path, "1.png", "1.jpg", "1.txt", "1.jpg.caption")
    assert read(tmp_path) == {"1.png": "1.txt", "1.jpg": "1.txt"}
    assert list_pictures(Source(tmp_path)).further_captions == {tmp_path / "1.txt": [tmp_path / "1.jpg.caption"]}


def test_a_usual_name_goes_before_an_odd_one(tmp_path: Path) -> None:
    put(tmp_path, "1.png", "1 .txt", "1.png.CAPTION")
    assert read(tmp_path) == {"1.png": "1.png.CAPTION"}
    put(tmp_path, "1.caption")
    assert read(tmp_path) == {"1.png": "1.caption"}


@pytest.mark.parametrize(
    ("others", "place"),
    [
        ([], "1.txt"),
        (["1.json", "11.png", "2.png", "notes.txt"], "1.txt"),
        (["1.jpg"], "1.png.txt"),
        (["1.PSD", "1.psd.txt"], "1.png.txt"),
        (["1"], "1.png.txt"),
    ],
    ids=["alone", "no picture of that stem", "two", "the other has its caption", "one without an ending"],
)
def test_a_new_caption_becomes_that_of_its_own_picture_alone(tmp_path: Path, others: list[str], place: str) -> None:
    put(tmp_path, "1.png", *others)
    before = read(tmp_path)
    assert place_for_caption(tmp_path / "1.png") == tmp_path / place
    put(tmp_path, place)
    assert read(tmp_path) == {**before, "1.png": place}


def test_what_is_no_file_does_not_stand_in_the_way_of_a_new_caption(tmp_path: Path) -> None:
    put(tmp_path, "1.png", "2.png")
    (tmp_path / "1.txt").mkdir()
    (tmp_path / "2.txt").symlink_to("nowhere")
    assert [place_for_caption(tmp_path / f"{number}.png").name for number in (1, 2)] == ["1.png.txt", "2.png.txt"]
