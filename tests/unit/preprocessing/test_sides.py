from __future__ import annotations

import hashlib
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tincture.preprocessing.report import Side
from tincture.preprocessing.sides import choose_sides


def contents(names: list[str]) -> dict[str, str]:
    return {name: hashlib.sha256(name.encode()).hexdigest() for name in names}


def sides(count: int, share: float, seed: int = 0, known: Mapping[str, Side] | None = None) -> dict[str, Side]:
    names = [f"{number}.png" for number in range(count)]
    return choose_sides([[name] for name in names], contents(names), share, seed, known or {})


@pytest.mark.parametrize(
    ("count", "share", "wanted"), [(10, 0.2, 2), (10, 0.25, 2), (3, 0.01, 1), (2, 0.9, 1), (1, 0.5, 0)]
)
def test_the_share_is_kept_and_neither_side_is_empty(count: int, share: float, wanted: int) -> None:
    assert list(sides(count, share).values()).count("validation") == wanted


def test_the_seed_decides_and_order_does_not() -> None:
    assert sides(40, 0.3) == sides(40, 0.3)
    assert sides(40, 0.3, seed=1) != sides(40, 0.3)
    names = [f"{number}.png" for number in range(40)]
    assert choose_sides([[name] for name in reversed(names)], contents(names), 0.3, 0, {}) == sides(40, 0.3)


@given(st.lists(st.integers(1, 5), min_size=2, max_size=12), st.floats(0.01, 0.95), st.integers(0, 5))
def test_groups_stay_together(lengths: list[int], share: float, seed: int) -> None:
    grouped = [[f"{number}-{member}" for member in range(length)] for number, length in enumerate(lengths)]
    names = [name for group in grouped for name in group]
    chosen = choose_sides(grouped, contents(names), share, seed, {})
    assert set(chosen) == set(names)
    assert all(len({chosen[name] for name in group}) == 1 for group in grouped)
    assert set(chosen.values()) == {"train", "validation"}


def test_who_has_a_side_keeps_it_when_pictures_are_added() -> None:
    before = sides(10, 0.3)
    after = sides(20, 0.3, known=before)
    assert all(after[name] == side for name, side in before.items())
    assert list(after.values()).count("validation") == 6
    # validation has its share already
    assert list(sides(20, 0.1, known=before).values()).count("validation") == 3


def test_new_ones_join_their_like() -> None:
    names = ["old", "new", "other"]
    for side in ("train", "validation"):
        assert choose_sides([["old", "new"], ["other"]], contents(names), 0.3, 0, {"old": side})["new"] == side
    both: dict[str, Side] = {"old": "validation", "other": "train"}
    tied = choose_sides([["old", "new", "other"]], contents(names), 0.3, 0, both)
    assert tied == {"old": "validation", "new": "train", "other": "train"}
