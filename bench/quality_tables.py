"""The figures of ``bench/quality.py`` as tables: means over lessons, with their standard errors."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.report import put_between

BEGIN, END = "<!-- subjects: begin -->", "<!-- subjects: end -->"
Results = Mapping[str, Mapping[str, Any]]
_BASELINE = "baseline"
_COLUMNS = (
    ("taught", "fidelity", 2),
    ("both", "editability", 2),
    ("loss", "held-out loss", 4),
    ("training_loss", "training loss", 4),
    ("drift", "drift", 3),
)


def write(docs: Path, results: Mapping[str, Results]) -> None:
    """Puts the tables between the marks of ``docs``.

    Raises:
        ValueError: the marks are not there.
    """
    parts = [make(results[part]) for part, make in SECTIONS.items() if results.get(part)]
    put_between(docs, BEGIN, END, "\n\n".join(parts))


def mean(values: Sequence[float], digits: int = 2) -> str:
    """With its standard error, where there are several."""
    if len(values) < 2:
        return f"{values[0]:.{digits}f}" if values else "–"
    return f"{statistics.fmean(values):.{digits}f} ± {standard_error(values):.{digits}f}"


def standard_error(values: Sequence[float]) -> float:
    """Of the mean of several lessons."""
    return statistics.stdev(values) / math.sqrt(len(values))


def by_way(results: Results) -> dict[str, list[Mapping[str, Any]]]:
    """The lessons of each way, in the order in which the ways come."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for lesson in results.values():
        found.setdefault(lesson["way"], []).append(lesson)
    return found


def values(lessons: Iterable[Mapping[str, Any]], step: str, name: str) -> list[float]:
    """Of all lessons that were judged at this step."""
    return [lesson["rows"][step][name] for lesson in lessons if step in lesson["rows"]]


def ways_table(results: Results) -> str:
    """A row for each way; fidelity and editability at each step, the rest at the last."""
    ways = by_way(results)
    steps = _steps(results)
    last = steps[-1]
    head = ["recipe", "lessons", *(f"{word} at {step}" for word in ("fidelity", "editability") for step in steps)]
    head += [f"{title} at {last}" for _, title, _ in _COLUMNS[2:]]
    rows = []
    for way, lessons in ways.items():
        shares = [mean(values(lessons, step, name)) for name in ("taught", "both") for step in steps]
        other = [mean(values(lessons, last, name), digits) for name, _, digits in _COLUMNS[2:]]
        rows.append([way, str(len(lessons)), *shares, *other])
    return table(head, rows)


def curve_table(results: Results) -> str:
    """A row for each step, over all lessons."""
    lessons = list(results.values())
    columns = [*_COLUMNS[:2], ("clear", "clear", 2), *_COLUMNS[2:], ("norm", "length of the vectors", 2)]
    rows = []
    for step in _steps(results):
        worst = min(values(lessons, step, "taught"))
        cells = [mean(values(lessons, step, name), digits) for name, _, digits in columns]
        rows.append([step, str(len(lessons)), *cells, f"{worst:.2f}"])
    return table(["step", "lessons", *(title for _, title, _ in columns), "least fidelity"], rows)


def switches_table(results: Results) -> str:
    """The baseline's figures, and the difference of each way from it, over the lessons that both have."""
    ways = by_way(results)
    step = _steps(results)[-1]
    base = {(lesson["subject"], lesson["seed"]): lesson["rows"][step] for lesson in ways.pop(_BASELINE, [])}
    own = [mean([row[name] for row in base.values()], digits) for name, _, digits in _COLUMNS]
    rows = [[_BASELINE, str(len(base)), *own]]
    for way, lessons in ways.items():
        pairs = [
            (lesson["rows"][step], base[lesson["subject"], lesson["seed"]])
            for lesson in lessons
            if (lesson["subject"], lesson["seed"]) in base
        ]
        if pairs:
            rows.append([way, str(len(pairs)), *(_difference(pairs, name, digits) for name, _, digits in _COLUMNS)])
    return table(["setting", "lessons", *(title for _, title, _ in _COLUMNS)], rows)


def _difference(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], name: str, digits: int) -> str:
    apart = [own[name] - base[name] for own, base in pairs]
    if len(apart) < 2:
        return f"{apart[0]:+.{digits}f}"
    return f"{statistics.fmean(apart):+.{digits}f} ± {standard_error(apart):.{digits}f}"


def together_table(results: Results) -> str:
    """What pictures show whose prompts name a subject and a style."""
    lessons, steps = list(results.values()), _steps(results)
    names = list(lessons[0]["rows"][steps[-1]])
    rows = [[name, *(mean(values(lessons, step, name)) for step in steps)] for name in names]
    return table([f"lessons: {len(lessons)}", *(f"at {step}" for step in steps)], rows)


def _steps(results: Results) -> list[str]:
    return sorted({step for lesson in results.values() for step in lesson["rows"]}, key=int)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *rows))


def _section(title: str, make: Callable[[Results], str]) -> Callable[[Results], str]:
    return lambda results: f"**{title}**\n\n{make(results)}"


SECTIONS: Mapping[str, Callable[[Results], str]] = {
    "peers": _section("Recipes, all five pictures in each step", ways_table),
    "defaults": _section("Recipes, as many pictures in a step as each program has by itself", ways_table),
    "curves": _section("The default for long", curve_table),
    "switches": _section("One setting at a time, and how far that is from the baseline", switches_table),
    "together": _section("A subject and a style in one prompt", together_table),
}
