"""Messages about what a person asked for: sentences that stay beside the button."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr

from tincture.errors import TinctureError
from tincture.server.page.parts.fields import in_labels
from tincture.server.page.parts.markup import escape, fault
from tincture.server.page.parts.requests import PRIVATE
from tincture.server.page.parts.way_on import way, ways
from tincture.server.queue.jobs import Job, JobKind, JobState

if TYPE_CHECKING:
    from tincture.server.service import Service

SENT = """() => '<p class="quiet" role="status">Sent …</p>'"""
"""JavaScript for a message's place that a click is answered with at once, until the server answers it."""


def done(sentence: str, *leading_on: str) -> str:
    """Something was done; ``leading_on`` are buttons of ``way_on`` for what may come next."""
    return f'<p class="done" role="status">{escape(sentence)}</p>{ways(*leading_on)}'


def failed(error: TinctureError, labels: Mapping[str, str] | None = None) -> str:
    """What went wrong, with labels where it names settings; ``labels``: those of the form, by setting."""
    return fault(in_labels(error.sentence, labels or {}))


def at_once(event: Callable[..., Any], panel: gr.HTML, words: str) -> None:
    """At ``event`` the panel says what is under way, in the browser, until the answer takes its place."""
    shown = f'<p class="quiet" role="status">{escape(words)}</p>'
    event(None, None, panel, js=f"() => {json.dumps(shown)}", **PRIVATE)


def submitted(service: Service, job: Job) -> str:
    """A job is in the queue; says what stands before it."""
    others = [other for other in service.queue.jobs([JobState.RUNNING, JobState.QUEUED], limit=10_000)]
    before = sum(other.lane == job.lane and other.id != job.id for other in others)
    turn = "It begins now" if before <= 0 else f"{before} before it" if before > 1 else "One job before it"
    sentence = f"{job.name} is in the queue as job {job.id}. {turn}; watch it in Runs."
    if others := service.queue.same_adapter(job):
        shared = next(held for held in job.holds if held in others[0].holds).partition(":")[0]
        sentence += f" It waits for job {others[0].id}, which trains the same {shared}, and goes on from there."
    elif "makes its pictures" in (stage := service.queue.job(job.id).stage):
        sentence += f" It {stage}."
    return done(sentence, way("Open the run", "run", job.id, strong=True))


def interrupted(service: Service, kind: JobKind) -> str:
    """All running jobs of a kind were asked to stop."""
    try:
        stopped = service.queue.interrupt(kind)
    except TinctureError as error:
        return failed(error)
    if not stopped:
        return done("Nothing is running.")
    names = ", ".join(job.name for job in stopped)
    return done(f"Asked to stop: {names}. It finishes its step, and saves.")
