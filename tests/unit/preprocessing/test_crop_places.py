from __future__ import annotations

import os
from pathlib import Path

import pytest

from tincture.data.listing import PictureFile
from tincture.errors import DataError, UsageError
from tincture.preprocessing.crop_places import (
    check_emptiness,
    check_places,
    leftovers,
    list_sources,
    relative_name,
    stem_of,
)
from tincture.preprocessing.report import REPORT


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.png").write_bytes(b"a")
    (folder / "deep" / "b.png").write_bytes(b"b")
    return folder


def test_the_source_itself_is_refused_however_it_is_spelled(source: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(source)
    for same in (source, source / "deep" / "..", tmp_path / "link"):
        with pytest.raises(UsageError, match="is the source folder itself"):
            check_places(source, same, recursive=False)
    with pytest.raises(UsageError, match="The destination crops is the source folder itself"):
        check_places(tmp_path / "to come", tmp_path / "to come", recursive=False, named=("crops", "crops"))
    check_places(source, tmp_path / "out", recursive=False)


def test_a_destination_inside_the_source_is_refused_where_it_would_be_read(source: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(source)
    for inside in (source / "out", source / "deep" / "out", tmp_path / "link" / "out"):
        with pytest.raises(UsageError, match="lies inside the source"):
            check_places(source, inside, recursive=True)
        check_places(source, inside, recursive=False)
        (told,) = list_sources(source, inside, recursive=False).remarks
        assert "gets the crops too" in told
    check_places(source, tmp_path / "in-2", recursive=True)


def test_a_file_is_no_destination(source: Path) -> None:
    with pytest.raises(UsageError, match="is a file"):
        check_places(source, source / "a.png", recursive=False)


def test_sources_are_listed_without_the_crops_of_earlier_runs(source: Path, tmp_path: Path) -> None:
    crops = source / "crops"
    (crops / "train").mkdir(parents=True)
    (crops / REPORT).write_text("{}")
    (crops / "train" / "00000-0-a.png").write_bytes(b"c")
    listing = list_sources(source, tmp_path / "out", recursive=True)
    assert [relative_name(found) for found in listing.files] == ["a.png", "deep/b.png"]
    assert any(str(crops) in remark for remark in listing.remarks)
    assert [relative_name(found) for found in list_sources(source, tmp_path / "out", recursive=False).files] == [
        "a.png"
    ]


def test_a_missing_source_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        list_sources(tmp_path / "absent", tmp_path / "out", recursive=False)


@pytest.mark.parametrize("inner", ["", "train", "validation", "debug", "mask"])
def test_crops_never_go_where_sources_lie(tmp_path: Path, inner: str) -> None:
    sources = tmp_path / "out" / inner
    sources.mkdir(parents=True)
    (sources / "a.png").write_bytes(b"a")
    (tmp_path / "link").symlink_to(sources)
    for source in (sources, tmp_path / "link"):
        with pytest.raises(UsageError, match="choose another destination"):
            list_sources(source, tmp_path / "out", recursive=False)


def test_a_destination_with_other_things_in_it_is_refused(tmp_path: Path) -> None:
    check_emptiness(tmp_path / "absent")
    check_emptiness(tmp_path)
    (tmp_path / ".hidden").touch()
    check_emptiness(tmp_path)
    for name in "abcde":
        (tmp_path / f"{name}.jpg").touch()
    with pytest.raises(
        UsageError, match=r"is not empty \(a\.jpg, b\.jpg, c\.jpg and 2 more\).*give the setting overwrite to put crops"
    ):
        check_emptiness(tmp_path)


def test_names_of_any_kind_become_stems_that_files_can_have(tmp_path: Path) -> None:
    assert stem_of(Path("a red fox.tar.jpg")) == "a red fox.tar"
    assert stem_of(Path("лиса 狐.png")) == "лиса 狐"
    long = stem_of(Path("狐" * 84 + ".png"))
    assert long == "狐" * 60
    (tmp_path / f"00000-10-{long}.png").touch()
    undecodable = Path(os.fsdecode(b"fox\xff.png"))
    stem_of(undecodable).encode()
    relative_name(PictureFile(tmp_path / undecodable, tmp_path, 1)).encode()


def test_leftovers_are_only_crops_of_the_sources_asked_for(tmp_path: Path) -> None:
    names = [
        "train/.tincture-0123456789abcdef.tmp",
        "00003-0-fox.png",
        "train/00003-12-fox.png",
        "validation/00004-0-a-b.png",
    ]
    others = [
        "00003-0-cat.png",
        "00005-0-fox.png",
        "fox.png",
        "00003-x-fox.png",
        "00003-0-fox.txt",
        "debug/00003-0-fox.png",
    ]
    for name in names + others:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = {path.relative_to(tmp_path).as_posix() for path in leftovers(tmp_path, {3: "fox", 4: "a-b"})}
    assert found == set(names)
