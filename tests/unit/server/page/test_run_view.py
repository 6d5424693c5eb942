from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tincture.adapters.files import conversion
from tincture.kinds.registry import kind_names
from tincture.server.page.files import convert_form
from tincture.server.page.files import view as files_view
from tincture.server.page.runs import view as run_view
from tincture.server.page.runs.ways_on import trained_files
from tincture.server.queue.history import Trace, Validation
from tincture.server.queue.jobs import Job, JobState, Wanted


def job(**changes: Any) -> Job:
    given = {"id": "one", "kind": "train", "name": "<cat>", "settings": {"kind": "embedding"}, **changes}
    return Job(**given)


def trace(count: int) -> Trace:
    step = np.arange(1, count + 1, dtype=float)
    rate = np.where(step <= count / 2, 0.005, 0.001)
    return Trace(step, 1 / step, rate)


def test_a_long_run_is_sent_as_some_hundred_points() -> None:
    shown = run_view.charts(trace(50_000), smoothing=30)
    paths = re.findall(r' d="M([^"]+)"', shown)
    noise, smooth, rate = (path.count("L") + 1 for path in paths)
    assert 240 <= noise <= 500 and 200 <= smooth <= 250
    assert rate == 4  # both ends, and both sides of the only change
    assert run_view.charts(trace(0), smoothing=30) == ""


def measured(*losses: float | None) -> tuple[Validation, ...]:
    return tuple(Validation(10 * number, loss, 0.1, 0.2, 0.1, 0, 0.3) for number, loss in enumerate(losses))


def test_validation_is_a_curve_beside_that_of_trained_pictures() -> None:
    assert "Validation" not in run_view.charts(trace(9), smoothing=30)
    shown = run_view.charts(dataclasses.replace(trace(9), validations=measured(0.5, None, 0.3, 0.4)), smoothing=30)
    assert "best 0.3000 at step 20; dashed: trained" in shown
    chart = shown[shown.index("Validation loss") : shown.index("Learning rate")]
    assert 'class="mark"' in shown[: shown.index("Validation loss")]  # where it was best, among the losses of training
    mark, trained, validation = re.findall(r'<path class="(?:mark|dashed|strong)" d="M([^"]+)"', chart)
    assert (trained.count("L"), validation.count("L")) == (2, 2)  # what was not finite is no point
    assert {point.split(" ")[0] for point in mark.split("L")} == {validation.split("L")[1].split(" ")[0]}


def test_what_comes_from_outside_means_itself() -> None:
    failed = job(state=JobState.FAILED, error="<b>no</b>", result={"<i>": "<u>"})
    shown = run_view.cards([failed], "one") + run_view.head(failed, trace(3)) + run_view.details(failed, trace(3))
    assert not re.search(r"<(cat|b>no|i>|u>)", shown)
    assert "&lt;cat&gt;" in shown and "&lt;b&gt;no" in shown


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": JobState.RUNNING, "wanted": Wanted.CANCELLED}, "stops after this step"),
        ({"state": JobState.QUEUED}, "waiting"),
        ({"state": JobState.DONE}, "done"),
        ({"state": JobState.DONE, "result": {"interrupted": True}}, "stopped"),
        ({"state": JobState.DONE, "result": {"ending": "It got no better."}}, "ended early"),
        ({"state": JobState.DONE, "result": {"ending": "It has all.", "nothing_to_do": True}}, "nothing to do"),
    ],
)
def test_the_state_is_told_in_words(changes: dict[str, Any], words: str) -> None:
    assert run_view.state_words(job(**changes)) == words


def test_a_run_that_ended_before_its_end_says_why_and_how_far_it_came() -> None:
    stopped = job(state=JobState.DONE, global_step=120, steps=500, result={"interrupted": True})
    assert stopped.progress == 0.24
    shown = run_view.head(stopped, trace(3))
    assert "It was stopped after step 120 of 500, and saved." in shown and 'aria-valuenow="24.0"' in shown
    early = job(state=JobState.DONE, global_step=120, steps=500, result={"ending": "No <better>."})
    assert early.progress == 1
    assert '<p class="warning" role="status">No &lt;better&gt;.</p>' in run_view.head(early, trace(3))
    whole = job(state=JobState.DONE, global_step=500, steps=500, result={"interrupted": False, "ending": ""})
    assert (whole.ending, whole.outcome) == ("", "done") and "warning" not in run_view.head(whole, trace(3))
    assert job(state=JobState.PAUSED, result={}).ending == job(state=JobState.FAILED).ending == ""
    pictures = {"kind": "preprocess", "settings": {}, "result": {"interrupted": True}}
    assert job(state=JobState.DONE, **pictures).ending == "It was stopped after the pictures at hand, and saved."


def test_every_format_that_can_be_written_is_offered() -> None:
    offered = {
        kind: {name for _, name, _ in formats}
        for kind, formats in ((kind, convert_form.formats(kind)) for kind in kind_names())
    }
    assert offered == {
        "embedding": set(conversion.EMBEDDING_FORMATS),
        "hypernetwork": set(conversion.HYPERNETWORK_FORMATS),
    }


def test_a_report_shows_settings_apart_and_cuts_what_is_endless() -> None:
    found = {"path": "a/cat.pt", "kind": "embedding", "step": 3, "thumbnail": "x" * 5000}
    shown = files_view.report({**found, "provenance": {"software": "tincture", "settings": {"steps": 7}}})
    assert "<h3>Settings</h3>" in shown and "<td>7</td>" in shown
    assert "(5,000 characters)" in shown and "x" * 400 not in shown


def test_what_a_job_waits_for_is_told() -> None:
    waiting = job(state=JobState.QUEUED, stage="waits for job two, which is paused")
    assert "waits for job two" in run_view.cards([waiting], "") and "waits for job two" in run_view.head(
        waiting, trace(0)
    )
    done = job(state=JobState.DONE, stage="saving")
    assert "saving" not in run_view.cards([done], "") + run_view.head(done, trace(0))


def test_only_what_a_run_made_is_offered(tmp_path: Path) -> None:
    made, copy, best = (tmp_path / name for name in ("cat.pt", "cat-3.pt", "cat-best.pt"))
    for path in (made, copy, best):
        path.write_bytes(b"learned")
        os.utime(path, (100.0, 100.0))
    saved = {copy: 3, best: 2, made: 5}
    done = job(state=JobState.DONE, ended_at=101.0, global_step=5, result={"best_path": str(best)})
    found = dataclasses.replace(trace(5), saved=saved)
    assert trained_files(done, found) == [(5, made), (2, best)]
    os.utime(made, (200.0, 200.0))  # made anew, or trained by another run
    assert trained_files(done, found) == [(3, copy), (2, best)]
    copy.unlink()
    assert trained_files(done, found) == [(2, best)]
    untrained = dataclasses.replace(found, saved={best: 0})
    assert trained_files(dataclasses.replace(done, result={}), untrained) == []
