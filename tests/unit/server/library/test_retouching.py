"""Pictures are cropped so that it can be taken back, and masked where training looks for masks."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tincture.data.mask_files import MaskFinder
from tincture.data.masks import read_mask
from tincture.errors import TinctureError, UsageError
from tincture.server.errors import NotFoundError
from tincture.server.library.overview import find_duplicates, find_sizes
from tincture.server.library.pictures import PictureFolders
from tincture.server.library.retouching import crop, mask_of, remove_mask, set_mask, uncrop
from tincture.server.requests.places import Places
from tincture.workspace import Workspace


@pytest.fixture
def store(tmp_path: Path) -> PictureFolders:
    return PictureFolders(Places(Workspace(tmp_path), tmp_path / "state"))


@pytest.fixture
def folder(store: PictureFolders) -> Path:
    made = store.root / "rex"
    made.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    Image.fromarray(noise).save(made / "a.png")
    Image.fromarray(noise).resize((120, 80), Image.Resampling.NEAREST).save(made / "large.png")
    Image.fromarray(noise[:, ::-1]).save(made / "turned.webp", lossless=True)
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (64, 32, 3), np.uint8)).save(made / "b.jpg")
    return made


def png(mask: np.ndarray) -> str:
    content = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8)).save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


def pixels_of(file: Path | io.BytesIO) -> np.ndarray:
    with Image.open(file) as picture:
        return np.array(picture)


def half(width: int = 60, height: int = 40) -> np.ndarray:
    """Black on the left, white on the right."""
    return np.where(np.arange(width) < width // 2, 0, 255) * np.ones((height, 1))


def test_a_crop_keeps_the_original_which_comes_back_byte_for_byte(store: PictureFolders, folder: Path) -> None:
    original, pixels = (folder / "a.png").read_bytes(), pixels_of(folder / "a.png")
    crop(store, "rex", "a.png", (10, 5, 20, 30))
    crop(store, "rex", "a.png", (0, 0, 10, 30))  # of the crop; the original stays the first one
    assert np.array_equal(pixels_of(folder / "a.png"), pixels[5:35, 10:20])
    info = store.info_of("rex", "a.png")
    assert (info.width, info.height, info.cropped) == (10, 30, True)
    assert [each.file for each in store.pictures("rex")] == ["a.png", "b.jpg", "large.png", "turned.webp"]
    uncrop(store, "rex", "a.png")
    assert (folder / "a.png").read_bytes() == original and not store.info_of("rex", "a.png").cropped
    with pytest.raises(NotFoundError, match="was not cropped"):
        uncrop(store, "rex", "a.png")


def test_a_mask_is_cropped_with_its_picture_and_comes_back_with_it(store: PictureFolders, folder: Path) -> None:
    set_mask(store, "rex", "a.png", png(half()))
    before = (folder / "mask" / "a.png").read_bytes()
    crop(store, "rex", "a.png", (20, 0, 20, 40))
    cropped = np.array(read_mask(folder / "mask" / "a.png"))
    assert cropped.shape == (40, 20) and not cropped[:, :9].any() and (cropped[:, 11:] == 255).all()
    uncrop(store, "rex", "a.png")
    assert (folder / "mask" / "a.png").read_bytes() == before
    with pytest.raises(UsageError, match="all black in its mask"):
        crop(store, "rex", "a.png", (0, 0, 20, 40))
    assert store.info_of("rex", "a.png").width == 60


def test_a_mask_lies_where_training_looks_for_it(store: PictureFolders, folder: Path) -> None:
    (folder / "mask").mkdir()
    Image.new("L", (32, 64), 255).save(folder / "mask" / "b.bmp")  # of another ending
    set_mask(store, "rex", "b.jpg", png(half(16, 32)))  # may be smaller than the picture
    found = MaskFinder().find(folder / "b.jpg", folder)
    assert found == folder / "mask" / "b.png" and not (folder / "mask" / "b.bmp").exists()
    sent = mask_of(store, "rex", "b.jpg")
    assert sent and np.array_equal(pixels_of(io.BytesIO(sent)), half(16, 32))
    assert store.info_of("rex", "b.jpg").mask
    set_mask(store, "rex", "b.jpg", png(np.full((32, 16), 255)))  # white all over is none
    assert mask_of(store, "rex", "b.jpg") is None
    remove_mask(store, "rex", "b.jpg")


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.zeros((40, 60)), "black all over"),
        (np.full((40, 40), 9), "of other proportions"),
        (None, "no PNG in base64"),
    ],
)
def test_a_mask_that_cannot_serve_is_refused(
    store: PictureFolders, folder: Path, mask: np.ndarray | None, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        set_mask(store, "rex", "a.png", "?" if mask is None else png(mask))
    assert not (folder / "mask").exists()


@pytest.mark.parametrize(
    ("box", "words"),
    [((50, 0, 20, 20), "stay inside"), ((-1, 0, 20, 20), "stay inside"), ((0, 0, 4, 20), "at least 8×8")],
)
def test_a_crop_that_is_none_is_refused(
    store: PictureFolders, folder: Path, box: tuple[int, int, int, int], words: str
) -> None:
    before = (folder / "a.png").read_bytes()
    with pytest.raises(UsageError, match=words):
        crop(store, "rex", "a.png", box)
    assert (folder / "a.png").read_bytes() == before and not (folder / ".originals").exists()


def test_what_cannot_be_written_again_and_a_shared_mask_are_refused(store: PictureFolders, folder: Path) -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "film.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(UsageError, match="save it as PNG"):
        crop(store, "rex", "film.gif", (0, 0, 20, 20))
    Image.new("RGB", (60, 40)).save(folder / "a.bmp")
    set_mask(store, "rex", "a.png", png(half()))
    with pytest.raises(UsageError, match="have one mask"):
        crop(store, "rex", "a.png", (20, 0, 20, 40))


def test_nothing_outside_of_the_folder_is_touched(store: PictureFolders, folder: Path) -> None:
    outside = folder.parent / "other.png"
    Image.new("RGB", (60, 40)).save(outside)
    before = outside.read_bytes()
    for act in (lambda: crop(store, "rex", "../other.png", (0, 0, 20, 20)), lambda: uncrop(store, "rex", "/etc/x.png")):
        with pytest.raises(TinctureError):
            act()
    assert outside.read_bytes() == before


def test_pictures_that_show_the_same_are_found(store: PictureFolders, folder: Path) -> None:
    assert find_duplicates(store, "rex") == [["a.png", "large.png", "turned.webp"]]


def test_sizes_are_those_of_a_training(store: PictureFolders, folder: Path) -> None:
    stretched = find_sizes(store, "rex", 64, 64, resize="stretch")
    assert [(one.size, len(one.files), one.cropped) for one in stretched] == [((64, 64), 4, 0.0)]
    bucketed = find_sizes(store, "rex", 64, 64, buckets=True)
    by_file = {file: one.size for one in bucketed for file in one.files}
    assert by_file["a.png"][0] > by_file["a.png"][1] and by_file["b.jpg"][0] < by_file["b.jpg"][1]
    own = find_sizes(store, "rex", 64, 64, varsize=True)
    assert {one.size: one.files for one in own}[(32, 64)] == ("b.jpg",)
    assert next(one for one in find_sizes(store, "rex", 64, 64) if one.files).cropped > 0.2
