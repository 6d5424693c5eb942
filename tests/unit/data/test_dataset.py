from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tincture.data.dataset import PictureDataset
from tincture.data.folders import load_dataset
from tincture.errors import DataError, UsageError


def save(path: Path, size: tuple[int, int] = (40, 24), colour: str = "red") -> Path:
    Image.new("RGB", size, colour).save(path)
    return path


def load(folder: Path, width: int = 32, height: int = 16, varsize: bool = False) -> PictureDataset:
    return load_dataset(folder, width=width, height=height, varsize=varsize)


def test_samples_in_the_order_of_their_names_with_captions(tmp_path: Path) -> None:
    save(tmp_path / "2-dog.png")
    save(tmp_path / "1-fox.jpg")
    (tmp_path / "2-dog.txt").write_text("a dog, grass")
    dataset = load(tmp_path)
    assert [(s.path.name, s.caption, s.width, s.height) for s in dataset] == [
        ("1-fox.jpg", "fox", 32, 16),
        ("2-dog.png", "a dog, grass", 32, 16),
    ]
    assert dataset.skipped == []
    assert (len(dataset), dataset[1], dataset[:1]) == (2, dataset.samples[1], dataset.samples[:1])


def test_the_word_regex_and_join_string_reach_the_captions(tmp_path: Path) -> None:
    save(tmp_path / "a red_fox.png")
    dataset = load_dataset(tmp_path, width=8, height=8, word_regex="[a-z]+", join_string="+")
    assert dataset[0].caption == "a+red+fox"


def test_pixels_are_rgb_from_minus_one_to_one(tmp_path: Path) -> None:
    save(tmp_path / "a.png", colour="#ff8000")
    pixels = load(tmp_path).pixels(0)
    assert (pixels.shape, pixels.dtype) == ((3, 16, 32), torch.float32)
    assert pixels[:, 5, 7].tolist() == pytest.approx([1.0, 128 / 255 * 2 - 1, -1.0], abs=1e-6)


def test_pictures_are_resized_bicubically_whatever_their_proportions(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 30, 3), dtype=np.uint8))
    noise.save(tmp_path / "a.png")
    expected = np.asarray(noise.resize((32, 16), Image.Resampling.BICUBIC)).astype(np.float32) / 127.5 - 1
    assert np.allclose(load(tmp_path).pixels(0).permute(1, 2, 0).numpy(), expected, atol=1e-6)


def test_varsize_keeps_the_size_and_crops_evenly_to_the_stride(tmp_path: Path) -> None:
    columns = np.broadcast_to(np.arange(45, dtype=np.uint8)[None, :, None], (19, 45, 3))
    Image.fromarray(np.ascontiguousarray(columns)).save(tmp_path / "a.png")
    save(tmp_path / "b.png", (64, 8))
    dataset = load(tmp_path, varsize=True)
    assert dataset.sizes() == [(dataset[0].width, dataset[0].height), (64, 8)] == [(40, 16), (64, 8)]
    assert torch.round((dataset.pixels(0)[0, 0] + 1) * 127.5).tolist() == list(range(2, 42))


def test_alpha_follows_the_picture(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    picture = Image.new("RGBA", (45, 19), (0, 0, 255, 128))
    picture.paste((0, 0, 0, 0), (0, 0, 22, 19))
    picture.save(tmp_path / "b.png")
    resized, cropped = load(tmp_path), load(tmp_path, varsize=True)
    assert resized.mask(0) is None
    alpha = resized.mask(1)
    assert alpha is not None
    assert (alpha.shape, alpha.dtype) == ((16, 32), torch.float32)
    assert alpha[3].tolist() == pytest.approx([0.0] * 16 + [128 / 255] * 16, abs=0.2)
    alpha = cropped.mask(1)
    assert alpha is not None
    assert alpha[3].tolist() == pytest.approx([0.0] * 20 + [128 / 255] * 20)


def test_the_hidden_colour_of_transparent_pixels_does_not_bleed(tmp_path: Path) -> None:
    """Red that shows, green that is hidden: nowhere in the resized picture may there be more green than white has."""
    picture = Image.new("RGBA", (64, 32), (255, 0, 0, 255))
    picture.paste((0, 255, 0, 0), (30, 0, 64, 32))
    picture.save(tmp_path / "a.png")
    pixels = load(tmp_path).pixels(0)
    assert pixels[0].min() > 0.99
    assert torch.allclose(pixels[1], pixels[2], atol=0.01)


def test_other_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    save(tmp_path / ".hidden.png")
    (tmp_path / "more").mkdir()
    save(tmp_path / "more" / "b.png")
    (tmp_path / "folder.png").mkdir()
    for name in ["notes.txt", "meta.JSON", "tags.csv", "x.safetensors", ".DS_Store"]:
        (tmp_path / name).write_text("P1 1 1 1")  # what Pillow would take for a picture
    os.mkfifo(tmp_path / "pipe.png")
    dataset = load(tmp_path)
    assert [sample.path.name for sample in dataset] == ["a.png"]
    assert dataset.skipped == []


def test_pictures_without_or_with_a_wrong_ending_are_found(tmp_path: Path) -> None:
    save(tmp_path / "a.png").rename(tmp_path / "fox")
    save(tmp_path / "b.png").rename(tmp_path / "wolf.jpg")
    assert [sample.caption for sample in load(tmp_path)] == ["fox", "wolf"]


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "links").mkdir()
    save(tmp_path / "real" / "a.png")
    (tmp_path / "links" / "fox.png").symlink_to(tmp_path / "real" / "a.png")
    assert [sample.caption for sample in load(tmp_path / "links")] == ["fox"]


def spoil(folder: Path) -> dict[str, str]:
    """Files that cannot be used -> what must be said of them."""
    whole = save(folder / "whole.png", (64, 64)).read_bytes()
    (folder / "whole.png").unlink()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.webp").write_text("no picture")
    (folder / "nowhere.png").symlink_to(folder / "missing.png")
    save(folder / "latin.png")
    (folder / "latin.txt").write_bytes("café".encode("latin-1"))
    return {
        "cut.png": "damaged",
        "empty.jpg": "is empty (0 bytes)",
        "text.webp": "not a picture",
        "nowhere.png": "No such file",
        "latin.png": "latin.txt",
    }


def test_unusable_files_are_named_and_skipped(tmp_path: Path) -> None:
    expected = spoil(tmp_path)
    save(tmp_path / "good.png")
    dataset = load(tmp_path)
    assert [sample.path.name for sample in dataset] == ["good.png"]
    assert [path.name for path, _ in dataset.skipped] == sorted(expected)
    for path, reason in dataset.skipped:
        assert expected[path.name] in reason


def test_a_picture_smaller_than_the_stride_is_skipped_in_varsize_only(tmp_path: Path) -> None:
    save(tmp_path / "a.png", (7, 30))
    save(tmp_path / "b.png")
    assert len(load(tmp_path)) == 2
    assert [(path.name, reason) for path, reason in load(tmp_path, varsize=True).skipped] == [
        ("a.png", "is 7×30, smaller than 8 pixels")
    ]


def test_when_no_picture_is_left_all_are_named(tmp_path: Path) -> None:
    expected = spoil(tmp_path)
    with pytest.raises(DataError) as raised:
        load(tmp_path)
    for name, reason in expected.items():
        assert name in str(raised.value)
        assert reason in str(raised.value)


def test_folders_that_give_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("a")
    save(tmp_path / "fox.png")
    with pytest.raises(DataError, match=r"missing does not exist"):
        load(tmp_path / "missing")
    with pytest.raises(DataError, match=r"fox\.png is a file\. Give the folder"):
        load(tmp_path / "fox.png")
    for name in ["empty", "notes"]:
        with pytest.raises(DataError, match=rf"no pictures in the folder .*{name}"):
            load(tmp_path / name)


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match=r"cannot be read: Permission denied"):
        load(tmp_path)


@pytest.mark.parametrize(("width", "height"), [(0, 16), (-8, 16), (20, 16), (16, 4)])
def test_sizes_off_the_stride_are_refused(tmp_path: Path, width: int, height: int) -> None:
    save(tmp_path / "a.png")
    with pytest.raises(UsageError, match=r"multiple of 8, such as (8 or 16|16 or 24)"):
        load(tmp_path, width, height)


def test_pixels_are_read_when_asked_for(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png")
    dataset = load(tmp_path)
    save(path, colour="blue")
    assert dataset.pixels(0)[:, 0, 0].tolist() == [-1, -1, 1]
    path.unlink()
    reads: list[Callable[[int], object]] = [dataset.pixels, dataset.mask, lambda _: dataset.digest()]
    for read in reads:
        with pytest.raises(DataError, match=r"a\.png cannot be read any more: No such file"):
            read(0)


def test_the_digest_tells_pictures_and_captions_apart_and_nothing_else(tmp_path: Path) -> None:
    save(tmp_path / "1-a.png", colour="red")
    save(tmp_path / "2-b.png", colour="blue")
    digest = load(tmp_path).digest()
    assert len(bytes.fromhex(digest)) == 32
    (tmp_path / "1-a.png").rename(tmp_path / "0-a.png")
    (tmp_path / "0-a.txt").write_text("a")
    assert load(tmp_path, 64, 64).digest() == digest
    (tmp_path / "0-a.txt").write_text("A")
    changed_caption = load(tmp_path).digest()
    (tmp_path / "0-a.txt").write_text("a")
    save(tmp_path / "2-b.png", colour="green")
    changed_picture = load(tmp_path).digest()
    save(tmp_path / "3-c.png")
    assert len({digest, changed_caption, changed_picture, load(tmp_path).digest()}) == 4


def test_the_digest_is_that_of_the_beginning_even_when_files_go(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png")
    dataset = load(tmp_path)
    digest = dataset.digest()
    path.unlink()
    assert dataset.digest() == digest
