"""The runs of a sweep: every point with every seed, each with settings, a name and adapters of its own.

Nothing here asks whether they are allowed: see ``sweep_faults``.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tincture.kinds.registry import Option, find_kind, kind_names
from tincture.settings.companions import Companion, adapter_stem, companion_texts, sound_companions
from tincture.settings.fields import as_meant, overridden
from tincture.settings.train import FIELDS, TrainSettings
from tincture.sweeps import ranges as drawing
from tincture.sweeps.ranges import Point
from tincture.sweeps.sweep_file import CREATE, Fields, points_of, table_of

_PROMPTS = ("preview_prompts", "preview_negative_prompt", "negative_prompt")
"""Texts in which an adapter may stand by its name."""
PICTURES = 24
"""That the oracle reads of each run, where a sweep does not say how many."""


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes:
        name: of its adapter, and of its folder in the sweep's.
        point: its number, from 1 on.
        seed: of several, which; None where there is one for all.
        values: what is its own: settings, and options of its adapter by ``create.NAME``.
        settings: those that are given, as ``TrainSettings.from_dict`` takes them.
    """

    name: str
    point: int
    seed: int | None
    values: dict[str, Any]
    settings: dict[str, Any]

    def train_settings(self) -> TrainSettings:
        """The settings of the run."""
        return TrainSettings.from_dict(self.settings)

    def options(self, source: Mapping[str, Any]) -> Fields:
        """Options that its adapter is made with."""
        own = {key.removeprefix(CREATE): value for key, value in self.values.items() if key.startswith(CREATE)}
        return {**source.get("create", {}), **own}


def made_anew(source: Mapping[str, Any]) -> bool:
    """Whether the adapters of a sweep are made, and not begun with the file that its run file names."""
    return "create" in source or any(key.startswith(CREATE) for key in varied(source))


def varied(source: Mapping[str, Any]) -> list[str]:
    """Keys that vary, in the order in which they are given."""
    keys = [*table_of(source, "grid"), *(key for point in points_of(source) for key in point), *ranges_of(source)]
    return list(dict.fromkeys(keys))


def learns(source: Mapping[str, Any]) -> bool:
    """Whether points are chosen by what came of those before, so that they are not known beforehand."""
    return bool(source.get("random", {}).get("sampler") == "tpe")


def ranges_of(source: Mapping[str, Any]) -> Mapping[str, Any]:
    """By key that is drawn, from what."""
    return table_of(table_of(source, "random"), "ranges")


def options_of(source: Mapping[str, Any]) -> dict[str, Option]:
    """What can be chosen when an adapter of the sweep's kind is made, by name; empty for no such kind."""
    kind = table_of(source, "run").get("kind")
    return {option.name: option for option in find_kind(kind).options} if kind in kind_names() else {}


def count_of(source: Mapping[str, Any]) -> int:
    """How many runs there will be, at most."""
    grid = math.prod(len(values) for values in source.get("grid", {}).values())
    listed = len(source.get("points", [])) or int(source.get("random", {}).get("trials", 1))
    return grid * listed * max(1, len(source.get("seeds", [])))


def expanded(source: Mapping[str, Any]) -> list[Point]:
    """All points, in order; of a sweep that learns none yet. UsageError where Optuna is needed and not there."""
    grid = source.get("grid", {})
    combined = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    if learns(source):
        return []
    listed: Sequence[Point] = source.get("points", [{}])
    if random := source.get("random"):
        listed = drawing.draw(random["ranges"], random["trials"], random.get("seed", 0), options_of(source))
    return [{**point, **values} for point in listed for values in combined]


def trials_of(source: Mapping[str, Any], points: Sequence[Point], first: int = 1) -> list[Trial]:
    """The runs of ``points``, of which the first has the number ``first``."""
    seeds: Sequence[int | None] = source.get("seeds") or [None]
    digits = max(2, len(str(count_of(source))))
    made = []
    for number, point in enumerate(points, start=first):
        for seed in seeds:
            several = f"-s{seed}" if len(seeds) > 1 else ""
            name = f"{source['name']}-p{number:0{digits}}{several}"
            made.append(Trial(name, number, seed, point, settings_of(source, point, name, seed)))
    return made


def settings_of(source: Mapping[str, Any], point: Point, name: str, seed: int | None) -> Fields:
    """Settings of one run: those of the run file, those of its point, and adapters of its own."""
    own = {key: value for key, value in point.items() if not key.startswith(CREATE)}
    values = overridden(FIELDS, source["run"], {**own, **({} if seed is None else {"seed": seed})})
    given = as_meant(FIELDS, values)
    renamed = {adapter_stem(str(given.get("name", ""))): name}
    others = sound_companions({"companions": companion_texts(given.get("companions", ()))})
    for other in others:
        renamed[adapter_stem(other.name)] = _companion_name(name, other)
    if others:
        made = [dataclasses.replace(other, name=_companion_name(name, other)) for other in others]
        given["companions"] = [str(other) for other in made]
    texts = {key: _renamed(given[key], renamed) for key in _PROMPTS if key in given}
    return {**given, **texts, "name": name}


def adapters_of(source: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Kind and name of what the run file names to be trained, its own first."""
    given = as_meant(FIELDS, source["run"])
    others = sound_companions({"companions": companion_texts(given.get("companions", ()))})
    return [(str(given.get("kind")), str(given.get("name", ""))), *((other.kind, other.name) for other in others)]


def _companion_name(name: str, other: Companion) -> str:
    return f"{name}-{adapter_stem(other.name)}"


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """Texts in which words that are names of adapters are those of the run's own."""
    if isinstance(value, list | tuple):
        return [_renamed(item, names) for item in value]
    if not isinstance(value, str):
        return value
    for before in filter(None, names):
        value = re.sub(rf"(?<![\w-]){re.escape(before)}(?![\w-])", names[before].replace("\\", r"\\"), value)
    return value
