from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.unit.preprocessing.pictures import portrait, texture
from tincture.preprocessing import focal
from tincture.preprocessing.faces import Face, load_detector
from tincture.preprocessing.focal import (
    FocalWeights,
    Interest,
    busiest_window,
    draw_interest,
    find_corners,
    find_interest,
    small_copy,
)
from tincture.preprocessing.geometry import box_around

SQUARE = (64, 64)


def no_faces(pixels: focal.Grey) -> list[Face]:
    return []


def entropy(grey: focal.Grey) -> float:
    counts = np.bincount(grey.ravel(), minlength=256)
    shares = counts[counts > 0] / grey.size
    return float(-(shares * np.log2(shares)).sum())


@pytest.mark.parametrize("size", [(150, 64), (64, 151)])
def test_the_busiest_window_is_that_of_a_plain_search(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 256, (size[1], size[0]), dtype=np.uint8)
    grey = (noise // np.linspace(1, 60, noise.size).reshape(noise.shape)).astype(np.uint8)[::-1, ::-1].copy()
    across = size[0] > size[1]
    starts = range(0, max(size) - 64 + 1, 4)
    windows = [grey[:, start : start + 64] if across else grey[start : start + 64] for start in starts]
    best = starts[int(np.argmax([entropy(window) for window in windows]))]
    assert busiest_window(grey, SQUARE) == ((best, 0, best + 64, 64) if across else (0, best, 64, best + 64))


def test_a_picture_of_fitting_proportions_has_no_window() -> None:
    assert busiest_window(np.zeros((64, 64), np.uint8), SQUARE) is None
    assert busiest_window(np.zeros((64, 66), np.uint8), SQUARE) is None  # no room for a step


def test_corners_are_found_but_not_where_watermarks_are() -> None:
    grey = np.full((100, 100), 40, np.uint8)
    grey[20:40, 30:60] = 220
    grey[94:98, 50:90] = 255
    corners = find_corners(grey)
    expected = {(30, 20), (59, 20), (30, 39), (59, 39)}
    for x, y in expected:
        assert any(abs(x - cx) <= 2 and abs(y - cy) <= 2 for cx, cy in corners), (x, y, corners)
    assert all(y < 92 for _, y in corners)


def test_corners_keep_their_distance_and_number() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (300, 400), dtype=np.uint8)
    corners = np.array(find_corners(grey))
    assert 10 < len(corners) <= 100
    apart = np.linalg.norm(corners[:, None] - corners[None], axis=2) + np.eye(len(corners)) * 1000
    assert apart.min() >= 0.06 * 300


def test_without_opencv_there_are_no_corners(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(focal, "opencv", lambda: None)
    assert find_corners(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)) == ()


def test_the_point_is_the_weighted_mean_of_what_was_found() -> None:
    picture = Image.new("RGB", (300, 100), "grey")
    faces = [Face(20, 30, 20, 40), Face(60, 30, 20, 40)]  # centroid (50, 50)
    only_faces = find_interest(picture, SQUARE, FocalWeights(1, 0, 0), lambda pixels: faces)
    assert only_faces.point == (50, 50)
    assert (only_faces.window, only_faces.corners) == (None, ())
    # the plain picture's first window is the busiest; no corner is found, and does not count
    both = find_interest(picture, SQUARE, FocalWeights(3, 1, 5), lambda pixels: faces)
    assert both.window == (0, 0, 100, 100)
    assert both.point == ((3 * 50 + 50) / 4, 50)


def test_nothing_found_means_the_middle() -> None:
    found = find_interest(Image.new("RGB", (300, 100), "grey"), SQUARE, FocalWeights(1, 0, 1), no_faces)
    assert found.point == (150, 50)
    assert found.crop_box((3000, 1000), SQUARE) == (1000, 0, 2000, 1000)


@pytest.mark.parametrize("tall", [False, True])
def test_the_crop_follows_the_point_to_either_end(tall: bool) -> None:
    size, original = ((100, 300), (1000, 3000)) if tall else ((300, 100), (3000, 1000))
    for along, start in ((20, 0), (60, 100), (150, 1000), (200, 1500), (240, 1900), (290, 2000)):
        point = (50.0, float(along)) if tall else (float(along), 50.0)
        box = Interest(size, (), None, (), point).crop_box(original, SQUARE)
        assert box == ((0, start, 1000, start + 1000) if tall else (start, 0, start + 1000, 1000))


def test_a_weight_of_0_is_not_even_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("looked for")

    monkeypatch.setattr(focal, "find_corners", never)
    monkeypatch.setattr(focal, "busiest_window", never)
    find_interest(texture(100, 60), SQUARE, FocalWeights(1, 0, 0), no_faces)
    with pytest.raises(AssertionError):
        find_interest(texture(100, 60), SQUARE, FocalWeights(0, 1, 0), no_faces)


@pytest.mark.parametrize("left", [0, 350, 700])
def test_a_face_is_in_the_crop(left: int) -> None:
    picture = portrait(900, 400, left, 60, 200)
    copy = small_copy(picture, (256, 256))
    found = find_interest(copy, (256, 256), FocalWeights(), load_detector("haar"))
    box = found.crop_box(picture.size, (256, 256))
    assert len(found.faces) == 1
    assert box[0] <= left + 40 and box[2] >= left + 160
    assert box == pytest.approx(box_around((found.point[0] * 900 / copy.width, 0), picture.size, (256, 256)))


@pytest.mark.parametrize(
    ("size", "crop"), [((900, 400), (512, 512)), ((400, 3000), (2048, 1024)), ((30, 20), (64, 64))]
)
def test_the_copy_covers_the_crop_but_is_small(size: tuple[int, int], crop: tuple[int, int]) -> None:
    copy = small_copy(texture(*size), crop)
    assert min(copy.size) <= 1024
    assert copy.width / copy.height == pytest.approx(size[0] / size[1], rel=0.05)
    assert min(copy.width / crop[0], copy.height / crop[1]) == pytest.approx(min(1, 512 / min(crop)), rel=0.01)


def test_the_debug_picture_shows_all_kinds() -> None:
    copy = Image.new("RGB", (300, 100), "grey")
    found = Interest(copy.size, (Face(20, 20, 30, 30),), (100.0, 0.0, 200.0, 100.0), ((250.0, 50.0),), (60.0, 50.0))
    drawn = draw_interest(copy, found, SQUARE)
    colours = {colour for _, colour in drawn.getcolors() or []}
    assert colours == {(128, 128, 128), (255, 48, 48), (48, 208, 48), (48, 128, 255), (255, 208, 0)}
    assert ImageDraw.Draw(copy) and copy.getcolors() == [(30000, (128, 128, 128))]  # the copy itself stays as it is
