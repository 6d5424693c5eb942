"""The Runs tab: the queue, and the run that is shown, live.

Every second each open page asks what changed, and only that is sent: see ``Updates``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.context import Context

from tincture.errors import TinctureError
from tincture.server.page.parts.components import panel, script
from tincture.server.page.parts.markup import escape
from tincture.server.page.parts.requests import COMMAND, SILENT, STEP, TYPED, hidden, tick_where_seen
from tincture.server.page.parts.way_on import Ways, carried
from tincture.server.page.runs import comparison
from tincture.server.page.runs.answer import WHICH, Request, answer
from tincture.server.page.runs.film_strip import film_strip
from tincture.server.page.runs.thumbnails import Thumbnails
from tincture.server.queue.jobs import FINISHED, Job, JobState

if TYPE_CHECKING:
    from tincture.server.service import Service

CHOOSE = """element.addEventListener("click", (event) => {
  const pick = event.target.closest("[data-compare]");
  if (pick) return trigger("click", { compare: pick.dataset.compare });
  const card = event.target.closest("[data-job]");
  if (!card) return;
  trigger("click", { job: card.dataset.job });
  if (window.innerWidth < 800) document.querySelector("#run-head")?.scrollIntoView({ behavior: "smooth" });
});
// Who goes through the list by keyboard stays where they are when it is written anew.
let focused = "";
element.addEventListener("focusin", ({ target }) => {
  const { job, compare } = target.dataset;
  focused = compare ? `[data-compare="${compare}"]` : job ? `[data-job="${job}"]` : "";
});
element.addEventListener("focusout", ({ relatedTarget }) => { if (relatedTarget) focused = ""; });
watch("value", () => requestAnimationFrame(() => {
  const isLost = focused && document.activeElement === document.body;
  if (isLost) element.querySelector(focused)?.focus({ preventScroll: true });
}));"""
STAY_AT_END = """let follows = true;
const log = () => element.querySelector(".log");
const goOn = () => { if (follows && log()) log().scrollTop = log().scrollHeight; };
element.addEventListener("scroll", () => {
  follows = log().scrollTop + log().clientHeight > log().scrollHeight - 30;
}, true);
watch("value", goOn);
goOn();"""
READ_OUT = script(__file__, "plot.js")
"""Of the charts: says the step and the value under the pointer."""
PAGE_OF_JOBS = 40
EVERY_S = 1.0
AT_ONCE = 4
"""Pages that are answered at the same time."""

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
    inputs = [tab.chosen, tab.compared, tab.limit, tab.which, tab.search, tab.smoothing, tab.seen]

    def refresh(*given: Any) -> dict[Any, Any]:
        *asked, seen = given
        return answer(service, tab, Request(*asked), seen)

    def choose(event: gr.EventData, *given: Any) -> dict[Any, Any]:
        """Shows one run, and compares no more; or puts one among those that are compared, or takes it from them."""
        if compare := str(event._data.get("compare") or ""):
            compared = comparison.toggled(given[1], compare)
            return {**refresh(given[0], compared, *given[2:]), tab.compared: compared}
        job_id = carried(event) or str(event._data["job"])
        return {**refresh(job_id, "", *given[2:]), tab.chosen: job_id, tab.compared: ""}

    def compare_with(event: gr.EventData, *given: Any) -> dict[Any, Any]:
        compared = carried(event)
        return {**refresh(given[0], compared, *given[2:]), tab.compared: compared}

    def more(*given: Any) -> dict[Any, Any]:
        limit = given[2] + PAGE_OF_JOBS
        return {**refresh(*given[:2], limit, *given[3:]), tab.limit: limit}

    def act_and_refresh(label: str, shown: str, *given: Any) -> dict[Any, Any]:
        try:
            act(service, label, shown)
            if label == PREVIEW_NOW:
                gr.Info("Previews are drawn after the present step.", duration=4)
        except TinctureError as error:
            gr.Warning(escape(error))
        return refresh(*given)

    page, inside = Context.root_block, Context.block
    assert page is not None
    # One event for both: a page that was loaded again is filled at once.
    gr.on([page.load, tab.timer.tick], refresh, inputs, tab.outputs, **{**COMMAND, **shared})
    tick_where_seen(tab.timer, inside)
    if isinstance(inside, gr.Tab):
        inside.select(refresh, inputs, tab.outputs, **{**STEP, **shared})
    gr.on(
        [tab.which.change, tab.search.change, tab.smoothing.input], refresh, inputs, tab.outputs, **{**TYPED, **shared}
    )
    gr.on([tab.running.click, tab.others.click, ways["run"].click], choose, inputs, tab.outputs, **{**STEP, **shared})
    ways["compare"].click(compare_with, inputs, tab.outputs, **{**STEP, **shared})
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
        compared: the ids of jobs that are compared, with blanks between them.
    """

    def __init__(self) -> None:
        self.chosen, self.shown, self.compared = gr.State(""), hidden(), hidden()
        self.thumbnails = Thumbnails()
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
        self.outputs = [*self.outputs, *self.buttons.values(), self.more_about]

    def _queue(self) -> None:
        self.which = gr.Radio(list(WHICH), value="All", label="Jobs", show_label=False, container=False)
        self.search = gr.Textbox(
            show_label=False, container=False, placeholder="Search: name, model, pictures", elem_id="runs-search"
        )
        self.counts = panel(elem_id="runs-counts")
        self.running = panel(script=CHOOSE, elem_id="jobs-running")
        self.others = panel(script=CHOOSE, elem_id="jobs-others")
        self.more = gr.Button("Show more", size="sm", visible=False, elem_id="runs-more")

    def _run(self) -> None:
        self.head = panel(elem_id="run-head")
        with gr.Row(elem_classes="actions"):
            self.buttons = {label: self._button(label) for label, _, _ in ACTIONS}
        self.ways = panel(elem_id="run-ways")
        self.charts = panel(script=READ_OUT, elem_id="charts")
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
        self.differences = panel(elem_id="run-differences")
        self.previews = film_strip()
        self.log = panel(script=STAY_AT_END, elem_id="run-log")
        with gr.Accordion("Result and settings", open=False) as self.more_about:
            self.details = panel()

    @staticmethod
    def offers(label: str, job: Job) -> bool:
        """Whether the button ``label`` is of use for a job as it stands."""
        states = next(states for name, states, _ in ACTIONS if name == label)
        return job.state in states and job.wanted is None and (label != PREVIEW_NOW or job.run_dir is not None)

    @staticmethod
    def _button(label: str) -> gr.Button:
        variant = "stop" if label == "Cancel" else "secondary"
        name = "run-" + label.lower().replace(" ", "-")
        return gr.Button(label, size="sm", variant=variant, visible=False, min_width=80, scale=0, elem_id=name)


def _move(service: Service, job: Job, *, first: bool) -> None:
    """In front of all that wait, or of the one before it."""
    # There may be more than max_jobs, where an earlier start allowed more.
    waiting = [other.id for other in service.queue.jobs([WAITING], limit=service.queue.store.counts()[WAITING])]
    place = waiting.index(job.id) if job.id in waiting else 0  # it may have begun meanwhile
    if place:
        service.queue.move(job.id, before=waiting[0 if first else place - 1])
