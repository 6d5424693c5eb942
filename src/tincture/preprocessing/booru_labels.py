"""Tags of booru sites: which of them go into a caption, and how they are written there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from tincture.errors import UsageError

Kind = Literal["general", "character", "rating"]
Order = Literal["score", "alphabet"]

_SPECIAL = re.compile(r"[\\()\[\]]")  # what a prompt takes for weights


@dataclass(frozen=True, slots=True)
class Label:
    """What a tagger gives a probability for: ``name`` as on the site ("long_hair"), and what kind of tag it is."""

    name: str
    kind: Kind = "general"


@dataclass(frozen=True, slots=True)
class TagStyle:
    """Which tags go into a caption, and how.

    Attributes:
        threshold: lowest probability of a tag, 0..1.
        character_threshold: the same for names of characters.
        replace_underscores: write blanks for underscores, but not in emoticons such as ^_^.
        escape_brackets: write \\( for ( and so on, so that prompts do not take brackets for weights.
        order: the likeliest tag first, or by alphabet.
        exclude: tags that are never written, with blanks or underscores.
    """

    threshold: float
    character_threshold: float
    replace_underscores: bool = True
    escape_brackets: bool = True
    order: Order = "score"
    exclude: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Raises UsageError for a threshold outside of 0..1, or an unknown order."""
        for name, value in (("tags", self.threshold), ("characters", self.character_threshold)):
            if not 0 <= value <= 1:
                raise UsageError(f"The threshold of {name} is {value}; give a probability from 0 to 1.")
        if self.order not in get_args(Order):
            raise UsageError(f"The order of tags is {self.order!r}; give one of {', '.join(get_args(Order))}.")

    def caption(self, labels: Sequence[Label], probabilities: Iterable[float]) -> str:
        """The tags that are likely enough, joined by commas; ratings ("explicit") are left out.

        Args:
            labels: all that the tagger knows.
            probabilities: one of 0..1 for each of ``labels``.
        """
        excluded = {_plain(name) for name in self.exclude}
        found = [
            (probability, label.name)
            for label, probability in zip(labels, probabilities, strict=True)
            if self._is_wanted(label, probability) and _plain(label.name) not in excluded
        ]
        if self.order == "alphabet":
            found.sort(key=lambda pair: pair[1])
        else:
            found.sort(key=lambda pair: -pair[0])
        return ", ".join(self._write(name) for _, name in found)

    def _is_wanted(self, label: Label, probability: float) -> bool:
        threshold = self.character_threshold if label.kind == "character" else self.threshold
        return label.kind != "rating" and probability >= threshold

    def _write(self, name: str) -> str:
        if self.replace_underscores and not is_emoticon(name):
            name = name.replace("_", " ")
        return _SPECIAL.sub(r"\\\g<0>", name) if self.escape_brackets else name


def is_emoticon(name: str) -> bool:
    """Whether ``name`` is a face such as ^_^ or o_o: one underscore, with one letter or digit at most at each side."""
    sides = name.split("_")
    return len(sides) == 2 and all(sum(map(str.isalnum, side)) <= 1 for side in sides)


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("\\", "")
