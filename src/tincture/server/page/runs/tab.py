"""The Runs tab: the queue, and the run that is shown, live.

Every second each open page asks what changed, and only that is sent: see ``_Updates``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.context import Context

from tincture.errors import TinctureError
from tincture.server.errors import NotFoundError
from tincture.server.library.storage import served_folders
from tincture.server.page.parts import plot
from tincture.server.page.parts.components import panel
from tincture.server.page.parts.markup import escape, muted
from tincture.server.page.parts.requests import COMMAND, SILENT, STEP, TYPED, hidden
from tincture.server.page.parts.way_on import Ways, carried
from tincture.server.page.runs import view
from tincture.server.page.runs.film_strip import film_strip, frames
from tincture.server.page.runs.ways_on import leading_on
from tincture.server.queue.history import Trace
from tincture.server.queue.jobs import FINISHED, Job, JobState

if TYPE_CHECKING:
    from tincture.server.service import Service

CHOOSE = """element.addEventListener("click", (event) => {
  const card = event.target.closest("[data-job]");
  if (!card) return;
  trigger("click", { job: card.dataset.job });
  if (window.innerWidth < 800) document.querySelector("#run-head")?.scrollIntoView({ behavior: "smooth" });
});"""
STAY_AT_END = """let follows = true;
const log = () => element.querySelector(".log");
const goOn = () => { if (follows && log()) log().scrollTop = log().scrollHeight; };
element.addEventListener("scroll", () => {
  follows = log().scrollTop + log().clientHeight > log().scrollHeight - 30;
}, true);
watch("value", goOn);
goOn();"""
PAGE_OF_JOBS = 40
LONGEST_LOG = 20_000
"""Bytes of the log that are shown: the last ones."""
EVERY_S = 1.0
AT_ONCE = 4
"""Pages that are answered at the same time."""

WHICH: Mapping[str, tuple[JobState, ...]] = {
    "All": (),
    "Active": (JobState.RUNNING, JobState.QUEUED, JobState.PAUSED),
    "Ended": (JobState.DONE, JobState.FAILED, JobState.CANCELLED),
}
PREVIEW_NOW = "Preview now"
WAITING, RUNNING, PAUSED = JobState.QUEUED, JobState.RUNNING, JobState.PAUSED
# label, in which states it is offered, what it asks of the service
ACTIONS: tuple[tuple[str, frozenset[JobState], Callable[[Service, Job], object]], ...] = (
    (PREVIEW_NOW, frozenset({RUNNING}), lambda service, job: service.queue.preview(job.id)),
    ("Pause", frozenset({RUNNING, WAITING}), lambda service, job: service.queue.pause(job.id)),
    ("Resume", frozenset({PAUSED}), lambda service, job: service.queue.resume(job.id)),
    ("Retry", frozenset({JobState.FAILED, JobState.CANCELLED}), lambda service, job: service.queue.retry(job.id)),
    ("Cancel", frozenset({RUNNING, WAITING, PAUSED}), lambda service, job: service.queue.cancel(job.id)),
    ("Move up", frozenset({WAITING}), lambda service, job: _move(service, job, first=False)),
    ("Move first", frozenset({WAITING}), lambda service, job: _move(service, job, first=True)),
    ("Delete", FINISHED | {PAUSED}, lambda service, job: service.queue.delete(job.id)),
)


def build(service: Service, ways: Ways) -> None:
    """Fills the Runs tab; ``ways``: what leads here from elsewhere."""
    tab = RunsTab()
    shared: dict[str, Any] = {**SILENT, "concurrency_limit": AT_ONCE}
    inputs = [tab.chosen, tab.which, tab.limit, tab.smoothing, tab.seen]

    def refresh(chosen: str, which: str, limit: int, smoothing: float, seen: dict[str, int]) -> dict[Any, Any]:
        return _answer(service, tab, _Request(chosen, which, limit, smoothing), seen)

    def choose(event: gr.EventData, *given: Any) -> dict[Any, Any]:
        job_id = carried(event) or str(event._data["job"])
        return {**refresh(job_id, *given[1:]), tab.chosen: job_id}

    def more(*given: Any) -> dict[Any, Any]:
        limit = given[2] + PAGE_OF_JOBS
        return {**refresh(given[0], given[1], limit, *given[3:]), tab.limit: limit}

    def act_and_refresh(label: str, shown: str, *given: Any) -> dict[Any, Any]:
        try:
            act(service, label, shown)
            if label == PREVIEW_NOW:
                gr.Info("Previews are drawn after the present step.", duration=4)
        except TinctureError as error:
            gr.Warning(escape(error))
        return refresh(*given)

    def wind(event: gr.SelectData) -> gr.Timer:
        return gr.Timer(active=isinstance(inside, gr.Tab) and event.value == inside.label)

    page, inside = Context.root_block, Context.block
    assert page is not None
    # One event for both: a page that was loaded again is filled at once.
    gr.on([page.load, tab.timer.tick], refresh, inputs, tab.outputs, **{**COMMAND, **shared})
    if isinstance(inside, gr.Tab) and isinstance(inside.parent, gr.Tabs):
        # Nobody sees what changes in a tab that is not open.
        inside.parent.select(wind, None, tab.timer, **{**STEP, **shared})
        inside.select(refresh, inputs, tab.outputs, **{**STEP, **shared})
    gr.on([tab.which.change, tab.smoothing.input], refresh, inputs, tab.outputs, **{**TYPED, **shared})
    gr.on([tab.running.click, tab.others.click, ways["run"].click], choose, inputs, tab.outputs, **{**STEP, **shared})
    tab.more.click(more, inputs, tab.outputs, **{**STEP, **shared})
    for label, button in tab.buttons.items():
        # Not what would be shown now: another run may have begun since. A job moves up as often as that is pressed.
        mode = STEP if label == "Move up" else COMMAND
        button.click(
            lambda *given, label=label: act_and_refresh(label, *given),
            [tab.shown, *inputs],
            tab.outputs,
            **{**mode, **shared},
        )


def act(service: Service, label: str, job_id: str) -> None:
    """What the button ``label`` does to the job that the page shows.

    Raises:
        ConflictError: the job is not any more what it was when the button was offered.
        NotFoundError: it was deleted.
    """
    do = next(do for name, _, do in ACTIONS if name == label)
    do(service, service.queue.job(job_id))


class RunsTab:
    """The tab's components.

    Attributes:
        chosen: the id of the job that a person chose, empty for none.
        shown: the id of the job that the page shows.
    """

    def __init__(self) -> None:
        self.chosen, self.shown = gr.State(""), hidden()
        self.limit, self.seen = gr.State(PAGE_OF_JOBS), gr.State({})
        self.timer = gr.Timer(EVERY_S, active=not isinstance(Context.block, gr.Tab))
        with gr.Row(elem_classes="runs", equal_height=False):
            with gr.Column(scale=2, min_width=280, elem_id="queue"):
                self._queue()
            with gr.Column(scale=5, min_width=320, elem_id="run"):
                self._run()
        self.outputs = [
            component for component in vars(self).values() if isinstance(component, gr.components.Component)
        ]
        self.outputs = [*self.outputs, *self.buttons.values()]

    def _queue(self) -> None:
        self.which = gr.Radio(list(WHICH), value="All", label="Jobs", show_label=False, container=False)
        self.counts = panel()
        self.running = panel(script=CHOOSE, elem_id="jobs-running")
        self.others = panel(script=CHOOSE, elem_id="jobs-others")
        self.more = gr.Button("Show more", size="sm", visible=False)

    def _run(self) -> None:
        self.head = panel(elem_id="run-head")
        with gr.Row(elem_classes="actions"):
            self.buttons = {label: self._button(label) for label, _, _ in ACTIONS}
        self.ways = panel(elem_id="run-ways")
        self.charts = panel(script=plot.SCRIPT, elem_id="charts")
        self.smoothing = gr.Slider(
            0,
            100,
            30,
            step=1,
            label="Smoothing",
            visible=False,
            elem_id="smoothing",
            info="0 shows every step; 100 the mean over a fourth of the run.",
        )
        self.previews = film_strip()
        self.log = panel(script=STAY_AT_END, elem_id="run-log")
        with gr.Accordion("Result and settings", open=False):
            self.details = panel()

    @staticmethod
    def _button(label: str) -> gr.Button:
        variant = "stop" if label == "Cancel" else "secondary"
        return gr.Button(label, size="sm", variant=variant, visible=False, min_width=80, scale=0)


@dataclass(frozen=True)
class _Request:
    """What a page shows: the job, the list and the curves that were chosen."""

    chosen: str
    which: str
    limit: int
    smoothing: float


class _Updates:
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


def _answer(service: Service, tab: RunsTab, request: _Request, seen: Mapping[str, object]) -> dict[Any, Any]:
    updates = _Updates(seen)
    shown = _shown(service, request.chosen)
    _add_queue(service, tab, request, updates, shown)
    if shown is None:
        _add_nothing(tab, updates)
    else:
        _add_run(service, tab, request, updates, shown, service.queue.folder(shown.id).trace())
    updates.add(tab.shown, "shown", shown.id if shown else "")
    return {**updates.values, tab.seen: updates.seen}


def _shown(service: Service, chosen: str) -> Job | None:
    """The job that was chosen; without one, what runs, else what comes next, else what ended last."""
    if chosen:
        try:
            return service.queue.job(chosen)
        except NotFoundError:
            pass  # deleted
    return next(iter(service.queue.jobs(limit=1)), None)


def _add_queue(service: Service, tab: RunsTab, request: _Request, updates: _Updates, shown: Job | None) -> None:
    jobs = service.queue.jobs(WHICH[request.which], limit=request.limit + 1)
    marked = shown.id if shown else ""
    running = [job for job in jobs[: request.limit] if job.state is RUNNING]
    others = [job for job in jobs[: request.limit] if job.state is not RUNNING]
    updates.add(tab.counts, "counts", view.summary(service.about()["jobs"]))
    updates.add(tab.running, "running", view.cards(running, marked))
    updates.add(tab.others, "others", view.cards(others, marked))
    _add_visible(tab.more, "more", len(jobs) > request.limit, updates)


def _add_nothing(tab: RunsTab, updates: _Updates) -> None:
    updates.add(tab.head, "head", muted("Runs are shown here, while they go on and afterwards."))
    for component, name in ((tab.charts, "charts"), (tab.log, "log"), (tab.details, "details")):
        updates.add(component, name, "")
    updates.add(tab.ways, "ways", "")
    updates.add(tab.previews, "previews", {})
    for component in (tab.smoothing, *tab.buttons.values()):
        _add_visible(component, component.label or component.value, False, updates)


def _add_run(service: Service, tab: RunsTab, request: _Request, updates: _Updates, job: Job, trace: Trace) -> None:
    updates.add(tab.head, "head", view.head(job, trace))
    for label, states, _ in ACTIONS:
        offered = job.state in states and job.wanted is None and (label != PREVIEW_NOW or job.run_dir is not None)
        _add_visible(tab.buttons[label], label, offered, updates)
    served = served_folders(service.workspace, service.state_dir)
    updates.add(tab.ways, "ways", leading_on(job, trace, served))
    updates.add(tab.charts, "charts", view.charts(trace, request.smoothing))
    _add_visible(tab.smoothing, "Smoothing", len(trace.loss) > 0, updates)
    prompts = trace.prompts or job.settings.get("preview_prompts") or ()
    updates.add(tab.previews, "previews", frames(job.id, trace.previews, prompts))
    updates.add(tab.log, "log", view.log(service.queue.folder(job.id).log_tail(LONGEST_LOG)))
    updates.add(tab.details, "details", view.details(job, trace))


def _add_visible(component: Any, name: str, visible: bool, updates: _Updates) -> None:
    if updates.seen.get(name) != visible:
        updates.seen[name] = visible
        updates.values[component] = gr.update(visible=visible)


def _move(service: Service, job: Job, *, first: bool) -> None:
    """In front of all that wait, or of the one before it."""
    # There may be more than max_jobs, where an earlier start allowed more.
    waiting = [other.id for other in service.queue.jobs([WAITING], limit=service.queue.store.counts()[WAITING])]
    place = waiting.index(job.id) if job.id in waiting else 0  # it may have begun meanwhile
    if place:
        service.queue.move(job.id, before=waiting[0 if first else place - 1])
