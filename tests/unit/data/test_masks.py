from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from tincture.data.fitting import Fit, cover, stretch
from tincture.data.folders import load_dataset
from tincture.data.masks import checked_mask, mask_weights, read_mask
from tincture.data.picture_files import UnreadablePictureError

GOLDEN = Path(__file__).parents[2] / "golden" / "data"
ALPHA = json.loads((GOLDEN / "alpha_weights.json").read_text())


def half(size: tuple[int, int] = (40, 24), mode: str = "L") -> Image.Image:
    """White on the left, black on the right."""
    mask = Image.new(mode, size)
    mask.paste("white" if mode == "RGB" else 255, (0, 0, size[0] // 2, size[1]))
    return mask


# --- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["m.png", "m.bmp", "m.webp", "m.gif", "m.tiff", "m"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_masks_of_any_format_are_grey(tmp_path: Path, name: str, mode: str) -> None:
    half(mode=mode).save(tmp_path / name, format=None if "." in name else "PNG")
    mask = read_mask(tmp_path / name)
    assert (mask.mode, mask.size) == ("L", (40, 24))
    assert abs(np.asarray(mask)[:, :19].astype(int) - 255).max() < 8
    assert np.asarray(mask)[:, 21:].max() < 8


def test_a_mask_of_one_bit(tmp_path: Path) -> None:
    half().convert("1").save(tmp_path / "m.png")
    assert np.array_equal(np.asarray(read_mask(tmp_path / "m.png")), np.asarray(half()))


def test_what_is_transparent_in_a_mask_is_not_learned(tmp_path: Path) -> None:
    mask = Image.new("RGBA", (4, 1), "white")
    for x, alpha in enumerate((255, 100, 0)):
        mask.putpixel((x, 0), (255, 255, 255, alpha))
    mask.putpixel((3, 0), (0, 0, 0, 255))
    mask.save(tmp_path / "m.png")
    assert np.asarray(read_mask(tmp_path / "m.png"))[0].tolist() == [255, 100, 0, 0]


# --- checking --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "fits"),
    [((40, 24), True), ((20, 12), True), ((80, 48), True), ((13, 8), True), ((40, 40), False), ((24, 40), False)],
)
def test_a_mask_may_have_another_size_but_not_other_proportions(
    tmp_path: Path, size: tuple[int, int], fits: bool
) -> None:
    half(size).save(tmp_path / "m.png")
    if fits:
        checked_mask(tmp_path / "m.png", (40, 24), stretch((16, 16)))
    else:
        with pytest.raises(UnreadablePictureError, match=rf"is 40×24, but its mask .*/m\.png is {size[0]}×{size[1]}"):
            checked_mask(tmp_path / "m.png", (40, 24), stretch((16, 16)))


def test_a_mask_that_hides_all_that_is_trained_is_refused(tmp_path: Path) -> None:
    mask = Image.new("L", (60, 20))
    mask.paste(255, (0, 0, 10, 20))
    mask.save(tmp_path / "m.png")
    checked_mask(tmp_path / "m.png", (60, 20), stretch((20, 20)))
    with pytest.raises(UnreadablePictureError, match="that is black"):
        checked_mask(tmp_path / "m.png", (60, 20), cover((60, 20), (20, 20)))


def test_a_mask_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(UnreadablePictureError, match=r"has a mask, .*/m\.png, that is"):
        checked_mask(tmp_path / "m.png", (4, 4), stretch((4, 4)))


# --- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ALPHA, ids=lambda case: case["file"])
def test_weights_of_alpha_are_the_webuis(tmp_path: Path, case: dict[str, object]) -> None:
    (tmp_path / "a.png").write_bytes((GOLDEN / str(case["file"])).read_bytes())
    weights = mask_weights(load_dataset(tmp_path, width=64, height=64).mask(0), 8, 8)
    assert (weights.shape, weights.dtype) == ((1, 8, 8), torch.float32)
    assert np.abs(weights[0].numpy() - np.array(case["weight"])).max() < 0.02


@pytest.mark.parametrize("value", [0.0, 100 / 255, 0.5, 1.0])
@pytest.mark.parametrize("size", [(64, 64), (40, 72), (3, 5)])
@pytest.mark.parametrize("unmasked_weight", [0.0, 0.5])
def test_a_flat_mask_weighs_one(value: float, size: tuple[int, int], unmasked_weight: float) -> None:
    assert torch.equal(mask_weights(torch.full(size, value), 8, 6, unmasked_weight), torch.ones(1, 8, 6))


def test_no_mask_weighs_one() -> None:
    assert torch.equal(mask_weights(None, 2, 3), torch.ones(1, 2, 3))


@settings(max_examples=100, deadline=None)
@given(
    mask=arrays.arrays(np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=40)),
    unmasked_weight=st.floats(0, 0.99),
)
def test_weights_of_any_mask_are_finite_average_to_one_and_keep_the_floor(
    mask: np.ndarray, unmasked_weight: float
) -> None:
    weights = mask_weights(torch.from_numpy(mask).float() / 255, 6, 8, unmasked_weight)
    assert weights.shape == (1, 6, 8)
    assert torch.isfinite(weights).all()
    assert weights.mean().item() == pytest.approx(1, abs=1e-5)
    if weights.min() < weights.max():
        assert (weights.min() / weights.max()).item() == pytest.approx(unmasked_weight, abs=1e-5)


def test_the_floor_lies_between_the_mask_and_no_mask() -> None:
    mask = torch.zeros(64, 64)
    mask[:, 32:] = 1.0
    whole, floor = mask_weights(mask, 8, 8), mask_weights(mask, 8, 8, 0.25)
    assert (whole[0, 0, 0].item(), whole[0, 0, 7].item()) == pytest.approx((0.0, 2.0))
    assert (floor[0, 0, 0].item(), floor[0, 0, 7].item()) == pytest.approx((0.4, 1.6))


def test_a_single_step_of_the_mask_counts() -> None:
    mask = torch.full((64, 64), 254 / 255)
    mask[:, 32:] = 1.0
    weights = mask_weights(mask, 8, 8)
    assert weights[0, :, 6:].mean() > 1.9
    assert weights[0, :, :2].mean() < 0.1


# --- in a data set ---------------------------------------------------------------------------------------------------


def test_a_mask_has_the_very_geometry_of_its_picture(tmp_path: Path) -> None:
    """The picture is its own mask: both must stay the same, however they are resized, cut and mirrored."""
    rng = np.random.default_rng(0)
    grey = Image.fromarray(rng.integers(0, 256, (9, 15), dtype=np.uint8)).resize((60, 36), Image.Resampling.BILINEAR)
    grey.convert("RGB").save(tmp_path / "a.png")
    (tmp_path / "mask").mkdir()
    grey.save(tmp_path / "mask" / "a.png")
    for way in ({"resize": "stretch"}, {"resize": "crop"}, {"varsize": True}):
        dataset = load_dataset(tmp_path, width=24, height=40, masks="", flip=True, **way)
        assert [sample.flip for sample in dataset] == [False, True]
        for index in range(2):
            mask = dataset.mask(index)
            assert mask is not None
            assert mask.dtype == torch.float32
            assert torch.allclose(mask * 2 - 1, dataset.pixels(index)[0], atol=1e-6)
        assert torch.equal(dataset.pixels(1), dataset.pixels(0).flip(2))


def test_a_mask_of_half_the_size_covers_the_same_places(tmp_path: Path) -> None:
    Image.new("RGB", (80, 48)).save(tmp_path / "a.png")
    (tmp_path / "mask").mkdir()
    half((40, 24)).save(tmp_path / "mask" / "a.png")
    for resize in ("stretch", "crop"):
        dataset = load_dataset(tmp_path, width=16, height=16, masks="", resize=resize)
        mask = dataset.mask(0)
        assert mask is not None
        assert mask.shape == (16, 16)
        assert (mask[:, :6].min().item(), mask[:, 10:].max().item()) == (1.0, 0.0)


def test_a_mask_picture_goes_before_alpha(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    picture.paste((255, 0, 0, 255), (0, 0, 16, 8))
    picture.save(tmp_path / "a.png")
    picture.save(tmp_path / "b.png")
    Image.new("RGB", (16, 16)).save(tmp_path / "c.png")
    (tmp_path / "mask").mkdir()
    half((16, 16)).save(tmp_path / "mask" / "a.png")
    without = load_dataset(tmp_path, width=16, height=16)
    dataset = load_dataset(tmp_path, width=16, height=16, masks="")
    left, top = half((16, 16)), picture.getchannel("A")
    assert np.array_equal(_numpy(dataset, 0), np.asarray(left) / 255)
    assert np.array_equal(_numpy(dataset, 1), np.asarray(top) / 255)
    assert np.array_equal(_numpy(without, 0), np.asarray(top) / 255)
    assert dataset.mask(2) is None
    assert dataset.remarks == ["Without a mask picture, unlike others: b.png, c.png."]


def _numpy(dataset: object, index: int) -> np.ndarray:
    mask = dataset.mask(index)  # type: ignore[attr-defined]
    assert mask is not None
    return np.asarray(mask)


def test_pictures_whose_masks_cannot_be_used_are_skipped_by_name(tmp_path: Path) -> None:
    (tmp_path / "mask").mkdir()
    for name in ["good", "broken", "wide", "black", "nowhere", "folder"]:
        Image.new("RGB", (16, 16)).save(tmp_path / f"{name}.png")
        half((16, 16)).save(tmp_path / "mask" / f"{name}.png")
    half((16, 16)).save(tmp_path / "mask" / "nobodys.png")
    (tmp_path / "mask" / "broken.png").write_bytes(b"no picture")
    half((32, 16)).save(tmp_path / "mask" / "wide.png")
    Image.new("L", (16, 16)).save(tmp_path / "mask" / "black.png")
    for name in ["nowhere", "folder"]:
        (tmp_path / "mask" / f"{name}.png").unlink()
    (tmp_path / "mask" / "nowhere.png").symlink_to(tmp_path / "missing")
    (tmp_path / "mask" / "folder.png").mkdir()
    dataset = load_dataset(tmp_path, width=16, height=16, masks="")
    assert [sample.path.name for sample in dataset] == ["folder.png", "good.png"]
    assert {path.name: reason.split("mask/")[1] for path, reason in dataset.skipped} == {
        "black.png": "black.png, that is black: nothing of the picture would be learned",
        "broken.png": "broken.png, that is not a picture of a known format",
        "nowhere.png": "nowhere.png, that No such file or directory",
        "wide.png": "wide.png is 32×16, of other proportions",
    }
    assert dataset.remarks == [
        "Without a mask picture, unlike others: folder.png.",
        "Masks that belong to no picture: nobodys.png.",
    ]


def test_the_fit_of_a_whole_picture_is_a_plain_resize() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 53), dtype=np.uint8))
    plain = noise.resize((24, 16), Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(Fit((24, 16), (24, 16)).apply(noise)), np.asarray(plain))
