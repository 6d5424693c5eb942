from __future__ import annotations

import io
import os
import stat
import struct
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tincture.data.captions import caption_for
from tincture.errors import DataError, StorageError, TinctureError, UsageError
from tincture.server.errors import ConflictError, ForbiddenPathError, NotFoundError, TooMuchError
from tincture.server.library import uploads
from tincture.server.library.datasets import Datasets
from tincture.server.library.uploads import parts_of
from tincture.server.requests.places import Places
from tincture.workspace import Workspace

MIB = 2**20


def png(width: int = 8, height: int = 8, kind: str = "PNG") -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(content, kind)
    return content.getvalue()


PNG = png()


def files(**contents: bytes) -> list[tuple[str, BinaryIO]]:
    """a_png=… becomes the file a.png, in_b_png the file in/b.png."""
    return [(name.replace("in_", "in/").replace("_", "."), io.BytesIO(content)) for name, content in contents.items()]


def named(*names: str, content: bytes = PNG) -> list[tuple[str, BinaryIO]]:
    return [(name, io.BytesIO(content)) for name in names]


def zipped(contents: Mapping[str, bytes] | Iterable[tuple[zipfile.ZipInfo | str, bytes]], method: int = 8) -> BinaryIO:
    file = io.BytesIO()
    pairs = contents.items() if isinstance(contents, Mapping) else contents
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as archive:
        warnings.simplefilter("ignore")  # of names that come twice
        for name, content in pairs:
            archive.writestr(name, content)
    file.seek(0)
    return file


@pytest.fixture
def datasets(tmp_path: Path) -> Datasets:
    (tmp_path / "workspace").mkdir()
    workspace = Workspace(tmp_path / "workspace")
    return Datasets(Places(workspace, tmp_path / "state", [str(tmp_path)]), MIB, 20)


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def left_nothing(datasets: Datasets) -> bool:
    return not datasets.root.exists() or not list(datasets.root.iterdir())


# --- uploads ----------------------------------------------------------------------------------------------------------


def test_an_upload_becomes_a_data_set(datasets: Datasets) -> None:
    mask = [("mask/a.png", io.BytesIO(PNG))]
    info = datasets.upload("rex", [*files(a_png=PNG, a_txt=b"a red fox", b_jpg=png(kind="JPEG")), *mask])
    assert (info.name, info.pictures, info.captions) == ("rex", 2, 1)
    assert info.path == datasets.root / "rex"
    assert everything(info.path) == ["a.png", "a.txt", "b.jpg", "mask/a.png"]
    assert info.bytes == sum(path.stat().st_size for path in info.path.rglob("*.*"))
    assert datasets.list() == [info] == [datasets.info("rex")]
    assert [path.name for path in datasets.root.iterdir()] == ["rex"]


def test_a_zip_is_unpacked_without_its_outer_folder_and_without_junk(datasets: Datasets) -> None:
    packed = zipped(
        {
            "rex/": b"",
            "rex/a.png": PNG,
            "rex/inner\\b.png": PNG,
            "rex/metadata.jsonl": b'{"file_name": "a.png", "text": "a fox"}',
            "rex/.DS_Store": b"x",
            "rex/Thumbs.db": b"x",
            "__MACOSX/rex/._a.png": b"x",
        }
    )
    info = datasets.upload("rex", [("rex.ZIP", packed)])
    assert everything(info.path) == ["a.png", "inner/b.png", "metadata.jsonl"]
    assert (info.pictures, info.captions) == (2, 1)


def test_an_outer_folder_that_says_repeats_stays(datasets: Datasets) -> None:
    info = datasets.upload("rex", [("all.zip", zipped({"all/10_rex/a.png": PNG}))])
    assert everything(info.path) == ["10_rex/a.png"]


def test_names_in_utf_8_that_are_not_marked_so(datasets: Datasets) -> None:
    packed = zipped({"füchs.png": PNG}).read().replace(b"\x00\x08", b"\x00\x00", 1)
    broken = bytearray(packed)
    central = broken.rindex(b"PK\x01\x02")
    broken[central + 9] &= ~0x08  # the mark in the central directory
    broken[7] &= ~0x08
    assert everything(datasets.upload("rex", [("a.zip", io.BytesIO(bytes(broken)))]).path) == ["füchs.png"]


def test_files_can_be_added_and_none_is_replaced(datasets: Datasets) -> None:
    datasets.upload("rex", files(a_png=PNG))
    with pytest.raises(ConflictError, match="'rex' already"):
        datasets.upload("rex", files(b_png=PNG))
    added = datasets.upload("rex", [*files(b_png=PNG, a_txt=b"a fox"), *named("mask/a.png")], add=True)
    assert everything(added.path) == ["a.png", "a.txt", "b.png", "mask/a.png"]
    for name in ("a.png", "A.PNG", "MASK/a.png"):
        with pytest.raises(ConflictError, match="already"):
            datasets.upload("rex", [*named("c.png"), *named(name)], add=True)
    assert everything(added.path) == ["a.png", "a.txt", "b.png", "mask/a.png"]
    assert datasets.upload("new", files(a_png=PNG), add=True).pictures == 1


def test_adding_that_fails_in_the_middle_takes_back_what_it_moved(
    datasets: Datasets, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets.upload("rex", files(a_png=PNG))
    rename = Path.rename

    def failing(self: Path, target: Any) -> Path:
        if self.name == "c.png":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(StorageError, match="no space left"):
        datasets.upload("rex", named("b.png", "c.png"), add=True)
    assert everything(datasets.root) == ["rex/a.png"]


@pytest.mark.parametrize(
    "name",
    [
        "../a.png",
        "in/../../a.png",
        "/etc/a.png",
        "C:\\a.png",
        "c:a.png",
        "\\\\host\\share\\a.png",
        "..\\a.png",
        "in//a.png",
        "a\0.png",
        "a\n.png",
        "",
        " ",
        "\ud800.png",
        "ä" * 101 + ".png",
        "1/2/3/4/5/6/a.png",
        "nul.png",
        "COM1.jpg",
        "in./a.png",
        "a.png ",
        "a:b.png",
        "a.exe",
        "a.svg",
        "a.py",
        "a.eps",
        "noending",
        "metadata.json",
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_hostile_and_foreign_names_refuse_the_whole_upload(datasets: Datasets, name: str, packed: bool) -> None:
    if packed and name in ("", "\ud800.png"):
        pytest.skip("zipfile writes no such name")
    upload = named("good.png", name) if not packed else [("a.zip", zipped([("good.png", PNG), (_entry(name), PNG)]))]
    with pytest.raises(UsageError) as told:
        datasets.upload("rex", upload)
    assert len(str(told.value)) < 500
    assert left_nothing(datasets)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("x")
    entry.filename = entry.orig_filename = name
    return entry


@pytest.mark.parametrize(
    "names",
    [
        ("a.png", "a.png"),
        ("a.png", "A.png"),
        ("ä.png", "a\u0308.png"),
        ("straße.png", "STRASSE.png"),
        ("straße/a.png", "strasse/b.png"),
        ("in/a.png", "IN/b.png"),
        ("a.png/b.png", "a.png"),
        ("a.png", "a.png/b.png"),
        ("in/a.png", "in\\a.png"),
    ],
)
def test_names_that_are_one_on_some_disk(datasets: Datasets, names: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        datasets.upload("rex", named(*names))
    with pytest.raises(UsageError):
        datasets.upload("rex", [("a.zip", zipped([(_entry(name), PNG) for name in names]))])
    assert left_nothing(datasets)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_links_and_devices_in_a_zip(datasets: Datasets, kind: int) -> None:
    entry = zipfile.ZipInfo("a.png")
    entry.external_attr = (kind | 0o777) << 16
    with pytest.raises(UsageError, match="link or a device"):
        datasets.upload("rex", [("a.zip", zipped([(entry, b"/etc/passwd")]))])
    assert left_nothing(datasets)


def test_an_encrypted_zip(datasets: Datasets) -> None:
    content = bytearray(zipped({"a.png": PNG}).read())
    content[6] |= 1
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(UsageError, match="encrypted"):
        datasets.upload("rex", [("a.zip", io.BytesIO(bytes(content)))])


def test_a_zip_in_a_zip_and_unusual_methods(datasets: Datasets) -> None:
    with pytest.raises(UsageError, match="none of what"):
        datasets.upload("rex", [("a.zip", zipped({"b.zip": zipped({"a.png": PNG}).read()}))])
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with pytest.raises(UsageError, match="unusual method"):
            datasets.upload("rex", [("a.zip", zipped({"a.png": PNG}, method))])


def test_a_zip_bomb_is_counted_while_it_is_unpacked(datasets: Datasets) -> None:
    packed = zipped({"metadata.csv": bytes(50 * MIB)})
    assert len(packed.read()) < 100_000
    packed.seek(0)
    with pytest.raises(TooMuchError, match="1 MiB unpacked"):
        datasets.upload("rex", [("a.zip", packed)])
    assert left_nothing(datasets)


def test_a_zip_bomb_that_lies_about_its_size(datasets: Datasets) -> None:
    content = bytearray(zipped({"metadata.csv": bytes(50 * MIB)}).read())
    central = content.rindex(b"PK\x01\x02")
    struct.pack_into("<I", content, central + 24, 10)
    struct.pack_into("<I", content, 22, 10)
    with pytest.raises((TooMuchError, DataError)):
        datasets.upload("rex", [("a.zip", io.BytesIO(bytes(content)))])
    assert left_nothing(datasets)


def test_bytes_count_over_all_files_and_so_do_files(datasets: Datasets) -> None:
    half = b"x" * 30_000
    datasets.max_bytes = 50_000
    with pytest.raises(TooMuchError, match=r"'b\.caption' goes beyond"):
        datasets.upload("rex", files(a_txt=half, b_caption=half))
    with pytest.raises(TooMuchError, match="more than 20 files"):
        datasets.upload("rex", named(*(f"{n}.txt" for n in range(21)), content=b"x"))
    with pytest.raises(TooMuchError, match="more than 20 files"):
        datasets.upload("rex", [("a.zip", zipped({f"{n}.txt": b"x" for n in range(21)}))])
    assert left_nothing(datasets)


def test_a_zip_with_a_vast_list_of_contents_is_not_even_listed(datasets: Datasets) -> None:
    with pytest.raises(TooMuchError, match="lists more files"):
        datasets.upload("rex", [("a.zip", zipped({f"{n:0150}.txt": b"" for n in range(6000)}))])


def test_captions_as_long_as_books_are_none(datasets: Datasets) -> None:
    datasets.max_bytes = 100 * MIB
    with pytest.raises(TooMuchError, match=r"'a\.txt' has more than 40,000 bytes"):
        datasets.upload("rex", files(a_txt=b"x" * 40_001))
    with pytest.raises(TooMuchError, match=r"'metadata\.csv' has more than 16,777,216 bytes"):
        datasets.upload("rex", files(metadata_csv=b"x" * (16 * MIB + 1)))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"not a picture", "not a picture of a format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n", "not a picture of a format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture of a format"),
        (PNG[:20], "a.png"),
        (PNG[:16] + struct.pack(">II", 40_000, 40_000) + PNG[24:], "a.png"),
    ],
)
def test_pictures_that_are_none(datasets: Datasets, content: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        datasets.upload("rex", [*named("good.png"), *named("a.png", content=content)])
    assert left_nothing(datasets)


def test_a_decompression_bomb_is_told_by_its_pixels(datasets: Datasets) -> None:
    content = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(content, "PNG")
    with pytest.raises(DataError, match="too many pixels"):
        datasets.upload("rex", named("a.png", content=content.getvalue()))


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"not a zip", zipped({"a.png": PNG}).read()[:-30], zipped({"a.png": PNG}).read()[40:]]
)
def test_zip_files_that_are_damaged(datasets: Datasets, content: bytes) -> None:
    with pytest.raises(DataError, match="pack it again"):
        datasets.upload("rex", [("a.zip", io.BytesIO(content))])
    assert left_nothing(datasets)


def test_an_upload_without_a_picture(datasets: Datasets) -> None:
    for upload in ([], files(a_txt=b"x"), named("mask/a.png"), named(".hidden.png")):
        with pytest.raises(DataError, match="no picture"):
            datasets.upload("rex", upload)
    assert left_nothing(datasets)


def test_an_upload_that_breaks_off_leaves_nothing(datasets: Datasets) -> None:
    def breaking() -> Iterable[tuple[str, BinaryIO]]:
        yield from named("a.png")
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        datasets.upload("rex", breaking())
    assert left_nothing(datasets)


def test_a_full_disk_is_told_and_leaves_nothing(datasets: Datasets, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(uploads.Intake, "_write", full)
    with pytest.raises(StorageError, match="no space left"):
        datasets.upload("rex", named("a.png"))
    assert left_nothing(datasets)


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".hidden", "nul", "con.x", "rex.", "a" * 101, "a\0", "a:b"])
def test_names_of_data_sets(datasets: Datasets, name: str) -> None:
    for act in (lambda: datasets.upload(name, named("a.png")), lambda: datasets.delete(name)):
        with pytest.raises(UsageError):
            act()
    assert left_nothing(datasets)


def test_what_a_killed_upload_left_is_swept_after_a_day(datasets: Datasets) -> None:
    datasets.upload("rex", named("a.png"))
    for name, age in ((".upload-old", 2), (".deleted-old", 2), (".upload-new", 0)):
        (datasets.root / name).mkdir()
        then = (datasets.root / name).stat().st_mtime - age * 24 * 3600
        os.utime(datasets.root / name, (then, then))
    Datasets(datasets.places, MIB, 20)
    assert sorted(path.name for path in datasets.root.iterdir()) == [".upload-new", "rex"]
    assert [info.name for info in datasets.list()] == ["rex"]


ENTRY = st.tuples(
    st.lists(
        st.sampled_from(["..", ".", "", "a", "A", "mask", "c:", "nul", "a.png", "/", "\\", "x.txt"]), max_size=5
    ).map("/".join)
    | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
    st.sampled_from([PNG, b"", b"text", PNG[:30]]),
    st.sampled_from([0, 0o100644 << 16, (stat.S_IFLNK | 0o777) << 16]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(
    entries=st.lists(ENTRY, max_size=5),
    cut=st.integers(0, 80),
    changes=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), max_size=3),
)
def test_whatever_is_in_a_zip_nothing_comes_to_lie_outside(
    datasets: Datasets, tmp_path: Path, entries: list[Any], cut: int, changes: list[tuple[int, int]]
) -> None:
    made = []
    for name, text, attributes in entries:
        entry = _entry(name)
        entry.external_attr = attributes
        made.append((entry, text))
    content = bytearray(zipped(made, zipfile.ZIP_STORED).read())
    for place, value in changes:
        if place < len(content):
            content[place] = value
    before = {path for path in tmp_path.rglob("*") if datasets.root not in path.parents and path != datasets.root}
    try:
        datasets.upload("rex", [("a.zip", io.BytesIO(bytes(content[: len(content) - cut] if cut > 40 else content)))])
    except TinctureError:
        assert left_nothing(datasets)
    else:
        assert all(not path.is_symlink() for path in (datasets.root / "rex").rglob("*"))
        assert [path.name for path in datasets.root.iterdir()] == ["rex"]
        datasets.delete("rex")
    after = {path for path in tmp_path.rglob("*") if datasets.root not in path.parents and path != datasets.root}
    assert after == before


@given(st.text(max_size=30) | st.lists(st.sampled_from(["..", "a", ".", "", "c:"]), max_size=4).map("/".join))
def test_parts_of_a_name_never_lead_anywhere(name: str) -> None:
    try:
        parts = parts_of(name)
    except UsageError:
        return
    assert parts and all(part and part not in (".", "..") and not set(part) & set("/\\:\0") for part in parts)


# --- looking at pictures ----------------------------------------------------------------------------------------------


@pytest.fixture
def rex(datasets: Datasets) -> Path:
    content = [*files(a_png=png(16, 8), a_txt=b" a red\nfox \n", b_png=PNG), *named("mask/a.png", "inner/0-c d.jpg")]
    line = [("metadata.jsonl", io.BytesIO(b'{"file_name": "b.png", "text": "from metadata"}'))]
    return datasets.upload("rex", [*content, *line]).path


def test_pictures_with_captions_as_training_reads_them(datasets: Datasets, rex: Path) -> None:
    first, second, third = datasets.pictures("rex")
    assert (first.file, first.path, first.caption, first.captioned) == ("a.png", rex / "a.png", "a red fox", True)
    assert (first.width, first.height, first.mask) == (16, 8, True)
    assert (second.file, second.caption, second.captioned, second.mask) == ("b.png", "from metadata", True, False)
    assert (third.file, third.caption, third.captioned, third.fault) == ("inner/0-c d.jpg", "c d", False, "")
    assert datasets.pictures("rex", offset=1, limit=1) == [second]
    assert datasets.pictures(str(rex / "inner"))[0].file == "0-c d.jpg"
    with pytest.raises(NotFoundError):
        datasets.pictures("max")
    with pytest.raises(ForbiddenPathError):
        datasets.pictures("/etc")


def test_what_cannot_be_read_is_told_and_stops_nothing(datasets: Datasets, rex: Path) -> None:
    (rex / "a.txt").write_bytes(b"\xff\xff\xff")
    (rex / "b.png").write_bytes(b"bad")
    (rex / "inner" / "0-c d.jpg").unlink()
    (rex / "inner" / "0-c d.jpg").symlink_to("/etc/passwd")
    first, second, third = datasets.pictures("rex")
    assert "cannot be read" in first.fault and first.width == 16
    assert "not a picture" in second.fault and second.width == 0
    assert "leads out" in third.fault and third.caption == ""
    with pytest.raises(DataError, match=r"b\.png is not a picture"):
        datasets.thumbnail("rex", "b.png")
    with pytest.raises(ForbiddenPathError):
        datasets.thumbnail("rex", "inner/0-c d.jpg")


def test_captions_are_written_where_training_reads_them(datasets: Datasets, rex: Path) -> None:
    datasets.set_caption("rex", "a.png", "  a blue\r\n fox, ä ")
    assert (rex / "a.txt").read_text(encoding="utf-8") == "a blue fox, ä" == caption_for(rex / "a.png")
    datasets.set_caption("rex", "inner/0-c d.jpg", "")
    assert caption_for(rex / "inner" / "0-c d.jpg") == ""
    datasets.set_caption(str(rex), "b.png", "instead of metadata")
    assert datasets.pictures("rex")[1].caption == "instead of metadata"


@pytest.mark.parametrize(
    "file", ["../a.png", "/etc/passwd", "", "a.txt", "mask", "nope.png", "inner/../a.png", ".", None]
)
def test_files_that_are_no_pictures_of_the_folder(datasets: Datasets, rex: Path, file: Any) -> None:
    before = everything(rex)
    for act in (datasets.thumbnail, datasets.remove_picture, lambda one, two: datasets.set_caption(one, two, "x")):
        with pytest.raises(UsageError):
            act("rex", file)
    assert everything(rex) == before


@pytest.mark.parametrize("text", ["a" * 10_001, "a\0b", "\ud800", None, 3])
def test_captions_that_no_file_holds(datasets: Datasets, rex: Path, text: Any) -> None:
    with pytest.raises(UsageError, match="caption"):
        datasets.set_caption("rex", "a.png", text)
    assert caption_for(rex / "a.png") == "a red fox"


def test_a_caption_is_not_written_through_a_link_that_leads_out(datasets: Datasets, rex: Path, tmp_path: Path) -> None:
    (rex / "a.txt").unlink()
    (rex / "a.txt").symlink_to("/etc/tincture-test")
    with pytest.raises(ForbiddenPathError):
        datasets.set_caption("rex", "a.png", "x")
    state = tmp_path / "state"
    state.mkdir()
    (state / "a.png").write_bytes(PNG)
    with pytest.raises(ForbiddenPathError):
        datasets.set_caption(str(state), "a.png", "x")


def test_thumbnails_are_small_jpegs(datasets: Datasets, rex: Path) -> None:
    with Image.open(io.BytesIO(datasets.thumbnail("rex", "a.png", 16))) as image:
        assert (image.format, image.size) == ("JPEG", (16, 8))
    (rex / "big.jpg").write_bytes(png(2000, 1000, "JPEG"))
    with Image.open(io.BytesIO(datasets.thumbnail("rex", "big.jpg", 100))) as image:
        assert image.size == (100, 50)
    for side in (0, -1, 10**6):
        with pytest.raises(UsageError):
            datasets.thumbnail("rex", "a.png", side)


def test_a_thumbnail_runs_no_other_program(datasets: Datasets, rex: Path) -> None:
    (rex / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n")
    with pytest.raises(DataError, match="format that is taken"):
        datasets.thumbnail("rex", "a.png")


def test_a_removed_picture_takes_its_caption_and_mask_along(datasets: Datasets, rex: Path) -> None:
    (rex / "a.jpg").write_bytes(PNG)
    datasets.remove_picture("rex", "a.png")
    assert "a.txt" in everything(rex) and "mask/a.png" in everything(rex)  # a.jpg has them too
    datasets.remove_picture("rex", "a.jpg")
    assert everything(rex) == ["b.png", "inner/0-c d.jpg", "metadata.jsonl"]


def test_a_removed_picture_takes_captions_along_that_are_called_otherwise(datasets: Datasets, rex: Path) -> None:
    (rex / "a.jpg").write_bytes(PNG)
    for name in ("a.png.txt", "a.jpg.TXT", "b.TXT"):
        (rex / name).write_text("x")
    datasets.remove_picture("rex", "a.png")
    assert "a.png.txt" not in everything(rex) and {"a.txt", "a.jpg.TXT"} <= set(everything(rex))
    datasets.remove_picture("rex", "b.png")
    assert "b.TXT" not in everything(rex) and "a.txt" in everything(rex)


def test_only_pictures_of_data_sets_are_deleted(datasets: Datasets, rex: Path, tmp_path: Path) -> None:
    (tmp_path / "originals").mkdir()
    (tmp_path / "originals" / "a.png").write_bytes(PNG)
    with pytest.raises(ForbiddenPathError, match="none of the data sets"):
        datasets.remove_picture(str(tmp_path / "originals"), "a.png")
    datasets.set_caption(str(tmp_path / "originals"), "a.png", "but captioned they may be")
    datasets.delete("rex")
    assert left_nothing(datasets)
    with pytest.raises(NotFoundError):
        datasets.delete("rex")


def test_a_data_set_that_is_a_link_is_not_deleted(datasets: Datasets, tmp_path: Path) -> None:
    (tmp_path / "originals").mkdir()
    (tmp_path / "originals" / "a.png").write_bytes(PNG)
    datasets.root.mkdir()
    (datasets.root / "linked").symlink_to(tmp_path / "originals")
    assert datasets.info("linked").pictures == 1
    with pytest.raises(ConflictError, match="is a link"):
        datasets.delete("linked")
    (datasets.root / "out").symlink_to("/etc")
    assert [info.name for info in datasets.list()] == ["linked"]
