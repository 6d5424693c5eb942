"""A sweep as its file describes it: which settings vary, how they are tried, and what is wrong with that.

    run = "embedding.toml"                  a run file, or a table of settings
    [grid]       batch_size = [1, 5]        every value with every other
    [[points]]   learning_rate = "1e-3"     a list of points
    [random]     trials, seed, sampler      points that Optuna draws from [random.ranges]
    [halving]    rungs, factor, metric      the worse ones stop at a rung
    [create]     num_vectors = 4            each run's adapter is made anew; else it begins as the run file's one
    [oracle]     subject or style           picto's pictures are read, and judged

Nothing heavy is imported.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tincture.errors import UsageError, shortened
from tincture.settings.paths import pasted_path
from tincture.settings.toml import read_toml

Fields = dict[str, Any]

MOST_RUNS = 1000
"""Runs of a sweep: points times seeds."""
METRICS = {"validation_loss": -1, "train_loss": -1, "fidelity": 1, "style": 1}
"""What runs are ranked by; 1: the more the better."""
SAMPLERS = ("random", "tpe")
CREATE = "create."
"""What the key of an option of the adapter begins with, beside those of settings."""
_TABLES = ("grid", "random", "halving", "oracle", "create")
KEYS = ("name", "run", "seeds", "metric", *_TABLES, "points")
_KEYS_OF = {
    "random": ("trials", "seed", "sampler", "ranges"),
    "halving": ("rungs", "factor", "metric"),
    "oracle": ("subject", "style", "pictures"),
}
_RANGE = ("low", "high", "log", "int", "step", "choices")


def read_sweep(path: Path) -> Fields:
    """What a sweep's file says, its run file put in; a run file is looked for beside it first.

    Raises:
        UsageError: one of the two cannot be read, or is no TOML.
    """
    found = read_toml(path)
    run = found.get("run")
    if isinstance(run, str):
        given = Path(pasted_path(run)).expanduser()
        beside = Path(path).parent / given
        found["run"] = read_toml(beside if beside.exists() else given)
    return found


def normalized(given: Mapping[str, Any], name: str = "") -> Fields:
    """The same with what may be written in two ways written in one: two files that mean the same are equal.

    Args:
        name: of the sweep, where the file gives none.
    """
    found: Fields = {key: value for key, value in given.items() if value is not None}
    found["name"] = str(found.get("name") or name)
    if isinstance(grid := found.get("grid"), Mapping):
        found["grid"] = flat(grid)
    if isinstance(points := found.get("points"), list):
        found["points"] = [flat(point) if isinstance(point, Mapping) else point for point in points]
    if isinstance(random := found.get("random"), Mapping):
        ranges = random.get("ranges")
        found["random"] = {**random, **({"ranges": flat_ranges(ranges)} if isinstance(ranges, Mapping) else {})}
    halving = found.get("halving")
    if (
        isinstance(halving, Mapping)
        and "metric" in halving
        and halving["metric"] == found.get("metric", halving["metric"])
    ):
        found["halving"] = {key: value for key, value in halving.items() if key != "metric"}
        found["metric"] = halving["metric"]
    return found


def table_of(source: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A table of a sweep; empty where there is none, or something else in its place."""
    found = source.get(name)
    return found if isinstance(found, Mapping) else {}


def points_of(source: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The tables of its list of points, as far as there are any."""
    found = source.get("points")
    return [point for point in found if isinstance(point, Mapping)] if isinstance(found, list) else []


def flat(values: Mapping[str, Any]) -> Fields:
    """Keys of settings and, as ``create.NAME``, those of a table ``create``."""
    options = values.get("create")
    inner = {f"{CREATE}{key}": value for key, value in options.items()} if isinstance(options, Mapping) else {}
    return {**{key: value for key, value in values.items() if not inner or key != "create"}, **inner}


def flat_ranges(ranges: Mapping[str, Any]) -> Fields:
    """The same of ranges, which are tables themselves."""
    options = ranges.get("create")
    is_range = not isinstance(options, Mapping) or any(key in options for key in ("low", "high", "choices"))
    return dict(ranges) if is_range else flat(ranges)


def faults_of_form(source: Mapping[str, Any]) -> list[str]:
    """What is wrong with a sweep, apart from the values of its settings, as words that name its keys."""
    return [*_faults_of_keys(source), *_faults_of_values(source)]


def _faults_of_keys(source: Mapping[str, Any]) -> Iterator[str]:
    yield from (_unknown("", key, KEYS) for key in source if key not in KEYS)
    if not isinstance(source.get("run"), Mapping):
        yield "run must be the path of a run file, or a table of its settings"
    for name in _TABLES:
        table = source.get(name, {})
        if not isinstance(table, Mapping):
            yield f"[{name}] must be a table"
        elif not table and name in source and name != "create":
            yield f"[{name}] is empty; name what it is about, or leave it out"
        elif name in _KEYS_OF:
            yield from (_unknown(f"[{name}] ", key, _KEYS_OF[name]) for key in table if key not in _KEYS_OF[name])
    if source.get("points") == []:
        yield "[[points]] is empty; name a point, or leave it out"
    if not any(name in source for name in ("grid", "points", "random")) and not _several(source.get("seeds")):
        yield "nothing varies; give [grid], [[points]], [random] or several seeds"
    if source.get("points") and source.get("random"):
        yield "[[points]] and [random] both name points; give one of them"


def _faults_of_values(source: Mapping[str, Any]) -> Iterator[str]:
    seeds = source.get("seeds", [])
    if not isinstance(seeds, list) or not all(_whole(seed, 0) for seed in seeds):
        yield f"seeds is {shortened(seeds)}, but must be a list of whole numbers, at least 0"
    elif len(set(seeds)) < len(seeds):
        yield f"seeds is {shortened(seeds)}, which has one of them twice"
    if (metric := source.get("metric")) is not None and metric not in tuple(METRICS):
        yield f"metric is {shortened(metric)}, but must be one of {', '.join(METRICS)}"
    yield from _faults_of_grid(source.get("grid", {}))
    yield from _faults_of_points(source.get("points", []))
    yield from _faults_of_random(source.get("random") or {}, source)
    yield from _faults_of_halving(source.get("halving") or {}, source)


def _faults_of_grid(grid: Any) -> Iterator[str]:
    for key, values in grid.items() if isinstance(grid, Mapping) else ():
        if not isinstance(values, list) or not values:
            yield f"[grid] {key} is {shortened(values)}, but must be a list of one value or more"
        elif any(value in values[:place] for place, value in enumerate(values)):
            yield f"[grid] {key} is {shortened(values)}, which has one of them twice"


def _faults_of_points(points: Any) -> Iterator[str]:
    if points == []:
        return
    if not isinstance(points, list) or not all(isinstance(point, Mapping) and point for point in points):
        yield "[[points]] must be tables of settings, none of them empty"
    elif any(point in points[:place] for place, point in enumerate(points)):
        yield "[[points]] has one of them twice"


def _faults_of_random(random: Any, source: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(random, Mapping) or not random:
        return
    if not _whole(random.get("trials"), 1):
        yield f"[random] trials is {shortened(random.get('trials'))}, but must be a whole number, at least 1"
    if not _whole(random.get("seed", 0), 0):
        yield f"[random] seed is {shortened(random['seed'])}, but must be a whole number, at least 0"
    sampler = random.get("sampler", SAMPLERS[0])
    if sampler not in SAMPLERS:
        yield f"[random] sampler is {shortened(sampler)}, but must be {' or '.join(SAMPLERS)}"
    if sampler == "tpe" and source.get("halving"):
        yield "[random] sampler is 'tpe', which learns from runs that are done, but [halving] stops runs; leave one out"
    if sampler == "tpe" and source.get("grid"):
        yield "[random] sampler is 'tpe', which chooses each point itself; give what is in [grid] as a range"
    ranges = random.get("ranges")
    if not isinstance(ranges, Mapping) or not ranges:
        yield "[random.ranges] must be a table of ranges, such as learning_rate = {low = 1e-4, high = 1e-2, log = true}"
        return
    for key, given in ranges.items():
        yield from (f"[random.ranges] {key} {fault}" for fault in _faults_of_range(given))


def _faults_of_range(given: Any) -> Iterator[str]:
    if not isinstance(given, Mapping) or not given:
        yield f"is {shortened(given)}, but must be a table with low and high, or with choices"
        return
    yield from (f"has the key {key!r}; known are {', '.join(_RANGE)}" for key in given if key not in _RANGE)
    if "choices" in given:
        choices = given["choices"]
        if not isinstance(choices, list) or not choices:
            yield f"has choices {shortened(choices)}, which must be a list of one value or more"
        if others := [key for key in given if key in _RANGE and key != "choices"]:
            yield f"has choices and {others[0]}, of which only one can count"
        return
    low: Any = given.get("low")
    high: Any = given.get("high")
    if not (_number(low) and _number(high) and low < high):
        yield f"goes from {shortened(low)} to {shortened(high)}, but low and high must be numbers, the first smaller"
    elif given.get("log") and low <= 0:
        yield f"is by logarithm and begins at {low}, but must begin above 0"
    if given.get("log") and given.get("step") is not None:
        yield "has log and step, of which only one can count"
    elif given.get("step") is not None and not (_number(given["step"]) and given["step"] > 0):
        yield f"has the step {shortened(given['step'])}, but must have a number above 0"


def _faults_of_halving(halving: Any, source: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(halving, Mapping) or not halving:
        return
    rungs, factor = halving.get("rungs"), halving.get("factor", 2)
    if not isinstance(rungs, list) or not rungs or not all(_whole(rung, 1) for rung in rungs):
        yield f"[halving] rungs is {shortened(rungs)}, but must be a list of steps, such as [100, 200, 400]"
    elif any(later <= earlier for earlier, later in itertools.pairwise(rungs)):
        yield f"[halving] rungs is {shortened(rungs)}, but each must be above the one before"
    if not _number(factor) or factor <= 1:
        yield f"[halving] factor is {shortened(factor)}, but must be a number above 1"
    if "metric" in halving:  # else it stands for the whole sweep, see ``normalized``
        yield f"metric is {shortened(source.get('metric'))}, but [halving] metric {shortened(halving['metric'])}"


def sweep_name(text: str) -> str:
    """A name for a sweep made of a file's: what cannot stand in an adapter's name is left out."""
    return re.sub(r"[^\w.-]+", "-", Path(text).stem).strip("-.") or "sweep"


def refuse(faults: Sequence[str], source: str) -> None:
    """UsageError with all ``faults`` in one message; nothing where there are none."""
    if not faults:
        return
    where = f" in {source}" if source else ""
    if len(faults) == 1:
        raise UsageError(f"The sweep{where} is not allowed: {faults[0].rstrip('.')}.")
    shown, more = faults[:_SHOWN], len(faults) - _SHOWN
    lines = "".join(f"\n  {fault}" for fault in shown) + (f"\n  and {more} more" if more > 0 else "")
    raise UsageError(f"{len(faults)} things{where} are not allowed in a sweep:{lines}")


_SHOWN = 20
_LARGEST = 2**53  # up to which numbers of both kinds are exact


def _unknown(where: str, key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"the nearest is {near[0]}" if near else f"known are {', '.join(known)}"
    return f"there is no {where}key {key!r}; {hint}"


def _several(values: Any) -> bool:
    return isinstance(values, list) and len(values) > 1


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**63


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST
