"""What the Runs tab answers: what changed of the queue, and of the run or the runs that are shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from tincture.server.errors import NotFoundError
from tincture.server.library.storage import served_folders
from tincture.server.page.parts.markup import muted
from tincture.server.page.runs import comparison, view
from tincture.server.page.runs.film_strip import frames
from tincture.server.page.runs.ways_on import leading_on
from tincture.server.queue.history import Trace
from tincture.server.queue.jobs import Job, JobState

if TYPE_CHECKING:
    from tincture.server.page.runs.tab import RunsTab
    from tincture.server.service import Service

LONGEST_LOG = 20_000
"""Bytes of the log that are shown: the last ones."""
WHICH: Mapping[str, tuple[JobState, ...]] = {
    "All": (),
    "Active": (JobState.RUNNING, JobState.QUEUED, JobState.PAUSED),
    "Ended": (JobState.DONE, JobState.FAILED, JobState.CANCELLED),
}


@dataclass(frozen=True)
class Request:
    """What a page shows: the job, the list and the curves that were chosen."""

    chosen: str
    compared: str
    limit: int
    which: str
    search: str
    smoothing: float


class Updates:
    """Collects what changed since a page's last answer, so that nothing is sent twice.

    Args:
        seen: by the names of parts, what stands for that which the page shows.
    """

    def __init__(self, seen: Mapping[str, object]) -> None:
        self.seen, self.values = dict(seen), dict[Any, Any]()

    def add(self, component: Any, name: str, value: Any, **properties: Any) -> None:
        """Sends ``value`` (and properties of the component) unless the page shows the same already."""
        digest = hash((repr(value), repr(properties)))
        if self.seen.get(name) != digest:
            self.seen[name] = digest
            self.values[component] = type(component)(value=value, **properties) if properties else value


def answer(service: Service, tab: RunsTab, request: Request, seen: Mapping[str, object]) -> dict[Any, Any]:
    updates = Updates(seen)
    shown = shown_job(service, request.chosen)
    _add_queue(service, tab, request, updates, shown)
    compared = _compared(service, request.compared)
    if len(compared) > 1:
        _add_comparison(tab, request, updates, compared)
    elif shown is None:
        _add_nothing(tab, updates)
    else:
        _add_run(service, tab, request, updates, shown, service.queue.folder(shown.id).trace())
    updates.add(tab.shown, "shown", shown.id if shown else "")
    return {**updates.values, tab.seen: updates.seen}


def shown_job(service: Service, chosen: str) -> Job | None:
    """The job that was chosen; without one, what runs, else what comes next, else what ended last."""
    if chosen:
        try:
            return service.queue.job(chosen)
        except NotFoundError:
            pass  # deleted
    return next(iter(service.queue.jobs(limit=1)), None)


def _add_queue(service: Service, tab: RunsTab, request: Request, updates: Updates, shown: Job | None) -> None:
    jobs = service.queue.jobs(WHICH[request.which], limit=request.limit + 1, search=request.search or "")
    compared = comparison.chosen_ids(request.compared)
    marked = shown.id if shown and len(compared) < 2 else ""
    running = [job for job in jobs[: request.limit] if job.state is JobState.RUNNING]
    others = [job for job in jobs[: request.limit] if job.state is not JobState.RUNNING]
    updates.add(tab.counts, "counts", view.summary(service.about()["jobs"]) + _hint(request, bool(jobs)))
    updates.add(tab.running, "running", view.cards(running, marked, compared, tab.thumbnails))
    updates.add(tab.others, "others", view.cards(others, marked, compared, tab.thumbnails))
    _add_visible(tab.more, "more", len(jobs) > request.limit, updates)


def _hint(request: Request, found: bool) -> str:
    """What the list waits for, in a sentence."""
    if len(comparison.chosen_ids(request.compared)) == 1:
        return muted("One run is chosen to be compared: choose another by its ⇄.")
    return "" if found or not (request.search or "").strip() else muted("No run has all these words.")


def _compared(service: Service, chosen: str) -> list[tuple[Job, Trace]]:
    """The jobs that are compared with what they reported, those that were deleted left out."""
    found = []
    for job_id in comparison.chosen_ids(chosen)[: comparison.MOST]:
        try:
            found.append((service.queue.job(job_id), service.queue.folder(job_id).trace()))
        except NotFoundError:
            continue
    return found


def _add_comparison(tab: RunsTab, request: Request, updates: Updates, compared: comparison.Compared) -> None:
    updates.add(tab.head, "head", comparison.head(compared))
    for label, button in tab.buttons.items():
        _add_visible(button, label, False, updates)
    for component, name in ((tab.ways, "ways"), (tab.log, "log")):
        updates.add(component, name, "")
    charts = comparison.charts(compared, request.smoothing)
    updates.add(tab.charts, "charts", charts)
    _add_visible(tab.smoothing, "Smoothing", bool(charts), updates)
    updates.add(tab.differences, "differences", comparison.differences([job for job, _ in compared]))
    updates.add(tab.previews, "previews", comparison.frames(compared))
    updates.add(tab.details, "details", "")
    _add_visible(tab.more_about, "more about", False, updates)


def _add_nothing(tab: RunsTab, updates: Updates) -> None:
    updates.add(tab.head, "head", muted("Runs are shown here, while they go on and afterwards."))
    for component, name in ((tab.charts, "charts"), (tab.log, "log"), (tab.details, "details")):
        updates.add(component, name, "")
    updates.add(tab.ways, "ways", "")
    updates.add(tab.differences, "differences", "")
    updates.add(tab.previews, "previews", {})
    for component in (tab.smoothing, *tab.buttons.values()):
        _add_visible(component, component.label or component.value, False, updates)


def _add_run(service: Service, tab: RunsTab, request: Request, updates: Updates, job: Job, trace: Trace) -> None:
    updates.add(tab.head, "head", view.head(job, trace))
    updates.add(tab.differences, "differences", "")
    _add_visible(tab.more_about, "more about", True, updates)
    for label, button in tab.buttons.items():
        _add_visible(button, label, tab.offers(label, job), updates)
    served = served_folders(service.workspace, service.state_dir)
    updates.add(tab.ways, "ways", leading_on(job, trace, served))
    updates.add(tab.charts, "charts", view.charts(trace, request.smoothing))
    _add_visible(tab.smoothing, "Smoothing", len(trace.loss) > 0, updates)
    prompts = trace.prompts or job.settings.get("preview_prompts") or ()
    updates.add(tab.previews, "previews", frames(job.id, trace.previews, prompts))
    updates.add(tab.log, "log", view.log(service.queue.folder(job.id).log_tail(LONGEST_LOG)))
    updates.add(tab.details, "details", view.details(job, trace))


def _add_visible(component: Any, name: str, visible: bool, updates: Updates) -> None:
    if updates.seen.get(name) != visible:
        updates.seen[name] = visible
        updates.values[component] = gr.update(visible=visible)
