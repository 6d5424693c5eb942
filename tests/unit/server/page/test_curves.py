from __future__ import annotations

import math
import re

import numpy as np
import pytest

from tincture.server.page.runs import chart as curves
from tincture.server.page.runs.chart import Line


def test_smoothing_takes_from_no_step_to_a_fourth_of_them() -> None:
    assert curves.window(0, 10_000) == 1
    assert curves.window(100, 10_000) == 2501
    assert curves.window(50, 10_000) == 625
    assert curves.window(300, 100) == curves.window(100, 100)
    assert all(curves.window(smoothing, 777) % 2 == 1 for smoothing in range(101))


def test_the_mean_is_over_the_values_around_and_fewer_at_the_ends() -> None:
    values = np.array([1.0, 2.0, 6.0, 3.0, 8.0])
    assert curves.smooth(values, 3).tolist() == pytest.approx([1.5, 3.0, 11 / 3, 17 / 3, 5.5])
    assert curves.smooth(values, 1).tolist() == values.tolist()


def test_a_value_that_is_not_finite_leaves_the_mean_of_its_neighbours() -> None:
    values = np.array([1.0, math.nan, 3.0, math.inf, 5.0])
    assert curves.smooth(values, 3).tolist() == pytest.approx([1.0, 2.0, 3.0, 4.0, 5.0])
    assert np.isnan(curves.smooth(np.full(3, math.nan), 3)).all()


def test_thinning_keeps_peaks_and_the_order_of_steps() -> None:
    x = np.arange(100_000, dtype=float)
    y = np.sin(x / 500)
    y[41_234], y[70_001] = 9.0, -9.0
    kept_x, kept_y = curves.thin(x, y, 500)
    assert 250 <= len(kept_x) <= 500
    assert kept_y.max() == 9.0 and kept_y.min() == -9.0
    assert (np.diff(kept_x) > 0).all()


def test_few_points_are_kept_as_they_are_but_for_those_that_are_not_finite() -> None:
    x, y = curves.thin(np.array([1.0, 2.0, 3.0]), np.array([5.0, math.nan, 7.0]), 500)
    assert (x.tolist(), y.tolist()) == ([1.0, 3.0], [5.0, 7.0])


def test_a_smooth_line_keeps_its_first_and_its_last_point() -> None:
    x = np.arange(1, 5001, dtype=float)
    kept, _ = curves.spread(x, x * 2, 240)
    assert len(kept) == 240
    assert (kept[0], kept[-1]) == (1, 5000)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, 1.0, [0, 0.5, 1]), (0.05, 0.34, [0.1, 0.2, 0.3]), (1, 1000, [500, 1000]), (2.0, 2.0, [2.0])],
)
def test_ticks_are_round_and_within(low: float, high: float, expected: list[float]) -> None:
    assert curves.ticks(low, high, 3) == pytest.approx(expected)


def test_ticks_of_nothing_finite_are_none() -> None:
    assert curves.ticks(math.nan, 1.0) == []


def test_a_chart_draws_every_line_within_its_box() -> None:
    x = np.arange(1, 11, dtype=float)
    shown = curves.chart("Loss", [Line(x, x / 10, "faint"), Line(x, x / 20, "strong")], note="<mean>")
    paths = re.findall(r'<path class="(\w+)" d="M([^"]+)"', shown)
    assert [style for style, _ in paths] == ["faint", "strong"]
    for _, path in paths:
        points = [tuple(map(float, point.split())) for point in path.split("L")]
        assert len(points) == 10
        assert all(0 <= left <= curves.WIDTH and -5 <= top <= curves.HEIGHT + 5 for left, top in points)
        assert points[0][0] == 0 and points[-1][0] == curves.WIDTH
        assert points[0][1] > points[-1][1]  # what is more stands higher
    assert "&lt;mean&gt;" in shown and "<mean>" not in shown


def test_a_chart_of_one_step_or_of_one_value_is_a_line_too() -> None:
    one = curves.chart("Loss", [Line(np.array([1.0]), np.array([0.5]), "strong")])
    assert re.search(r'd="M0\.0 [\d.]+L2\.0', one)
    flat = curves.chart("Rate", [Line(np.array([1.0, 9.0]), np.array([0.0, 0.0]), "strong")])
    assert "nan" not in one + flat and "inf" not in one + flat


def test_a_chart_without_points_is_nothing() -> None:
    empty = np.array([])
    assert curves.chart("Loss", [Line(empty, empty, "strong")]) == ""


def test_one_outlier_does_not_flatten_the_rest() -> None:
    x = np.arange(1000, dtype=float)
    y = np.full(1000, 0.1) + x / 1e5
    y[3] = 500.0
    low, high = curves.limits([Line(x, y, "faint")])
    assert low < 0.11 < high < 1


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (0.25, "0.25"), (5e-5, "5.0e-5"), (1200, "1200")])
def test_numbers_beside_rules_are_short(value: float, text: str) -> None:
    assert curves.number(value) == text
