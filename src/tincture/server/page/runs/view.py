"""Jobs as HTML: cards of the queue, and what is told of the one that is looked at."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from tincture.events import RATE_OF, VECTOR_NORM
from tincture.reports.curves import Line, Values, chart
from tincture.reports.smoothing import smooth, spread, thin, window
from tincture.run.duration import in_words
from tincture.server.page.parts.fields import in_labels
from tincture.server.page.parts.markup import escape, facts, fault, muted, plain, warning, when
from tincture.server.page.train.labels import TRAIN_LABELS
from tincture.server.queue.history import Trace, Validation
from tincture.server.queue.jobs import FINISHED, Job, JobState, Lane

NOW = "Now"
MOST_POINTS = 480
"""Of the noisy line of a chart; the smooth one takes half as many."""
_TITLES = {VECTOR_NORM: "Norm of the longest vector, of tokens 1"}
_STATES = {
    JobState.QUEUED: "waiting",
    JobState.RUNNING: "running",
    JobState.PAUSED: "paused",
    JobState.DONE: "done",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
}
_WANTED = {
    "paused": "pauses after this step",
    "cancelled": "stops after this step",
    "interrupted": "ends after this step",
}


LANES: Mapping[Lane, str] = MappingProxyType(
    {
        "training": "waits its turn among trainings",
        "preprocessing": "waits its turn in the lane of preprocessing, which goes on beside trainings",
    }
)
"""What a job waits for where it waits for no other job by name."""


def state_words(job: Job) -> str:
    """Its state in words, with what it was asked to become."""
    if job.state is JobState.RUNNING and job.wanted is not None:
        return _WANTED[job.wanted]
    return job.outcome or _STATES[job.state]


def kind_words(job: Job) -> str:
    """``embedding``, ``hypernetwork`` or ``preprocess``."""
    return str(job.settings.get("kind", "training")) if job.kind == "train" else job.kind


# --- the queue --------------------------------------------------------------------------------------------------------


def cards(
    jobs: Sequence[Job],
    shown: str,
    compared: Sequence[str] = (),
    thumbnail: Callable[[str], str] = lambda path: "",
) -> str:
    """Jobs to choose from.

    Args:
        shown: the id of the one that is marked.
        compared: ids of those that are compared.
        thumbnail: gives the address of a small copy of a picture, empty for none.
    """
    listed = "".join(_entry(job, shown, compared, thumbnail(job.preview)) for job in jobs)
    return f'<div class="jobs">{listed}</div>' if jobs else ""


def _entry(job: Job, shown: str, compared: Sequence[str], picture: str) -> str:
    """A card, and for a training a button beside it that chooses it for a comparison."""
    card = _card(job, shown, picture)
    if job.kind != "train":
        return f'<div class="entry">{card}</div>'
    pressed = "true" if job.id in compared else "false"
    return (
        f'<div class="entry">{card}<button type="button" class="pick" data-compare="{escape(job.id)}" '
        f'aria-pressed="{pressed}" aria-label="Compare {escape(job.name)}" title="Compare">⇄</button></div>'
    )


def _card(job: Job, shown: str, picture: str) -> str:
    pressed = "true" if job.id == shown else "false"
    image = f'<img class="thumb" src="{escape(picture)}" alt="">' if picture else ""
    return (
        f'<button type="button" class="job {job.state}" data-job="{escape(job.id)}" aria-pressed="{pressed}">{image}'
        f'<span class="top"><b>{escape(job.name)}</b><span class="chip">{escape(state_words(job))}</span></span>'
        f'<span class="low">{escape(" · ".join(_short(job)))}</span>{_bar(job)}</button>'
    )


def _short(job: Job) -> Iterator[str]:
    yield kind_words(job)
    if job.steps:
        yield f"{job.global_step:,} / {job.steps:,}"
    if job.stage and job.state in (JobState.QUEUED, JobState.RUNNING):
        yield job.stage
    if job.state is JobState.RUNNING:
        if job.loss is not None:
            yield f"loss {job.loss:.4f}"
        if job.eta_s is not None:
            yield f"{in_words(job.eta_s)} left"
    if job.priority:
        yield f"priority {job.priority}"
    if job.device and job.device != "auto":
        yield job.device
    if job.state in FINISHED and job.ended_at is not None:
        yield when(job.ended_at)


def _bar(job: Job) -> str:
    if job.state not in (JobState.RUNNING, JobState.PAUSED):
        return ""
    return f'<span class="bar"><i style="width:{job.progress * 100:.1f}%"></i></span>'


def summary(counts: Mapping[str, int]) -> str:
    """How many jobs there are in each state, in a line."""
    parts = [f"{counts[state]} {words}" for state, words in _STATES.items() if counts.get(state)]
    return muted(" · ".join(parts) if parts else "No jobs yet: start one in the tab Train.")


# --- the job that is looked at ----------------------------------------------------------------------------------------


def head(job: Job, trace: Trace) -> str:
    """Name, state, progress and the numbers of now."""
    percent = f"{job.progress * 100:.1f}"
    numbers = "".join(
        f'<div class="{"now" if label == NOW else ""}"><dt>{escape(label)}</dt><dd>{escape(text)}</dd></div>'
        for label, text in _numbers(job, trace)
        if text
    )
    return (
        f'<section class="run {job.state}"><div class="top"><h2>{escape(job.name)}</h2>'
        f'<span class="chip">{escape(state_words(job))}</span></div>'
        f'<div class="bar" role="progressbar" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{percent}" '
        f'aria-label="Progress"><i style="width:{percent}%"></i></div><dl class="numbers">{numbers}</dl>'
        f"{fault(in_labels(job.error, TRAIN_LABELS)) if job.error else ''}"
        f"{warning(job.ending) if job.ending else ''}</section>"
    )


def _numbers(job: Job, trace: Trace) -> Iterator[tuple[str, str]]:
    running = job.state is JobState.RUNNING
    yield NOW, _now(job)
    what = "Step" if job.kind == "train" else "Pictures"
    yield what, f"{job.global_step:,} of {job.steps:,}" if job.steps else ""
    yield "Epoch", f"{trace.epoch + 1:,}" if trace.epoch is not None else ""
    yield "Loss", _loss(job, trace)
    yield "Learning rate", f"{job.learning_rate:.3g}" if job.learning_rate is not None else ""
    yield "Speed", _speed(trace.speed) if running else ""
    yield "Time left", in_words(job.eta_s) if running else ""
    yield "Took" if job.state in FINISHED else "Running for", in_words(_seconds(job))
    yield "Device", job.device if job.device != "auto" else ""


def _now(job: Job) -> str:
    """What it does, or waits for."""
    if job.state is JobState.RUNNING:
        return job.stage or ("training" if job.kind == "train" and job.steps else "")
    return job.stage or LANES[job.lane] if job.state is JobState.QUEUED else ""


def _loss(job: Job, trace: Trace) -> str:
    if trace.loss_mean is not None:
        return f"{trace.loss_mean:.4f}" + (f" ± {trace.loss_error:.4f}" if trace.loss_error is not None else "")
    return f"{job.loss:.4f}" if job.loss is not None else ""


def _speed(speed: float | None) -> str:
    if not speed:
        return ""
    return f"{speed:.1f} steps/s" if speed >= 1 else f"{1 / speed:.1f} s/step"


def _seconds(job: Job) -> float | None:
    if job.started_at is None or job.state in (JobState.QUEUED, JobState.PAUSED):
        return None
    return (job.ended_at if job.state in FINISHED and job.ended_at else time.time()) - job.started_at


def charts(trace: Trace, smoothing: float) -> str:
    """The curves of loss and learning rate; empty before the first step."""
    if not len(trace.global_step):
        return ""
    step, loss = np.asarray(trace.global_step), np.asarray(trace.loss)
    over = window(smoothing, len(loss))
    # A line drawn through noise hides it: with a smooth line above it, the noise stands back.
    raw = Line(*thin(step, loss, MOST_POINTS), "faint" if over > 1 else "strong")
    best = _best_mark(trace.validations, raw)
    lines = [*best, raw]
    if over > 1:
        smoothed = smooth(loss, over)
        lines.append(Line(*spread(step, smoothed, MOST_POINTS // 2), "strong"))
    rate = Line(*_corners(step, np.asarray(trace.learning_rate)), "strong")
    note = f"mean over {over} steps" if over > 1 else "every step"
    validation = _validation(trace.validations)
    drawn = chart("Loss", lines, note=note) + validation + chart("Learning rate", [rate]) + _effective(step, trace)
    drawn += "".join(_further(step, name, values) for name, values in trace.further.items())
    return f'<div class="charts{" many" if validation or trace.further else ""}">{drawn}</div>'


def _effective(step: Values, trace: Trace) -> str:
    """The curve of the rate by an optimizer that finds its own."""
    rate = np.asarray(trace.effective_rate)
    known = np.isfinite(rate)
    return chart("Effective learning rate", [Line(*thin(step[known], rate[known], MOST_POINTS), "strong")])


def _further(step: Values, name: str, values: Sequence[float]) -> str:
    """The curve of a further number: the rate of another adapter, or the norm of the longest vector."""
    number, is_rate = np.asarray(values), name.startswith(RATE_OF)
    known = np.isfinite(number)
    title = f"Learning rate of {name.removeprefix(RATE_OF)}" if is_rate else _TITLES.get(name, name)
    points = _corners(step[known], number[known]) if is_rate else thin(step[known], number[known], MOST_POINTS)
    return chart(title, [Line(*points, "strong")])


def _best_mark(measured: Sequence[Validation], loss: Line) -> list[Line]:
    """A line across the losses of training, at the step where validation was best."""
    known = [(each.loss, each.global_step) for each in measured if each.loss is not None]
    if not known or not len(loss.y):
        return []
    _, step = min(known)
    low, high = np.quantile(loss.y, (0.01, 0.99))
    return [Line(np.array([step, step], dtype=np.float64), np.array([low, high]), "mark")]


def _validation(measured: Sequence[Validation]) -> str:
    """The curve of pictures that are not trained above that of some that are, with the best one marked."""
    rows = [(each.global_step, each.loss, each.training_loss) for each in measured]
    table = np.array([row for row in rows if None not in row], dtype=np.float64).reshape(-1, 3)
    if not len(table):
        return ""
    step, loss, trained = (column[-MOST_POINTS:] for column in table.T)
    best = int(np.argmin(loss))
    ends = np.array([min(loss.min(), trained.min()), max(loss.max(), trained.max())])
    lines = [
        Line(step[[best, best]], ends, "mark"),
        Line(step, trained, "dashed"),
        Line(step, loss, "strong"),
    ]
    note = f"best {loss[best]:.4f} at step {step[best]:,.0f}; dashed: trained"
    return chart("Validation loss", lines, note=note)


def _corners(step: Values, rate: Values) -> tuple[Values, Values]:
    """The steps at which the rate changes, and those before them: all that a line of straight pieces needs."""
    changes = np.flatnonzero(np.diff(rate, prepend=np.nan) != 0)
    chosen = np.unique(np.concatenate([changes, np.maximum(changes - 1, 0), [len(rate) - 1]])).astype(np.int64)
    return spread(step[chosen], rate[chosen], MOST_POINTS // 2)


def log(text: str) -> str:
    """The end of what the job printed."""
    return f'<h3>Log</h3><pre class="log" tabindex="0">{escape(text)}</pre>' if text.strip() else ""


def details(job: Job, trace: Trace) -> str:
    """Its result, what it told on its way, and its settings."""
    result = facts((key.replace("_", " "), plain(value)) for key, value in job.result.items())
    texts = [trace.model, *trace.remarks]
    remarks = "".join(f"<li>{escape(text)}</li>" for text in texts if text)
    return "".join(
        f"<h3>{title}</h3>{content}"
        for title, content in (
            ("Result", result),
            ("Remarks", f"<ul>{remarks}</ul>" if remarks else ""),
            ("Job", facts(_job_rows(job))),
            ("Settings", facts((key.replace("_", " "), plain(value)) for key, value in job.settings.items())),
        )
        if content
    )


def _job_rows(job: Job) -> Iterator[tuple[str, str]]:
    yield "id", job.id
    yield "kind", kind_words(job)
    yield "submitted", f"{when(job.created_at)} by {job.source}"
    yield "began", when(job.started_at)
    yield "ended", when(job.ended_at)
    yield "begun how often", str(job.attempts) if job.attempts > 1 else ""
    yield "priority", str(job.priority)
    yield "time limit", in_words(job.timeout_s)
    yield "GPUs and CPUs asked for", ", ".join(f"{n} {of}" for n, of in ((job.gpus, "GPUs"), (job.cpus, "CPUs")) if n)
    yield "run folder", job.run_dir or ""
