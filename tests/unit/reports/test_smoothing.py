"""Means over many steps, and fewer points than there are."""

import math

import numpy as np
import pytest

from tincture.reports import smoothing


def test_smoothing_takes_from_no_step_to_a_fourth_of_them() -> None:
    assert smoothing.window(0, 10_000) == 1
    assert smoothing.window(100, 10_000) == 2501
    assert smoothing.window(50, 10_000) == 625
    assert smoothing.window(300, 100) == smoothing.window(100, 100)
    assert all(smoothing.window(strength, 777) % 2 == 1 for strength in range(101))


def test_the_mean_is_over_the_values_around_and_fewer_at_the_ends() -> None:
    values = np.array([1.0, 2.0, 6.0, 3.0, 8.0])
    assert smoothing.smooth(values, 3).tolist() == pytest.approx([1.5, 3.0, 11 / 3, 17 / 3, 5.5])
    assert smoothing.smooth(values, 1).tolist() == values.tolist()


def test_a_value_that_is_not_finite_leaves_the_mean_of_its_neighbours() -> None:
    values = np.array([1.0, math.nan, 3.0, math.inf, 5.0])
    assert smoothing.smooth(values, 3).tolist() == pytest.approx([1.0, 2.0, 3.0, 4.0, 5.0])
    assert np.isnan(smoothing.smooth(np.full(3, math.nan), 3)).all()


def test_thinning_keeps_peaks_and_the_order_of_steps() -> None:
    x = np.arange(100_000, dtype=float)
    y = np.sin(x / 500)
    y[41_234], y[70_001] = 9.0, -9.0
    kept_x, kept_y = smoothing.thin(x, y, 500)
    assert 250 <= len(kept_x) <= 500
    assert kept_y.max() == 9.0 and kept_y.min() == -9.0
    assert (np.diff(kept_x) > 0).all()


def test_few_points_are_kept_as_they_are_but_for_those_that_are_not_finite() -> None:
    x, y = smoothing.thin(np.array([1.0, 2.0, 3.0]), np.array([5.0, math.nan, 7.0]), 500)
    assert (x.tolist(), y.tolist()) == ([1.0, 3.0], [5.0, 7.0])


def test_a_smooth_line_keeps_its_first_and_its_last_point() -> None:
    x = np.arange(1, 5001, dtype=float)
    kept, _ = smoothing.spread(x, x * 2, 240)
    assert len(kept) == 240
    assert (kept[0], kept[-1]) == (1, 5000)
