"""Which source pictures are for training, and which for validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tincture.preprocessing.report import Side
from tincture.randomness import generator


def choose_sides(
    groups: Sequence[Sequence[str]], contents: Mapping[str, str], share: float, seed: int, known: Mapping[str, Side]
) -> dict[str, Side]:
    """A side for every source picture.

    All crops and mirrored copies of a source follow it, and all sources of a group (near-duplicates of each other) are
    on one side, so that validation never sees what was trained. A source that has a side keeps it.

    Args:
        groups: names of sources.
        contents: sha256 of each. It decides, with the seed, in which order groups are taken for validation, so that
            names and order do not matter.
        share: of the sources that validation gets, 0..1; at least one and not all, if there are two groups.
        seed: of the draw.
        known: sides from an earlier run.
    """
    settled: dict[str, Side] = {}
    open_groups: list[Sequence[str]] = []
    for group in groups:
        sides = {known[name] for name in group if name in known}
        if sides:
            # A new picture may tie together what was apart: it is trained, since its like is.
            side: Side = "train" if "train" in sides else "validation"
            settled |= {name: known.get(name, side) for name in group}
        else:
            open_groups.append(group)
    wanted = _wanted(sum(map(len, groups)), len(groups), share)
    left = wanted - sum(side == "validation" for side in settled.values())
    chosen = _take(sorted(open_groups, key=lambda group: min(_draw(contents[name], seed) for name in group)), left)
    settled |= {name: "train" for group in open_groups for name in group}
    settled |= {name: "validation" for group in chosen for name in group}
    return settled


def _wanted(sources: int, groups: int, share: float) -> int:
    if groups < 2:
        return 0
    return min(max(round(sources * share), 1), sources - 1)


def _take(groups: Sequence[Sequence[str]], count: int) -> list[Sequence[str]]:
    """The first groups that together have at most `count` members; if even one has more, the smallest."""
    chosen: list[Sequence[str]] = []
    left = count
    for group in groups:
        if len(group) <= left:
            chosen.append(group)
            left -= len(group)
    if not chosen and count > 0 and len(groups) > 1:
        return [min(groups, key=len)]
    return chosen


def _draw(content: str, seed: int) -> float:
    return float(generator(seed, "validation", int(content, 16)).random())
