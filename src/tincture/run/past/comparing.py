"""Some runs beside each other: how they ended, curves over one another, settings that differ, previews of one step."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tincture.errors import TinctureError, UsageError
from tincture.formats.picture_text import read_parameters
from tincture.kinds.registry import PLACEHOLDER
from tincture.reports.curves import Line, Values, chart
from tincture.reports.document import (
    document,
    legend,
    line_style,
    picture_data,
    section,
    settings_that_differ,
    sheet,
    table,
)
from tincture.reports.plate import Panel, plate
from tincture.reports.smoothing import smooth, spread, window
from tincture.reports.words import plain
from tincture.run.past.past_run import MOST_COMPARED, PastRun, summary
from tincture.settings.train import FIELDS

MOST_POINTS = 400
MOST_STEPS = 8
"""Steps whose previews stand in a report."""
_NO_SETTINGS = frozenset({"log_dir"})
Curve = tuple[Values, Values]


@dataclass(frozen=True)
class Comparison:
    """What is compared; everything is in the order of ``runs``.

    Attributes:
        names: what the runs are called, each in another way.
        curves: by title, steps and values of each run; empty where it has none.
        differing: by setting, the value of each run.
        previews: by step, ascending, and by prompt: the picture of each run, None where it has none.
    """

    runs: Sequence[PastRun]
    names: Sequence[str]
    curves: Mapping[str, Sequence[Curve]]
    differing: Mapping[str, Sequence[Any]]
    previews: Mapping[int, Mapping[str, Sequence[Path | None]]]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: ``curves`` are pairs of lists of one length."""
        return {
            "runs": [summary(run) for run in self.runs],
            "curves": {
                title: [{"step": x.tolist(), "value": y.tolist()} for x, y in curves]
                for title, curves in self.curves.items()
            },
            "settings": {name: list(values) for name, values in self.differing.items()},
            "previews": [
                {"step": step, "prompt": prompt, "pictures": [None if path is None else str(path) for path in paths]}
                for step, rows in self.previews.items()
                for prompt, paths in rows.items()
            ],
        }

    def to_html(self) -> str:
        """A file that stands alone; the previews of the last step are open, earlier ones folded."""
        drawn = "".join(chart(title, _lines(curves, self.names)) for title, curves in self.curves.items())
        earlier, last = [*self.previews][:-1], max(self.previews, default=None)
        heads = ("Setting", *self.names)
        rows = [(name, *map(in_words, values)) for name, values in self.differing.items()]
        same = "" if rows else "<p>None: they have the same settings.</p>"
        folded = "".join(
            f"<details><summary>Step {step:,}</summary>{self._sheet(step)}</details>" for step in reversed(earlier)
        )
        results = [(name, *_result(run)) for name, run in zip(self.names, self.runs, strict=True)]
        return document(
            f"{len(self.runs)} runs",
            (
                section("Runs", legend(self.names), table(_HEADS, results)),
                section("Curves", f'<div class="charts">{drawn}</div>' if drawn else "<p>None was written down.</p>"),
                section("Settings that differ", same or table(heads, rows)),
                section("Previews", "" if last is None else f"<p>Step {last:,}</p>{self._sheet(last)}{folded}"),
            ),
        )

    def to_png(self) -> bytes:
        """A picture of the same: curves, settings that differ, previews of the last step."""
        panels = [Panel(title, _lines(curves, self.names)) for title, curves in self.curves.items()]
        rows = [[name, *map(in_words, values)] for name, values in self.differing.items()]
        last = max(self.previews, default=None)
        shown = {} if last is None else self.previews[last]
        title = "" if last is None else f"Previews at step {last:,}"
        return plate(self.names, panels, rows, title, shown)

    def _sheet(self, step: int) -> str:
        rows = [
            (prompt, [picture_data(path) if path else "" for path in paths])
            for prompt, paths in self.previews[step].items()
        ]
        return sheet(self.names, rows)


_PROMPTS = ("preview_prompts", "preview_negative_prompt", "negative_prompt")
_HEADS = ("Run", "State", "Step", "Loss", "Best by validation", "Kind", "Model")


def compare(runs: Sequence[PastRun], *, smoothing: float = 30.0, step: int | None = None) -> Comparison:
    """Compares runs.

    Args:
        smoothing: of the training loss: 0 shows every step, 100 the mean over a fourth of the run.
        step: of the previews; None: all that the runs have in common, some of them where they are many.

    Raises:
        UsageError: there are too few or too many, one stands there twice, or none has previews of that step.
    """
    folders = [run.folder.resolve() for run in runs]
    twice = next((run.id for run, folder in zip(runs, folders, strict=True) if folders.count(folder) > 1), "")
    if twice:
        raise UsageError(f"The run {twice} is given twice; give each once.")
    if len(runs) < 2 or len(runs) > MOST_COMPARED:
        raise UsageError(f"{len(runs)} run{'s' * (len(runs) != 1)} cannot be compared; give 2 to {MOST_COMPARED}.")
    settings = [dict(_settings(run)) for run in runs]
    differing = {name: [each.get(name) for each in settings] for name in settings_that_differ(settings)}
    ordered = sorted(differing, key=lambda name: [*FIELDS].index(name) if name in FIELDS else len(FIELDS))
    titled = zip(_TITLES, zip(*(_curves(run, smoothing) for run in runs), strict=True), strict=True)
    curves = {title: found for title, found in titled if any(len(x) for x, _ in found)}
    return Comparison(runs, _names(runs), curves, {name: differing[name] for name in ordered}, _previews(runs, step))


_TITLES = ("Loss", "Validation loss", "Learning rate")


def _settings(run: PastRun) -> Iterator[tuple[str, Any]]:
    """Those that are compared; in prompts, the adapter's own name is [name], since it says nothing there."""
    own = _own_name(run)
    for key, value in run.settings.items():
        if key in _PROMPTS:
            value = [own.sub(PLACEHOLDER, text) for text in value] if isinstance(value, list) else value
            value = own.sub(PLACEHOLDER, value) if isinstance(value, str) else value
        if key not in _NO_SETTINGS:
            yield key, value


def _own_name(run: PastRun) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(run.name)}(?!\w)" if run.name else r"(?!)")


def _curves(run: PastRun, smoothing: float) -> Iterator[Curve]:
    logged = run.losses()
    steps, losses = np.asarray(logged["step"]), np.asarray(logged["loss"])
    yield spread(steps, smooth(losses, window(smoothing, len(losses))), MOST_POINTS)
    measured_steps, measured = run.validations()
    yield spread(np.asarray(measured_steps), np.asarray(measured), MOST_POINTS)
    yield spread(steps, np.asarray(logged["learn_rate"]), MOST_POINTS)


def _lines(curves: Sequence[Curve], names: Sequence[str]) -> list[Line]:
    return [
        Line(x, y, f"line {line_style(number)}", name=name)
        for number, ((x, y), name) in enumerate(zip(curves, names, strict=True))
    ]


def _names(runs: Sequence[PastRun]) -> list[str]:
    """The last part of each id, as far as these differ."""
    short = [run.folder.name for run in runs]
    return short if len(set(short)) == len(short) else [run.id for run in runs]


def _result(run: PastRun) -> Iterator[str]:
    yield run.state
    yield f"{run.global_step:,} of {run.steps:,}"
    yield "" if run.loss is None else f"{run.loss:.4f}"
    yield "" if run.best is None else f"{run.best[1]:.4f} at step {run.best[0]:,}"
    yield run.kind
    yield run.model


def in_words(value: Any) -> str:
    """A setting's value in words; a dash for what says nothing."""
    return plain(value) or "–"


def _previews(runs: Sequence[PastRun], step: int | None) -> dict[int, dict[str, list[Path | None]]]:
    """Those of some steps, by prompt, in which an adapter's own name is [name]."""
    common = set.intersection(*(set(run.previews) for run in runs))
    if step is not None and not any(step in run.previews for run in runs):
        steps = ", ".join(map(str, sorted(common)[:20])) or "none in common"
        raise UsageError(f"--step is {step}, of which no run has previews; there are: {steps}.")
    chosen = [step] if step is not None else _some(sorted(common))
    prompts = [_prompts(run) for run in runs]
    found: dict[int, dict[str, list[Path | None]]] = {}
    for each in chosen:
        rows = found.setdefault(each, {})
        for place, (run, named) in enumerate(zip(runs, prompts, strict=True)):
            for number, path in enumerate(run.previews.get(each, ())):
                prompt = named[number] if number < len(named) else f"Preview {number + 1}"
                rows.setdefault(prompt, [None] * len(runs))[place] = path
    return found


def _some(steps: Sequence[int]) -> list[int]:
    """At most ``MOST_STEPS``, the first and the last among them."""
    if len(steps) <= MOST_STEPS:
        return list(steps)
    return [steps[place] for place in np.linspace(0, len(steps) - 1, MOST_STEPS).round().astype(int)]


def _prompts(run: PastRun) -> list[str]:
    """The prompts of a run's previews, as the pictures have them."""
    pictures = next(iter(run.previews.values()), [])
    own = _own_name(run)
    found: list[str] = []
    for number, path in enumerate(pictures, start=1):
        parameters = None
        with contextlib.suppress(TinctureError):  # it was deleted meanwhile
            parameters = read_parameters(path)
        prompt = own.sub(PLACEHOLDER, parameters.prompt) if parameters else f"Preview {number}"
        found.append(f"{prompt} ({number})" if prompt in found else prompt)
    return found
