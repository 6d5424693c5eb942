from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from tincture.data.fitting import Buckets, Fit, cover, fitting, own, stretch
from tincture.errors import UsageError

sides = st.integers(1, 5000)
originals = st.tuples(sides, sides)
targets = st.tuples(st.integers(1, 64).map(lambda n: n * 8), st.integers(1, 64).map(lambda n: n * 8))


@settings(deadline=None)
@given(original=originals, size=targets)
def test_a_cover_fills_its_size_keeps_proportions_and_cuts_one_direction_evenly(
    original: tuple[int, int], size: tuple[int, int]
) -> None:
    fit = cover(original, size)
    over = fit.scaled[0] - size[0], fit.scaled[1] - size[1]
    assert min(over) == 0
    assert max(over) >= 0
    assert [abs(2 * at - much) <= 1 for at, much in zip(fit.crop, over, strict=True)] == [True, True]
    # Off by less than half a pixel in the side that is computed.
    one, other = fit.scaled[0] * original[1], fit.scaled[1] * original[0]
    assert abs(one - other) <= max(original) / 2 + 1e-6 or min(fit.scaled) == 1
    assert 0 <= fit.cropped < 1


@settings(max_examples=60, deadline=None)
@given(original=st.tuples(st.integers(1, 200), st.integers(1, 200)), size=targets)
def test_resizing_a_part_is_resizing_and_cutting(original: tuple[int, int], size: tuple[int, int]) -> None:
    fit = cover(original, size)
    assume(fit.scaled[0] * fit.scaled[1] < 2_000_000)
    # Not from black to white: what overshoots is cut off between the passes, whose order follows from the sizes.
    image = Image.fromarray(np.random.default_rng(0).integers(80, 176, original[::-1], dtype=np.uint8))
    whole = np.asarray(image.resize(fit.scaled, Image.Resampling.BICUBIC)).astype(int)
    left, top = fit.crop
    part = np.asarray(fit.apply(image)).astype(int)
    assert np.abs(part - whole[top : top + size[1], left : left + size[0]]).max() <= 2


def test_a_long_and_thin_picture_is_not_blown_up_on_the_way() -> None:
    fit = cover((20_000, 2), (512, 512))
    assert fit.scaled == (5_120_000, 512)  # 2.6 billion pixels, were they made
    assert fit.apply(Image.new("RGB", (20_000, 2))).size == (512, 512)


@given(original=originals)
def test_the_own_size_is_cut_to_the_stride(original: tuple[int, int]) -> None:
    fit = own(original, 8)
    assert fit.scaled == original
    assert [side % 8 for side in fit.size] == [0, 0]
    assert all(0 <= side - cut < 8 for side, cut in zip(original, fit.size, strict=True))
    assert not fit.enlarges(original)


def test_cropping_by_whole_pixels_changes_none() -> None:
    image = Image.fromarray(np.arange(19 * 45, dtype=np.uint32).astype(np.uint8).reshape(19, 45))
    cut = own((45, 19), 8).apply(image)
    assert np.array_equal(np.asarray(cut), np.asarray(image)[1:17, 2:42])


def test_what_is_cut_off_and_enlarged() -> None:
    assert (cover((100, 50), (50, 50)).cropped, stretch((50, 50)).cropped) == (0.5, 0.0)
    assert not stretch((50, 50)).enlarges((50, 50))
    assert stretch((50, 50)).enlarges((100, 49))
    assert cover((100, 49), (50, 50)).enlarges((100, 49))
    assert not cover((100, 50), (50, 50)).enlarges((100, 50))


# --- buckets ---------------------------------------------------------------------------------------------------------


@st.composite
def grids(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """Area, step, shortest and longest side with at least one bucket."""
    step = 8 * draw(st.integers(1, 8))
    side = step * draw(st.integers(1, 16))
    return side * side + draw(st.integers(0, 999)), step, draw(st.integers(1, side)), side + draw(st.integers(0, 2000))


@settings(max_examples=60, deadline=None)
@given(grid=grids())
def test_buckets_keep_area_step_and_sides(grid: tuple[int, int, int, int]) -> None:
    area, step, shortest, longest = grid
    buckets = Buckets.of_area(*grid)
    assert buckets.sizes == tuple(sorted(set(buckets.sizes)))
    for width, height in buckets.sizes:
        assert width * height <= area
        assert (width % step, height % step) == (0, 0)
        assert shortest <= min(width, height)
        assert max(width, height) <= longest
        assert (height, width) in buckets.sizes
        # No room is left: a step more in both directions is more than the area or the longest side.
        assert (width + step) * (height + step) > area or max(width, height) + step > longest


@settings(max_examples=100, deadline=None)
@given(grid=grids(), original=originals)
def test_no_bucket_crops_a_picture_less_than_its_own(
    grid: tuple[int, int, int, int], original: tuple[int, int]
) -> None:
    buckets = Buckets.of_area(*grid)
    chosen = buckets.fit(original)
    assert chosen.size in buckets.sizes
    assert chosen == cover(original, chosen.size)

    def lost(size: tuple[int, int]) -> float:
        one, other = original[0] * size[1], original[1] * size[0]
        return 1 - min(one, other) / max(one, other)

    assert lost(chosen.size) == min(lost(size) for size in buckets.sizes)


def test_turned_pictures_get_turned_buckets() -> None:
    buckets = Buckets.of_area(512 * 512, 64, 256, 1024)
    for width, height in [(800, 600), (1000, 400), (3000, 500), (512, 512)]:
        wide, high = buckets.fit((width, height)).size
        assert buckets.fit((height, width)).size == (high, wide)


@pytest.mark.parametrize(
    ("original", "size"),
    [((512, 512), (512, 512)), ((4000, 3000), (576, 448)), ((600, 900), (384, 640)), ((100, 1000), (256, 1024))],
)
def test_buckets_of_usual_pictures(original: tuple[int, int], size: tuple[int, int]) -> None:
    assert Buckets.of_area(512 * 512, 64, 256, 1024).fit(original).size == size


def test_of_buckets_that_crop_alike_the_largest_is_taken() -> None:
    assert Buckets(((64, 64), (128, 128), (96, 96))).fit((500, 500)).size == (128, 128)


@pytest.mark.parametrize("grid", [(63 * 63, 64, 8, 640), (4096, 8, 72, 64), (4096, 8, 72, 640), (4096, 64, 65, 127)])
def test_a_grid_without_a_size_is_refused(grid: tuple[int, int, int, int]) -> None:
    with pytest.raises(UsageError, match=rf"No bucket has at most {grid[0]} pixels .* multiples of {grid[1]}"):
        Buckets.of_area(*grid)


# --- the choice ------------------------------------------------------------------------------------------------------


def test_what_decides_the_fit() -> None:
    buckets = Buckets(((32, 64), (64, 32)))
    assert fitting(48, 48)((90, 45)) == Fit((48, 48), (48, 48))
    assert fitting(48, 48, resize="crop")((90, 45)) == Fit((48, 48), (96, 48), (24, 0))
    assert fitting(48, 48, varsize=True)((90, 45)) == Fit((88, 40), (90, 45), (1, 2))
    assert fitting(48, 48, buckets=buckets)((90, 45)) == Fit((64, 32), (64, 32))


@pytest.mark.parametrize(("width", "height"), [(0, 16), (-8, 16), (20, 16), (16, 4)])
def test_sizes_off_the_stride_are_refused(width: int, height: int) -> None:
    with pytest.raises(UsageError, match=r"multiple of 8, such as (8 or 16|16 or 24)"):
        fitting(width, height)


def test_buckets_off_the_stride_are_refused() -> None:
    with pytest.raises(UsageError, match=r"bucket_step .* multiple of 16"):
        fitting(32, 32, buckets=Buckets(((24, 40), (32, 32))), stride=16)
