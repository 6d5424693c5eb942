"""Adapters in a prompt: which ones it names and how strongly, and the same prompt with other strengths or without them.

The prompt is the only place where a strength is kept: what sliders show is read from it, and written into it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tincture.kinds.registry import find_kind, kinds, tagged_kinds
from tincture.models.prompt import EXTRA_NETWORK

# Digits are not given back (++): a million of them without a bracket behind take no longer than to read them.
_NUMBER = r"[+-]?(?:\d++\.?+\d*+|\.\d++)"


class Named(NamedTuple):
    """An adapter that a prompt names; ``kind`` is the name of its ``AdapterKind``."""

    kind: str
    name: str
    strength: float


def named_in(prompt: str, names: Mapping[str, Sequence[str]]) -> list[Named]:
    """The adapters that ``prompt`` names, in its order, each once; a strength that is no number counts as 1.

    Args:
        names: of the adapters that there are, by kind.
    """
    known, tags = {kind: set(each) for kind, each in names.items()}, tagged_kinds()
    words = [(kind.name, name) for kind in kinds() if not kind.tag for name in names.get(kind.name, ())]
    found: dict[tuple[str, str], tuple[int, float]] = {}
    for tag in EXTRA_NETWORK.finditer(prompt):
        kind, name = tags.get(tag[1].lower()), tag[2].strip()
        if kind and name in known.get(kind.name, ()):
            found.setdefault((kind.name, name), (tag.start(), _number(tag[3])))
    # tags are blanked and longer names looked for first, so that "gold" is not found within "gold-leaf"
    rest = EXTRA_NETWORK.sub(lambda tag: " " * len(tag[0]), prompt)
    for word, name in sorted(words, key=lambda word: len(word[1]), reverse=True):
        if place := _weighted(name).search(rest):
            found[(word, name)] = (place.start(), _number(place["weight"]))
            rest = _weighted(name).sub(lambda match: " " * len(match[0]), rest)
    ordered = sorted(found.items(), key=lambda item: item[1][0])
    return [Named(kind, name, strength) for (kind, name), (_, strength) in ordered]


def insert(prompt: str, kind: str, name: str, strength: float | None = None) -> str:
    """The prompt with the adapter at its end, by default at full strength."""
    return f"{prompt.rstrip()} {find_kind(kind).in_prompt(name, strength)}".lstrip()


def with_strength(prompt: str, adapter: Named, strength: float, others: Iterable[Named] = ()) -> str:
    """The prompt with another strength of an adapter that it names; an embedding of strength 1 stands alone.

    Args:
        others: adapters whose names may hold this one's, and are left alone.
    """
    kind = find_kind(adapter.kind)
    text = kind.in_prompt(adapter.name, strength)
    if kind.tag:
        return _replaced_tag(prompt, kind.tag, adapter.name, text)
    return _outside_tags(prompt, adapter.name, text, _words(others))


def without(prompt: str, adapters: Sequence[Named], instead: str = "", others: Iterable[Named] = ()) -> str:
    """The prompt without the given adapters; ``instead`` stands where embeddings stood, and ``others`` stay."""
    protected = _words((*adapters, *others))
    for adapter in sorted(adapters, key=lambda adapter: -len(adapter.name)):
        if tag := find_kind(adapter.kind).tag:
            prompt = _replaced_tag(prompt, tag, adapter.name, "")
        else:
            prompt = _outside_tags(prompt, adapter.name, instead, protected)
    return re.sub(r" {2,}", " ", re.sub(r"(?<! ) ++,", ",", prompt)).strip()


def numbers(text: str) -> list[float]:
    """Numbers between commas or blanks; ValueError names what is none."""
    parts = re.split(r"[,;\s]+", text.strip())
    return [float(part) for part in parts if part]


def _weighted(name: str) -> re.Pattern[str]:
    """The name as a word of its own, alone or as ``(name:0.8)``; upper and lower case are one."""
    own = rf"(?<![^\W_]){re.escape(name)}(?![^\W_])"
    return re.compile(rf"\(\s*{own}\s*:\s*(?P<weight>{_NUMBER})\s*\)|{own}", re.IGNORECASE)


def _number(text: str | None) -> float:
    try:
        return float(text) if text else 1.0
    except ValueError:
        return 1.0


def _words(adapters: Iterable[Named]) -> list[str]:
    """Names of those that stand in a prompt as words."""
    return [adapter.name for adapter in adapters if not find_kind(adapter.kind).tag]


def _replaced_tag(prompt: str, tag: str, name: str, text: str) -> str:
    def write(found: re.Match[str]) -> str:
        return text if found[1].lower() == tag and found[2].strip() == name else found[0]

    return EXTRA_NETWORK.sub(write, prompt)


def _outside_tags(prompt: str, name: str, text: str, others: Iterable[str]) -> str:
    """Writes ``text`` for the embedding's name wherever it stands, but not within ``<…>`` or a longer name."""
    longer = [_weighted(other).pattern.replace("?P<weight>", "?:") for other in others if len(other) > len(name)]
    protected = "|".join([EXTRA_NETWORK.pattern, *sorted(longer, key=len, reverse=True)])
    pattern = re.compile(f"(?P<protected>{protected})|{_weighted(name).pattern}", re.IGNORECASE)
    return pattern.sub(lambda match: match[0] if match["protected"] else text, prompt)
