from __future__ import annotations

import math
import re

import numpy as np
import pytest

from tincture.reports import curves
from tincture.reports.curves import Line


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
