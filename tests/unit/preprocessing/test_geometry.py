from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tincture.preprocessing.geometry import (
    MulticropRules,
    aspect_error,
    box_around,
    centre_box,
    cover_size,
    is_oversized,
    multicrop,
    split_crops,
    split_ratio,
    split_tiles,
)

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "preprocess_geometry.json").read_text())
sizes = st.tuples(st.integers(1, 5000), st.integers(1, 5000))
targets = st.tuples(st.integers(8, 1024), st.integers(8, 1024))


@pytest.mark.parametrize("case", GOLDEN, ids=[f"{case['width']}x{case['height']}" for case in GOLDEN])
def test_tiles_and_sizes_are_those_of_the_webui(case: dict[str, Any]) -> None:
    original, size = (case["width"], case["height"]), tuple(case["to"])
    assert split_ratio(original, size) == case["split_ratio"]
    assert is_oversized(original, size, 0.5) == ("split" in case)
    if "split" in case:
        scaled, tiles = split_tiles(original, size, 0.2)
        assert [[*scaled, *box] for box in tiles] == case["split"]
    found = multicrop(original, MulticropRules())
    assert (found and {"size": list(found.size), "box": list(found.box)}) == case["multicrop"]


@given(sizes, targets)
def test_the_box_of_the_centre_is_the_largest_of_its_proportions(
    original: tuple[int, int], size: tuple[int, int]
) -> None:
    left, top, right, bottom = centre_box(original, size)
    assert left >= 0 and top >= 0
    assert (left, top) == pytest.approx((original[0] - right, original[1] - bottom))
    assert (right - left) * size[1] == pytest.approx((bottom - top) * size[0])
    assert left == pytest.approx(0, abs=1e-6) or top == pytest.approx(0, abs=1e-6)


@given(sizes, targets, st.floats(-100, 6000), st.floats(-100, 6000))
def test_a_moved_box_stays_inside_and_as_near_as_it_can(
    original: tuple[int, int], size: tuple[int, int], x: float, y: float
) -> None:
    middle, moved = centre_box(original, size), box_around((x, y), original, size)
    assert moved[0] >= 0 and moved[1] >= 0
    assert moved[2] <= original[0] + 1e-6 and moved[3] <= original[1] + 1e-6
    assert (moved[2] - moved[0], moved[3] - moved[1]) == pytest.approx((middle[2] - middle[0], middle[3] - middle[1]))
    for along, wanted in ((0, x), (1, y)):
        centre = (moved[along] + moved[along + 2]) / 2
        reaches = pytest.approx(0), pytest.approx(original[along])
        assert centre == pytest.approx(wanted) or (
            moved[along] == reaches[0] if wanted < centre else moved[along + 2] == reaches[1]
        )


@given(sizes, targets)
def test_covering_touches_both_sides_or_exceeds_them(original: tuple[int, int], size: tuple[int, int]) -> None:
    covering = cover_size(original, size)
    assert covering[0] >= size[0] and covering[1] >= size[1]
    assert covering[0] == size[0] or covering[1] == size[1]


@given(sizes, targets, st.floats(0.05, 1.0), st.floats(0, 0.9))
@example((1, 1), (8, 9), 1.0, 0.890625)
def test_tiles_cover_the_picture_and_overlap(
    original: tuple[int, int], size: tuple[int, int], threshold: float, overlap: float
) -> None:
    if not is_oversized(original, size, threshold) or split_ratio(original, size) < 0.02:
        return
    crops = split_crops(original, size, overlap)
    along = 0 if original[0] >= original[1] else 1
    assert len(crops) >= 2
    assert crops[0].box[:2] == (0, 0) and crops[-1].box[2:] == original
    for one, other in pairwise(crops):
        tile = one.box[along + 2] - one.box[along]
        # whole pixels of the scaled picture
        assert one.box[along + 2] - other.box[along] >= tile * (overlap - 2 / size[along]) - 1e-6
        assert other.box[along] > one.box[along]


@pytest.mark.parametrize("tall", [False, True])
def test_tiles_between_pixels_begin_at_the_pixel_before(tall: bool) -> None:
    """250 pixels in three steps: 83, 166 and 250, not 83, 167 and 250, and not three times 83."""
    original = (100, 350) if tall else (350, 100)
    scaled, tiles = split_tiles(original, (100, 100), 0.0)
    assert scaled == original
    assert [tile[tall] for tile in tiles] == [0, 83, 166, 250]
    assert [tile[2 + tall] for tile in tiles] == [100, 183, 266, 350]
    crops = split_crops((200, 700) if tall else (700, 200), (100, 100), 0.0)
    assert [crop.box[tall] for crop in crops] == [0, 166, 332, 500]


def test_a_picture_that_fits_is_not_split() -> None:
    assert not is_oversized((512, 512), (256, 256), 1.0)
    assert not is_oversized((900, 1000), (256, 512), 1.0)  # even less high than the crop
    assert is_oversized((900, 1000), (256, 256), 1.0)


@given(sizes, st.sampled_from(["area", "error"]), st.floats(0, 0.5))
def test_multicrop_finds_the_best_of_all_sizes(original: tuple[int, int], objective: Any, threshold: float) -> None:
    rules = MulticropRules(128, 512, 20000, 200000, objective, threshold)
    allowed = [size for size in rules.sizes() if aspect_error(original, size) <= threshold]
    assert all(128 <= side <= 512 and side % 64 == 0 for size in rules.sizes() for side in size)
    found = multicrop(original, rules)
    if found is None:
        assert not allowed
    elif objective == "area":
        assert found.size[0] * found.size[1] == max(width * height for width, height in allowed)
    else:
        assert aspect_error(original, found.size) == min(aspect_error(original, size) for size in allowed)


def test_sizes_of_multicrop_step_from_the_smallest() -> None:
    assert {width for width, _ in MulticropRules(400, 600, 1, 10**9).sizes()} == {400, 464, 528, 592}
