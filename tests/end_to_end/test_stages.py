"""What a run does now: everybody who shows a run says the same of it."""

from __future__ import annotations

import dataclasses
import io
import itertools
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tincture.cli.progress import Bar, progress
from tincture.events import Event, Progressed, RunPrepared, RunStarted, StepEnd
from tincture.run.lines import EVERY_S, Lines
from tincture.server.api_v1.schemas import JobAnswer
from tincture.server.api_webui.progress import ProgressEndpoints
from tincture.server.page.runs import view
from tincture.server.queue.attempt import changes_by
from tincture.server.queue.event_file import Reporter
from tincture.server.queue.folder import JobFolder
from tincture.server.queue.history import Trace
from tincture.server.queue.jobs import Job, JobState, plain_job

SHOWN: list[tuple[Event, str]] = [
    (Progressed("loading the model", 0, 1), "loading the model"),
    (Progressed("encoding pictures", 3, 12), "encoding pictures 3 of 12"),
    (Progressed("encoding prompts", 5, 7), "encoding prompts 5 of 7"),
    (Progressed("fitting memory", 0, 1), "fitting memory"),
    (Progressed("drawing previews", 2, 4), "drawing previews 2 of 4"),
    (Progressed("drawing previews", 2, 4, 7, 20), "drawing previews 2 of 4, step 7 of 20"),
    (Progressed("saving", 0, 1), "saving"),
    (Progressed("validating", 1, 3), "validating 1 of 3"),
    (Progressed("cutting", 1, 3), "cutting 1 of 3"),
]


def in_the_log(event: Event, _: Path) -> str:
    found, now = list[str](), itertools.count(0, EVERY_S)
    Lines(found.append, clock=lambda: float(next(now))).on_event(event)
    return found[-1]


def in_the_terminal(event: Event, _: Path) -> str:
    out = io.StringIO()
    with progress(Console(file=out, force_terminal=True, width=200)) as unharmed:
        bar = unharmed._watcher  # type: ignore[attr-defined]
        assert isinstance(bar, Bar)
        unharmed.on_event(event)
        bar.shown.refresh()
    return out.getvalue()


def running(event: Event, folder: Path) -> Job:
    """The job as the server knows it, by what the worker wrote."""
    reporter = Reporter(JobFolder(folder))
    reporter.on_event(event)
    reporter.end({"attempt": 1, "state": "done", "result": {}})
    job = Job(id="j1", kind="train", name="cat", settings={}, state=JobState.RUNNING, global_step=5, steps=10)
    for record in JobFolder(folder).events():
        job = dataclasses.replace(job, **changes_by(job, record))
    return job


def in_the_api(event: Event, folder: Path) -> str:
    return JobAnswer(**plain_job(running(event, folder))).stage


def on_the_page(event: Event, folder: Path) -> str:
    job = running(event, folder)
    card, head = view.cards([job], "j1"), view.head(job, Trace([], [], []))
    now = head.split("<dt>Now</dt><dd>")[1].split("</dd>")[0]
    assert now in card
    return now


def for_clients_of_the_webui(event: Event, folder: Path) -> str:
    service: Any = type("Service", (), {})()
    service.queue = service
    service.jobs = lambda states: [running(event, folder)]
    answer = ProgressEndpoints(service, None).progress(skip_current_image=True)  # type: ignore[arg-type]
    assert answer.textinfo is not None
    return answer.textinfo


@pytest.mark.parametrize(
    "surface",
    [in_the_log, in_the_terminal, in_the_api, on_the_page, for_clients_of_the_webui],
    ids=lambda one: one.__name__,
)
def test_everybody_tells_the_same_of_what_a_run_does(surface: Any, tmp_path: Path) -> None:
    for number, (event, words) in enumerate(SHOWN):
        (tmp_path / str(number)).mkdir()
        text = surface(event, tmp_path / str(number))
        assert words in text, (event, text)


def test_when_a_stage_is_over_a_run_trains_again(tmp_path: Path) -> None:
    job = running(Progressed("saving", 1, 1), tmp_path)
    assert job.stage == "" and "<dt>Now</dt><dd>training</dd>" in view.head(job, Trace([], [], []))


def test_everybody_tells_the_time_that_is_left(tmp_path: Path) -> None:
    """From the first step on, before any loss is read."""
    now = [0.0]
    reporter = Reporter(JobFolder(tmp_path), clock=lambda: now[0])
    reporter.on_event(RunPrepared(Path("run"), {"preview_every": 0, "save_every": 0}))
    reporter.on_event(RunStarted(0, 11, 5, 5))
    now[0] = 6.0
    reporter.on_event(StepEnd(1, 11))
    reporter.end({"attempt": 1, "state": "done", "result": {}})
    job = Job(id="j1", kind="train", name="cat", settings={}, state=JobState.RUNNING)
    for record in JobFolder(tmp_path).events():
        job = dataclasses.replace(job, **{k: v for k, v in changes_by(job, record).items() if k != "run_dir"})
    assert job.eta_s == 60.0
    service: Any = type("Service", (), {"jobs": lambda self, states: [job]})()
    service.queue = service
    answer = ProgressEndpoints(service, None).progress(skip_current_image=True)  # type: ignore[arg-type]
    assert answer.eta_relative == 60.0 and JobAnswer(**plain_job(job)).eta_s == 60.0
    shown = view.head(job, JobFolder(tmp_path).trace())
    assert "<dt>Time left</dt><dd>1 min 00 s</dd>" in shown and "6.0 s/step" in shown
