"""What can be done with a run, as buttons: try what it learned, train it further, compare, download, copy its path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tincture.server.page.parts.markup import served_url
from tincture.server.page.parts.way_on import download, path_to_copy, way, ways
from tincture.server.queue.history import Trace
from tincture.server.queue.jobs import Job, JobState

SLACK_S = 2.0
"""Seconds after its end up to which a file counts as the run's own: what is written later is another's work."""


def leading_on(job: Job, trace: Trace, served: Sequence[Path]) -> str:
    """The buttons for a job as it stands.

    Args:
        served: folders whose files the page may give out.
    """
    return ways(*(_after_preprocessing(job) if job.kind == "preprocess" else _after_training(job, trace, served)))


def _after_preprocessing(job: Job) -> Iterator[str]:
    folder = str(job.result.get("destination") or "")
    if job.state is JobState.DONE and folder:
        yield way("Use this data set", "data", folder, strong=True)
        yield way("Open data set", "dataset", folder)
        yield path_to_copy(folder)


def _after_training(job: Job, trace: Trace, served: Sequence[Path]) -> Iterator[str]:
    learned, folder = trained_files(job, trace), job.run_dir or ""
    if job.state is not JobState.RUNNING and any(not path.is_relative_to(folder) for _, path in learned):
        yield way("Try it", "try", job.id, strong=True)
    if learned and job.state is JobState.DONE:
        yield way("Train further", "settings", f"{job.id} more")
    if "kind" in job.settings:
        yield way("Use settings", "settings", job.id)
        yield way("Compare", "compare", job.id)
    for step, path in learned:
        if url := served_url(path, served):
            at = "" if step == job.global_step else f", step {step:,}"
            yield download(url, path.name, f"Download {path.name}{at}")
    if folder:
        yield path_to_copy(folder)


def trained_files(job: Job, trace: Trace) -> list[tuple[int, Path]]:
    """The files of what a run learned, with the step of each: those of its latest step, and the best by validation.

    Never what it began with, nor what was written to the same place after its end, such as a new adapter of that name.
    """
    best = _best(job)
    saved = [(step, path) for path, step in trace.saved.items() if step > 0 and _is_own(path, job)]
    latest = max((step for step, path in saved if path not in best), default=0)
    chosen = [(step, path) for step, path in saved if step == latest and path not in best]
    return [*chosen, *((step, path) for step, path in saved if path in best)]


def _best(job: Job) -> set[Path]:
    """By validation, of each adapter that was trained."""
    results = [job.result, *job.result.get("companions", ())]
    return {Path(result["best_path"]) for result in results if result.get("best_path")}


def _is_own(path: Path, job: Job) -> bool:
    try:
        written = path.stat().st_mtime
    except OSError:
        return False  # it was deleted, or moved
    return job.ended_at is None or written <= job.ended_at + SLACK_S
