from __future__ import annotations

from pathlib import Path

import pytest

from tincture.data.listing import (
    MOST_SEARCHED,
    Listing,
    PictureFile,
    Source,
    caption_remarks,
    inner_folders,
    inner_remarks,
    list_pictures,
    name_some,
    no_pictures,
)
from tincture.errors import DataError, UsageError


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def names(root: Path, **options: bool) -> list[str]:
    listing = list_pictures(Source(root), **options)
    assert listing.remarks == []
    return [found.path.relative_to(root).as_posix() for found in listing.files]


@pytest.mark.parametrize(
    ("text", "folder", "repeats"),
    [
        ("rex", "rex", 1),
        ("a/rex:3", "a/rex", 3),
        ("C:\\rex", "C:\\rex", 1),
        ("C:\\rex:12", "C:\\rex", 12),
        (":", ":", 1),
    ],
)
def test_a_source_may_say_how_often(text: str, folder: str, repeats: int) -> None:
    assert Source.parse(text) == Source(Path(folder), repeats)
    assert str(Source.parse(text)) == text


def test_a_folder_that_is_called_so_is_taken_by_its_name(tmp_path: Path) -> None:
    assert Source.parse(f"{tmp_path}/rex:3") == Source(tmp_path / "rex", 3)
    (tmp_path / "rex:3").mkdir()
    assert Source.parse(f"{tmp_path}/rex:3") == Source(tmp_path / "rex:3", 1)
    assert Source.parse(f"{tmp_path}/rex:3:2") == Source(tmp_path / "rex:3", 2)


@pytest.mark.parametrize("repeats", ["0", "10001", "9" * 5000])
def test_repeats_out_of_bounds_are_refused(repeats: str) -> None:
    with pytest.raises(UsageError, match=rf"'rex:{repeats[:9]}.* repeats; give 1 to 10000\."):
        Source.parse(f"rex:{repeats}")


def test_a_source_can_be_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert str(Source.parse("rex:3").resolved()) == f"{tmp_path / 'rex'}:3"


def test_inner_folders_are_searched_when_asked_and_masks_and_hidden_ones_never(tmp_path: Path) -> None:
    make(tmp_path, "b.png", "a.png", "z/d.png", "y/c.png", "y/x/e.png", "y/a.txt")
    make(tmp_path, ".hidden/f.png", "mask/a.png", "y/mask/c.png")
    assert names(tmp_path) == ["a.png", "b.png"]
    assert names(tmp_path, recursive=True) == ["a.png", "b.png", "y/c.png", "y/x/e.png", "z/d.png"]


def test_links_to_folders_are_followed_once_and_do_not_go_round(tmp_path: Path) -> None:
    root = make(tmp_path / "root", "a/1.png")
    make(tmp_path / "far", "2.png")
    (root / "a" / "up").symlink_to(root)
    (root / "b").symlink_to(tmp_path / "far")
    (root / "c").symlink_to(tmp_path / "far")
    (root / "nowhere").symlink_to(tmp_path / "missing")
    assert names(root, recursive=True) == ["nowhere", "a/1.png", "b/2.png"]


def test_the_mask_folder_itself_may_be_given(tmp_path: Path) -> None:
    make(tmp_path, "mask/a.png")
    assert names(tmp_path / "mask") == ["a.png"]


def test_an_inner_folder_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a.png", "in/b.png")
    iterdir = Path.iterdir

    def refuse(path: Path) -> object:
        if path.name == "in":
            raise PermissionError(13, "Permission denied")
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    listing = list_pictures(Source(tmp_path), recursive=True)
    assert [found.path.name for found in listing.files] == ["a.png"]
    assert listing.remarks == [f"The folder {tmp_path / 'in'} cannot be read: Permission denied."]
    with pytest.raises(DataError, match=r"in cannot be read: Permission denied\."):
        list_pictures(Source(tmp_path / "in"))


def repeats(root: Path, times: int = 1, **options: bool) -> dict[str, int]:
    found = list_pictures(Source(root, times), recursive=True, **options).files
    return {file.path.relative_to(root).as_posix(): file.repeats for file in found}


def test_numbers_of_folders_are_repeats_only_when_asked(tmp_path: Path) -> None:
    root = make(tmp_path / "5_root", "a.png", "10_rex/b.png", "10_rex/more/c.png", "2_dogs/3_big/d.png", "0_x/e.png")
    make(root, "12345_x/f.png", "7/g.png", "8_/h.png", "1x_a/i.png")
    assert set(repeats(root).values()) == {1}
    assert repeats(root, folder_repeats=True) == {
        "a.png": 5,
        "10_rex/b.png": 10,
        "10_rex/more/c.png": 10,
        "2_dogs/3_big/d.png": 3,
        "0_x/e.png": 1,
        "12345_x/f.png": 5,
        "7/g.png": 5,
        "8_/h.png": 5,
        "1x_a/i.png": 5,
    }
    assert repeats(root, 2, folder_repeats=True)["10_rex/b.png"] == 20
    assert repeats(root / "2_dogs", folder_repeats=True) == {"3_big/d.png": 3}


def test_the_number_of_the_current_folder_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make(tmp_path / "4_rex", "a.png"))
    assert [found.repeats for found in list_pictures(Source(Path(".")), folder_repeats=True).files] == [4]


def test_pictures_that_metadata_name_are_found_with_their_captions(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "b.png", "in/c.png", "in/d.png")
    (tmp_path / "metadata.jsonl").write_text(
        '{"file_name": "in/c.png", "text": "c"}\n{"file_name": "a.png", "text": "a"}\n'
    )
    (tmp_path / "in" / "metadata.csv").write_text("file_name,text\nc.png,nearer\n")

    def captions(recursive: bool) -> dict[str, str | None]:
        found = list_pictures(Source(tmp_path), recursive=recursive).files
        return {file.path.relative_to(tmp_path).as_posix(): file.caption for file in found}

    assert captions(False) == {"a.png": "a", "b.png": None, "in/c.png": "c"}
    assert captions(True) == {"a.png": "a", "b.png": None, "in/c.png": "nearer", "in/d.png": None}
    assert list_pictures(Source(tmp_path)).remarks == [f"The metadata file in {tmp_path} does not name b.png."]


def test_caption_files_that_belong_to_no_picture_are_named(tmp_path: Path) -> None:
    make(tmp_path, "1.png", "1.TXT", "2.png", "2.png.txt", "3.png", "3.txt", "3.caption", "y/4.png", "y/4.txt")
    make(tmp_path, "1 .txt", "2.txt.txt", "5.txt", "readme.TXT", "6.png.caption", ".hidden.txt", "notes.md")
    (tmp_path / "folder.txt").mkdir()
    unused = ["5.txt", "6.png.caption", "readme.TXT"]
    listing = list_pictures(Source(tmp_path))
    assert [path.name for path in listing.unused_captions] == unused
    make(tmp_path, "y/z.caption")
    inner = list_pictures(Source(tmp_path), recursive=True)
    assert [path.name for path in inner.unused_captions] == [*unused, "z.caption"]
    assert caption_remarks([listing, inner]) == [
        "Caption files that belong to no picture: 5.txt, 6.png.caption, readme.TXT, 5.txt, 6.png.caption and 2 more. "
        "One is called like its picture, such as 1.txt beside 1.png.",
        "Of several caption files of one picture, the first counts: 1.TXT and not 1 .txt, 2.png.txt and not 2.txt.txt, "
        "3.txt and not 3.caption, 1.TXT and not 1 .txt, 2.png.txt and not 2.txt.txt and 1 more.",
        "Called like caption files, but no files: folder.txt, folder.txt.",
    ]
    assert caption_remarks([list_pictures(Source(tmp_path / "y" / ".."), recursive=False)]) != []
    assert caption_remarks([Listing()]) == []


def test_what_only_seems_to_be_a_caption_file_is_named(tmp_path: Path) -> None:
    make(tmp_path, "1.png", "2.png", "3.png", "3.caption")
    (tmp_path / "1.txt").mkdir()
    (tmp_path / "2.CAPTION").symlink_to("nowhere")
    (tmp_path / "3.txt").mkdir()
    listing = list_pictures(Source(tmp_path))
    assert {file.path.name: file.text_file and file.text_file.name for file in listing.files} == {
        "1.png": None,
        "2.png": None,
        "3.png": "3.caption",
    }
    assert caption_remarks([listing]) == ["Called like caption files, but no files: 1.txt, 2.CAPTION, 3.txt."]


def test_what_lies_in_inner_folders_is_named_with_what_takes_it(tmp_path: Path) -> None:
    empty = f"There are no pictures in the folder {tmp_path}. Put some into it (PNG, JPEG, WebP, ...)."
    make(tmp_path, "notes/readme", ".hidden/1.png", "mask/1.png", "1.txt")
    assert (no_pictures([tmp_path]), inner_remarks([tmp_path], [])) == (empty, [])
    make(tmp_path, "deep/er/3.JPG", "photos/2.webp")
    said = no_pictures([tmp_path])
    assert said == (
        f"There are no pictures in the folder {tmp_path} itself, but in folders inside it: photos, deep/er. To take "
        f"them, give the setting recursive; or name one of them instead, such as {tmp_path}/photos."
    )
    make(tmp_path, "10_rex/1.png")
    said = no_pictures([tmp_path])
    assert "10_rex, photos, deep/er" in said and "with the setting folder_repeats to take the number" in said
    assert "folder_repeats" not in no_pictures([tmp_path], with_repeats=False)
    taken = [PictureFile(tmp_path / "photos" / "2.webp", tmp_path, 1)]
    assert inner_remarks([tmp_path], taken) == [
        "Pictures in inner folders are left out: 10_rex, deep/er. The setting recursive takes them."
    ]


def test_of_very_many_folders_only_some_are_looked_into(tmp_path: Path) -> None:
    make(tmp_path, *(f"{number:03}/1.png" for number in range(MOST_SEARCHED + 50)))
    assert len(inner_folders(tmp_path)) == MOST_SEARCHED - 1


@pytest.mark.parametrize(("name", "advice"), [("rex.zip", "Unpack it, and give the folder."), ("1.png", "({folder})")])
def test_a_file_instead_of_a_folder(tmp_path: Path, name: str, advice: str) -> None:
    make(tmp_path, name)
    with pytest.raises(DataError, match="is a file") as error:
        list_pictures(Source(tmp_path / name))
    assert advice.format(folder=tmp_path) in str(error.value)


def test_some_of_many_names() -> None:
    assert name_some(["a", "b"]) == "a, b"
    assert name_some(list("abcdefg")) == "a, b, c, d, e and 2 more"
