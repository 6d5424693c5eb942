"""What a structure of layers may be, at the edges of what is allowed."""

from __future__ import annotations

import math

import pytest

from tincture.errors import UsageError
from tincture.kinds.layer_structure import (
    check_dropout_structure,
    check_layer_structure,
    layer_widths,
    legacy_dropout_structure,
    numbers,
)


def test_a_structure_may_be_a_text() -> None:
    assert numbers("layer structure", "1, 2.5,1") == [1, 2.5, 1]
    assert numbers("layer structure", (1, 2, 1)) == [1, 2, 1]
    with pytest.raises(UsageError, match=r"The layer structure '1,,1' is not a list of numbers; write it like 1, 2, 1"):
        numbers("layer structure", "1,,1")


@pytest.mark.parametrize("structure", [[1, 1], [1, 2, 1], [1, math.nextafter(0, 1), 1], [1, 1e308, 1]])
def test_allowed_layers(structure: list[float]) -> None:
    check_layer_structure(structure)


@pytest.mark.parametrize(
    "structure", [[], [1], [2, 1], [1, 2], [1, 0, 1], [1, -1, 1], [1, math.inf, 1], [1, math.nan, 1]]
)
def test_refused_layers(structure: list[float]) -> None:
    with pytest.raises(UsageError, match="two or more positive factors are needed, the first and the last 1"):
        check_layer_structure(structure)


@pytest.mark.parametrize("probability", [0, 0.5, math.nextafter(1, 0)])
def test_allowed_dropout(probability: float) -> None:
    check_dropout_structure([0, probability, 0], [1, 2, 1])


@pytest.mark.parametrize("probability", [1, -math.nextafter(0, 1), math.nan])
def test_refused_dropout(probability: float) -> None:
    with pytest.raises(UsageError, match="it is 0 or more and less than 1"):
        check_dropout_structure([0, probability, 0], [1, 2, 1])


@pytest.mark.parametrize("count", [2, 4])
def test_a_probability_for_each_layer(count: int) -> None:
    with pytest.raises(UsageError, match=f"has {count} values; it needs as many as the layer structure .* has, 3"):
        check_dropout_structure([0] * count, [1, 2, 1])


@pytest.mark.parametrize(
    ("layers", "last", "expected"),
    [
        ([1, 1], True, [0, 0]),
        ([1, 2, 1], False, [0, 0, 0]),
        ([1, 2, 1], True, [0, 0.3, 0]),
        ([1, 2, 3, 1], False, [0, 0.3, 0, 0]),
        ([1, 2, 3, 1], True, [0, 0.3, 0.3, 0]),
    ],
)
def test_dropout_of_files_that_say_only_whether(layers: list[float], last: bool, expected: list[float]) -> None:
    assert legacy_dropout_structure(layers, last) == expected


def test_widths_are_whole_and_fit_into_a_matrix() -> None:
    assert layer_widths(768, [1, 1.5, 0.333, 1]) == [768, 1152, 255, 768]
    assert layer_widths(4, [1, 0.25, 1]) == [4, 1, 4]
    assert layer_widths(1, [1, 2**31 - 1, 1]) == [1, 2**31 - 1, 1]
    for factor in (0.24, 2**29):
        with pytest.raises(UsageError, match="1 to 2147483647 are"):
            layer_widths(4, [1, factor, 1])
