"""Several folders, sizes, mirroring and repeats; and folders in which everything goes wrong at once."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tincture.data.dataset import PictureDataset
from tincture.data.fitting import Buckets
from tincture.data.folders import load_dataset
from tincture.errors import DataError, UsageError


def save(path: Path, size: tuple[int, int] = (40, 24), colour: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def names(dataset: PictureDataset) -> list[str]:
    return [sample.path.name for sample in dataset]


# --- folders ---------------------------------------------------------------------------------------------------------


def test_folders_follow_each_other_with_their_repeats(tmp_path: Path) -> None:
    save(tmp_path / "rex" / "b.png")
    save(tmp_path / "dogs" / "a.png")
    save(tmp_path / "dogs" / "3_big" / "c.png")
    dataset = load_dataset([f"{tmp_path}/rex:3", tmp_path / "dogs"], width=8, height=8)
    assert (names(dataset), dataset.repeats()) == (["b.png", "a.png"], [3, 1])
    dataset = load_dataset(
        [f"{tmp_path}/rex:3", f"{tmp_path}/dogs:2"], width=8, height=8, recursive=True, folder_repeats=True
    )
    assert (names(dataset), dataset.repeats()) == (["b.png", "a.png", "c.png"], [3, 2, 6])


def test_one_folder_that_gives_nothing_is_no_error_but_a_missing_one_is(tmp_path: Path) -> None:
    save(tmp_path / "a" / "a.png")
    (tmp_path / "b").mkdir()
    assert names(load_dataset([tmp_path / "a", tmp_path / "b"], width=8, height=8)) == ["a.png"]
    with pytest.raises(DataError, match=r"folder .*/c does not exist"):
        load_dataset([tmp_path / "a", tmp_path / "c"], width=8, height=8)
    with pytest.raises(DataError, match=r"no pictures in the folder .*/b, .*/b"):
        load_dataset([tmp_path / "b", tmp_path / "b"], width=8, height=8)


def test_captions_from_metadata(tmp_path: Path) -> None:
    for name in ["a.png", "b.png", "in/c.png"]:
        save(tmp_path / name)
    (tmp_path / "b.txt").write_text("from its own file")
    (tmp_path / "metadata.jsonl").write_text(
        "".join(f'{{"file_name": "{name}.png", "text": "{name} listed"}}\n' for name in ("a", "b", "in/c", "gone"))
    )
    dataset = load_dataset(tmp_path, width=8, height=8)
    assert [sample.caption for sample in dataset] == ["a listed", "from its own file", "in/c listed"]
    (remark,) = dataset.remarks
    assert "line 4 names 'gone.png', which does not exist" in remark


def test_who_gave_a_picture_its_caption_is_known(tmp_path: Path) -> None:
    for name, colour in [("1.png", "red"), ("2.png", "blue"), ("3.png", "green"), ("4 fox.png", "white")]:
        save(tmp_path / name, colour=colour)
    save(tmp_path / "again" / "5.png", colour="blue")
    (tmp_path / "1.txt").write_text("")
    (tmp_path / "metadata.csv").write_text("file_name,text\n3.png,a star\n")
    described = {hashlib.sha256((tmp_path / "2.png").read_bytes()).hexdigest(): "a blue one"}

    def captions(**options: Any) -> dict[str, tuple[str, bool]]:
        dataset = load_dataset(tmp_path, width=8, height=8, recursive=True, **options)
        return {sample.path.name: (sample.caption, sample.is_captioned) for sample in dataset}

    given = {"1.png": ("", True), "3.png": ("a star", True)}
    assert captions() == {**given, "2.png": ("", False), "4 fox.png": ("fox", False), "5.png": ("", False)}
    blue = {"2.png": ("a blue one", True), "5.png": ("a blue one", True)}
    assert captions(described=described) == {**given, **blue, "4 fox.png": ("fox", False)}
    # who names words to find takes names for captions
    assert captions(described=described, word_regex="[a-z]+") == {**given, **blue, "4 fox.png": ("fox", True)}


def test_the_encoding_of_captions_may_be_given(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes("café".encode("cp1252"))
    assert load_dataset(tmp_path, width=8, height=8, caption_encoding="cp1252")[0].caption == "café"


# --- sizes -----------------------------------------------------------------------------------------------------------


def test_cropping_keeps_proportions(tmp_path: Path) -> None:
    columns = np.broadcast_to(np.repeat([0, 255, 0], 32).astype(np.uint8)[None, :, None], (32, 96, 3))
    Image.fromarray(np.ascontiguousarray(columns)).save(tmp_path / "a.png")
    dataset = load_dataset(tmp_path, width=16, height=16, resize="crop")
    sample = dataset[0]
    assert (sample.original_size, sample.scaled_size, sample.crop) == ((96, 32), (48, 16), (16, 0))
    assert (sample.width, sample.height) == (16, 16)
    assert dataset.pixels(0)[:, :, 2:14].min() > 0.99


def test_buckets_group_pictures_by_their_proportions(tmp_path: Path) -> None:
    for name, size in {"a": (100, 60), "b": (60, 100), "c": (250, 150), "d": (64, 64), "e": (96, 60)}.items():
        save(tmp_path / f"{name}.png", size)
    buckets = Buckets.of_area(64 * 64, 8, 32, 128)
    dataset = load_dataset(tmp_path, width=64, height=64, buckets=buckets)
    assert dataset.sizes() == [(80, 48), (48, 80), (80, 48), (64, 64), (80, 48)]
    assert [sample.fit.cropped for sample in dataset] == pytest.approx([0.0, 0.0, 0.0, 0.0, 0.04])
    assert dataset.pixels(1).shape == (3, 80, 48)
    assert dataset.remarks == []


def test_small_pictures_are_enlarged_and_told_or_skipped(tmp_path: Path) -> None:
    save(tmp_path / "low.png", (100, 15))
    save(tmp_path / "good.png", (17, 16))
    save(tmp_path / "thin.png", (15, 100))
    for resize in ("stretch", "crop"):
        dataset = load_dataset(tmp_path, width=16, height=16, resize=resize)
        assert len(dataset) == 3
        assert dataset.remarks == ["Smaller than they are trained in, and so enlarged: low.png, thin.png."]
        dataset = load_dataset(tmp_path, width=16, height=16, resize=resize, skip_small=True)
        assert (names(dataset), dataset.remarks) == (["good.png"], [])
        assert [(path.name, reason) for path, reason in dataset.skipped] == [
            ("low.png", "is 100×15, too small for 16×16"),
            ("thin.png", "is 15×100, too small for 16×16"),
        ]


# --- mirrored pictures -----------------------------------------------------------------------------------------------


def test_a_mirrored_picture_is_a_sample_of_its_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 256, (20, 44, 4), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "a.txt").write_text("a fox")
    dataset = load_dataset([f"{tmp_path}:2"], width=24, height=16, flip=True, resize="crop")
    assert [(sample.path.stem, sample.flip, sample.caption, sample.repeats) for sample in dataset] == [
        ("a", False, "a fox", 2),
        ("a", True, "a fox", 2),
        ("b", False, "b", 2),
        ("b", True, "b", 2),
    ]
    for index in (0, 2):
        assert torch.equal(dataset.pixels(index).flip(2), dataset.pixels(index + 1))
        alpha, mirrored = dataset.mask(index), dataset.mask(index + 1)
        assert alpha is not None
        assert mirrored is not None
        assert torch.equal(alpha.flip(1), mirrored)


# --- what a run depends on -------------------------------------------------------------------------------------------


def digest(folder: Path, **options: object) -> str:
    return load_dataset(folder, width=16, height=16, **options).digest()  # type: ignore[arg-type]


def test_the_digest_covers_masks_mirroring_and_repeats(tmp_path: Path) -> None:
    root = tmp_path / "2_rex"
    save(root / "a.png", (16, 16))
    plain = digest(root)
    save(root / "mask" / "a.png", (16, 16))
    assert digest(root) == plain  # a mask that is not used changes nothing
    with_mask = digest(root, masks="")
    save(root / "mask" / "a.png", (16, 16), "white")
    others = [digest(root, masks=""), digest(root, flip=True), digest(root, folder_repeats=True)]
    assert len({plain, with_mask, *others}) == 5


def test_the_digest_does_not_depend_on_geometry(tmp_path: Path) -> None:
    save(tmp_path / "a.png", (40, 24))
    assert digest(tmp_path) == digest(tmp_path, resize="crop") == digest(tmp_path, varsize=True)


def test_the_digest_of_plain_pictures_is_that_of_earlier_versions(tmp_path: Path) -> None:
    """Runs that were begun with an earlier version can be resumed."""
    (tmp_path / "a.ppm").write_bytes(b"P6 1 1 255 abc")
    (tmp_path / "a.txt").write_text("a fox")
    assert digest(tmp_path) == "7e358d53efc45a728f256f6fd34ef83680ef6a503d83f9318c3a2304f375d7dc"


# --- all that can go wrong -------------------------------------------------------------------------------------------


def bomb() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10**6)))


def spoil(folder: Path) -> dict[str, str]:
    """One file for each kind of fault -> what must be said of it."""
    whole = save(folder / "whole.png", (64, 64)).read_bytes()
    (folder / "whole.png").unlink()
    (folder / "bomb.png").write_bytes(bomb())
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "link.png").symlink_to(folder / "nowhere.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "text.png").write_text("no picture")
    for name, caption in {"latin": "café".encode("latin-1"), "wide": "a fox".encode("utf-16-le"), "raw": whole}.items():
        save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_bytes(caption)
    for name in ("masked", "tall"):
        save(folder / f"{name}.png")
    (folder / "mask").mkdir()
    (folder / "mask" / "masked.png").write_bytes(whole[:20])
    save(folder / "mask" / "tall.png", (24, 40))
    return {
        "bomb.png": "has too many pixels; make it smaller",
        "cut.png": "is damaged",
        "empty.png": "is empty (0 bytes)",
        "latin.png": "latin.txt cannot be read",
        "link.png": "No such file or directory",
        "loop.png": "Too many levels of symbolic links",
        "masked.png": "has a mask, mask/masked.png, that is",
        "raw.png": "raw.txt cannot be read",
        "tall.png": "is 40×24, but its mask mask/tall.png is 24×40",
        "text.png": "is not a picture of a known format",
        "wide.png": "wide.txt cannot be read",
    }


def test_every_fault_is_named_and_survived(tmp_path: Path) -> None:
    expected = spoil(tmp_path)
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    save(tmp_path / "wrong-suffix.png").rename(tmp_path / "good.gif")
    red, blue = Image.new("RGB", (40, 24), "red"), Image.new("RGB", (40, 24), "blue")
    red.save(tmp_path / "animated.gif", save_all=True, append_images=[blue])
    (tmp_path / "metadata.jsonl").write_text(
        '{"file_name": "../x.png", "text": "x"}\n{"file_name": "y.png", "text": "y"}'
    )
    dataset = load_dataset(tmp_path, width=16, height=16, masks="")
    assert names(dataset) == ["animated.gif", "good.gif"]
    assert torch.equal(dataset.pixels(0), dataset.pixels(1))
    assert [path.name for path, _ in dataset.skipped] == sorted(expected)
    for path, reason in dataset.skipped:
        assert expected[path.name] in reason
    (remark,) = dataset.remarks
    assert "'../x.png', which may lie outside" in remark
    assert "'y.png', which does not exist" in remark


def test_when_nothing_is_left_one_sentence_says_why(tmp_path: Path) -> None:
    expected = spoil(tmp_path)
    with pytest.raises(DataError) as raised:
        load_dataset(tmp_path, width=16, height=16, masks="")
    for name, reason in expected.items():
        assert name in str(raised.value)
        assert reason in str(raised.value)


def test_of_many_useless_files_the_first_are_named(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"{number:02}.png").touch()
    with pytest.raises(DataError, match=r"00\.png.*19\.png: is empty \(0 bytes\); and 30 more\.$"):
        load_dataset(tmp_path, width=16, height=16)


def test_a_picture_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    opened = Image.open

    def refuse(path: Path, **options: Any) -> Image.Image:
        if path.name == "a.png":
            raise PermissionError(13, "Permission denied")
        return opened(path, **options)

    monkeypatch.setattr(Image, "open", refuse)
    dataset = load_dataset(tmp_path, width=16, height=16)
    assert [(path.name, reason) for path, reason in dataset.skipped] == [("a.png", "Permission denied")]


def test_wrong_arguments_are_told_before_pictures_are_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="width is 20"):
        load_dataset(tmp_path / "missing", width=20, height=16)
    with pytest.raises(DataError, match="mask folder"):
        load_dataset(tmp_path / "missing", width=16, height=16, masks=tmp_path / "none")
