"""What a prompt says beyond words: ``<hypernet:NAME:MULTIPLIER>``, attention weights in brackets, ``BREAK``.

The grammar is the webui's, so that a prompt means the same here and there; docs/prompts.md describes it.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Collection, Sequence
from itertools import groupby
from typing import NamedTuple

from tincture.errors import UsageError
from tincture.kinds.registry import AdapterKind, any_of, tagged_kinds
from tincture.workspace import Workspace

EXTRA_NETWORK = re.compile(r"<(\w+):([^:<>]+)(?::([^<>]*))?>")
# A backslash takes the meaning from the bracket or backslash behind it; before anything else it only vanishes.
_SPECIAL = re.compile(
    r"""
      \\(?P<literal>[\\()\[\]]?)
    | (?P<opened>[(\[])
    | :\s*(?P<factor>[+-]?(?:\d++\.?+\d*+|\.\d++))\s*\)
    | (?P<closed>[)\]])
    | \b(?P<end_of_chunk>BREAK)\b
    """,
    re.VERBOSE,
)
_FACTORS = {"(": 1.1, "[": 1 / 1.1}
_OPENED_BY = {")": "(", "]": "["}


class ExtraNetwork(NamedTuple):
    """One ``<tag:name:multiplier>`` of a prompt; ``tag`` is that of a kind of adapters."""

    tag: str
    name: str
    multiplier: float


class Segment(NamedTuple):
    """A piece of a prompt whose tokens all have the same weight."""

    text: str
    weight: float


BREAK = Segment("BREAK", -1.0)
"""Stands between two segments where the prompt asks for a new chunk."""


def parse_extra_networks(text: str) -> tuple[str, list[ExtraNetwork]]:
    """Takes the tags of adapters, such as ``<hypernet:NAME:MULTIPLIER>``, out of ``text``; without multiplier it is 1.

    The syntax is the webui's. Tags of no kind of adapters, such as ``<lora:NAME:1>``, are taken out too, with a
    ``UserWarning``. Returns the text without tags and those of adapters in their order.

    Raises:
        UsageError: a multiplier that is not a number.
    """
    networks, known = _networks(text), tagged_kinds()
    for found in EXTRA_NETWORK.finditer(text):
        if found[1].lower() not in known:
            tags = any_of([f"<{tag}:NAME:MULTIPLIER>" for tag in known])
            warnings.warn(f"{found[0]} is left out: only {tags} is known.", stacklevel=2)
    rest, count = EXTRA_NETWORK.subn("", text)
    return (re.sub(r" {2,}", " ", rest).strip() if count else text), networks


def require_networks(prompts: Sequence[str], workspace: Workspace, instead: Collection[str] = ()) -> None:
    """Refuses prompts with a tag of an adapter that is not in the workspace.

    Args:
        instead: names of adapters for which other files stand in.

    Raises:
        UsageError: there is no such adapter, or a multiplier is not a number.
    """
    for network in (network for prompt in prompts for network in _networks(prompt)):
        if network.name not in instead:
            workspace.find_adapter(tagged_kinds()[network.tag].name, network.name)


def _networks(text: str) -> list[ExtraNetwork]:
    """The tags of adapters; others are left out without a word."""
    known, networks = tagged_kinds(), []
    for found in EXTRA_NETWORK.finditer(text):
        tag, name, multiplier = found.groups(default="")
        if kind := known.get(tag.lower()):
            networks.append(ExtraNetwork(kind.tag, name.strip(), _multiplier(kind, name, multiplier)))
    return networks


def _multiplier(kind: AdapterKind, name: str, text: str) -> float:
    if not text.strip():
        return 1.0
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(
            f"The multiplier {text!r} of {kind.name} {name!r} is not a number; write {kind.in_prompt(name, 0.8)}."
        )
    return value


def parse_weights(text: str) -> list[Segment]:
    """``text`` as segments of one weight each, with ``BREAK`` between them; at least one, for any text.

    ``(text)`` weighs 1.1 times as much, ``[text]`` 1 / 1.1 times, ``(text:1.5)`` 1.5 times; nested factors multiply.
    A bracket that is never closed reaches to the end; one that closes nothing is text, as is a weight that is no
    number. As in the webui, a ``BREAK`` inside of brackets is a word.
    """
    weighting, position = _Weighting(), 0
    for special in _SPECIAL.finditer(text):
        if position < special.start():
            weighting.add(text[position : special.start()])
        weighting.act(special)
        position = special.end()
    if position < len(text):
        weighting.add(text[position:])
    return weighting.segments()


class _Weighting:
    """Pieces of a text and their weights, multiplied whenever a bracket closes."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.weights: list[float] = []
        self.opened: dict[str, list[int]] = {"(": [], "[": []}  # index of the first piece in each open bracket

    def act(self, special: re.Match[str]) -> None:
        bracket = special["closed"] and _OPENED_BY[special["closed"]]
        if special["opened"]:
            self.opened[special["opened"]].append(len(self.texts))
        elif special["factor"] and self.opened["("]:
            self.close("(", float(special["factor"]))
        elif bracket and self.opened[bracket]:
            self.close(bracket, _FACTORS[bracket])
        elif special["end_of_chunk"]:
            self.texts += ["", BREAK.text, ""]  # the empty ones keep it apart from pieces that get its weight
            self.weights += [1.0, BREAK.weight, 1.0]
        else:
            self.add(special[0] if special["literal"] is None else special["literal"])

    def add(self, text: str) -> None:
        self.texts.append(text)
        self.weights.append(1.0)

    def close(self, bracket: str, factor: float) -> None:
        for index in range(self.opened[bracket].pop(), len(self.weights)):
            self.weights[index] *= factor

    def segments(self) -> list[Segment]:
        """The pieces, neighbours of equal weight joined: what was written as one word is tokenized as one."""
        for bracket, factor in _FACTORS.items():
            while self.opened[bracket]:
                self.close(bracket, factor)
        pieces = groupby(zip(self.texts, self.weights, strict=True), key=lambda piece: piece[1])
        return [Segment("".join(text for text, _ in run), weight) for weight, run in pieces] or [Segment("", 1.0)]
