"""Two runs or more beside each other: their curves in one chart, their previews by prompt, and in what they differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tincture.reports.curves import Line, chart
from tincture.reports.smoothing import smooth, spread, window
from tincture.run.duration import in_words
from tincture.server.page.parts.fields import label_of
from tincture.server.page.parts.markup import escape, plain, when
from tincture.server.page.runs.film_strip import rows_of
from tincture.server.queue.history import Trace
from tincture.server.queue.jobs import Job

MOST = 6
"""Runs that are compared at once: as many as there are colours."""
MOST_POINTS = 240
Compared = Sequence[tuple[Job, Trace]]


def chosen_ids(text: str) -> list[str]:
    """The ids that the page remembers, in the order in which they were chosen."""
    return text.split()


def toggled(text: str, job_id: str) -> str:
    """The same with ``job_id`` chosen, or not any more; of too many, the first are forgotten."""
    ids = chosen_ids(text)
    ids = [each for each in ids if each != job_id] if job_id in ids else [*ids, job_id][-MOST:]
    return " ".join(ids)


def name_of(place: int, job: Job) -> str:
    """What a run is called among others that may have its name."""
    return f"{chr(ord('A') + place)}: {job.name}"


def head(compared: Compared) -> str:
    """Which runs they are, each with its colour and how it ended."""
    rows = "".join(
        f'<tr><th scope="row"><i class="key line-{place}"></i>{escape(name_of(place, job))}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in _result(job, trace))
        + "</tr>"
        for place, (job, trace) in enumerate(compared)
    )
    titles = "".join(f'<th scope="col">{title}</th>' for title in ("Run", "Step", "Loss", "Best", "Took", "Ended"))
    return (
        f'<section class="run"><div class="top"><h2>{len(compared)} runs</h2></div><div class="wide">'
        f'<table class="compared"><thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table></div></section>'
    )


def _result(job: Job, trace: Trace) -> Iterator[str]:
    measured = [each for each in trace.validations if each.loss is not None]
    best = min(measured, key=lambda each: each.loss or 0.0, default=None)
    yield f"{job.global_step:,} of {job.steps:,}"
    yield "" if job.loss is None else f"{job.loss:.4f}"
    yield "" if best is None else f"{best.loss:.4f} at step {best.global_step:,}"
    yield "" if job.started_at is None or job.ended_at is None else in_words(job.ended_at - job.started_at)
    yield when(job.ended_at)


def charts(compared: Compared, smoothing: float) -> str:
    """Loss, validation and learning rate, a line per run in each."""
    drawn = "".join(
        chart(title, [Line(*points(trace), f"line line-{place}") for place, (_, trace) in enumerate(compared)])
        for title, points in _curves(smoothing)
    )
    return f'<div class="charts many">{drawn}</div>' if drawn else ""


Points = Callable[[Trace], tuple[Any, Any]]


def _curves(smoothing: float) -> Iterator[tuple[str, Points]]:
    def loss(trace: Trace) -> tuple[Any, Any]:
        values = np.asarray(trace.loss)
        return spread(np.asarray(trace.global_step), smooth(values, window(smoothing, len(values))), MOST_POINTS)

    def validation(trace: Trace) -> tuple[Any, Any]:
        rows = [(each.global_step, each.loss) for each in trace.validations if each.loss is not None]
        table = np.array(rows, dtype=np.float64).reshape(-1, 2)
        return spread(table[:, 0], table[:, 1], MOST_POINTS)

    def rate(trace: Trace) -> tuple[Any, Any]:
        return spread(np.asarray(trace.global_step), np.asarray(trace.learning_rate), MOST_POINTS)

    yield "Loss", loss
    yield "Validation loss", validation
    yield "Learning rate", rate


def frames(compared: Compared) -> dict[str, Any]:
    """For the film strip: by prompt, the picture of each run beside those of the others."""
    rows = [
        (row["prompt"], place, {**row, "prompt": f"{name_of(place, job)} – {row['prompt']}"})
        for place, (job, trace) in enumerate(compared)
        for row in rows_of(trace.previews, trace.prompts or job.settings.get("preview_prompts") or ())
    ]
    order = list(dict.fromkeys(prompt for prompt, _, _ in rows))
    rows.sort(key=lambda row: (order.index(row[0]), row[1]))
    run = " ".join(job.id for job, _ in compared)
    shown = {"run": run, "before": False, "columns": len(compared), "rows": [row for _, _, row in rows]}
    return shown if rows else {}


def differences(jobs: Sequence[Job]) -> str:
    """A table of the settings in which they differ, a column per run."""
    names = list(dict.fromkeys(name for job in jobs for name in job.settings))
    rows = "".join(_row(name, jobs) for name in names if _differs([job.settings.get(name) for job in jobs]))
    if not rows:
        return '<h3>Settings that differ</h3><p class="quiet">None: they have the same settings.</p>'
    heads = "".join(f'<th scope="col">{escape(name_of(place, job))}</th>' for place, job in enumerate(jobs))
    return (
        '<h3>Settings that differ</h3><div class="wide"><table class="compared differences">'
        f'<thead><tr><th scope="col">Setting</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _differs(values: Sequence[Any]) -> bool:
    return any(value != values[0] for value in values)


def _row(name: str, jobs: Sequence[Job]) -> str:
    cells = "".join(f"<td>{escape(plain(job.settings.get(name)) or '–')}</td>" for job in jobs)
    return f'<tr><th scope="row">{escape(label_of(name))}</th>{cells}</tr>'
