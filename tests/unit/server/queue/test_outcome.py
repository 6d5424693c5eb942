from __future__ import annotations

from typing import Any

import pytest

from tincture.server.queue.attempt import changes_by
from tincture.server.queue.jobs import Job, JobState, Wanted
from tincture.server.queue.outcome import Ending, outcome
from tincture.server.queue.workers import Loss

DONE = {"state": "done", "result": {"global_step": 9, "loss": 0.5}}
FAILED = {"state": "failed", "error": "No.", "error_type": "DataError"}
STOPPED = {"state": "stopped", "result": {"global_step": 4}}
EARLY: dict[str, Any] = {"state": "stopped", "result": {}}
AGAIN = "again"
LOSS, OFTEN = Loss("The node mars was lost."), Loss("The node mars was lost.", often=True)


def job(**values: Any) -> Job:
    return Job(**{"id": "one", "kind": "train", "name": "cat", "settings": {}, "state": JobState.RUNNING, **values})


@pytest.mark.parametrize(
    ("wanted", "ending", "state"),
    [
        # What is done is done, and a failure is told, whatever was asked for.
        (None, Ending(DONE, 0), "done"),
        (Wanted.CANCELLED, Ending(DONE, 0), "done"),
        (None, Ending(DONE, -9, timed_out=True), "done"),
        (None, Ending(DONE, closing=True), "done"),
        (Wanted.PAUSED, Ending(FAILED, 1), "failed"),
        (None, Ending(FAILED, 1, closing=True), "failed"),
        # What was asked for.
        (Wanted.PAUSED, Ending(STOPPED, 130), "paused"),
        (Wanted.CANCELLED, Ending(STOPPED, 130), "cancelled"),
        (Wanted.CANCELLED, Ending(EARLY, 130), "cancelled"),
        (Wanted.INTERRUPTED, Ending(STOPPED, 130), "done"),
        (Wanted.CANCELLED, Ending(STOPPED, 130, timed_out=True), "cancelled"),
        (Wanted.CANCELLED, Ending(STOPPED, 130, closing=True), "cancelled"),
        # Killed, since it did not stop.
        (Wanted.PAUSED, Ending(None, -9, killed=True), "paused"),
        (Wanted.CANCELLED, Ending(None, -9, killed=True), "cancelled"),
        (Wanted.INTERRUPTED, Ending(None, -9, killed=True), "failed"),
        (None, Ending(None, -9, timed_out=True, killed=True), "failed"),
        (None, Ending(None, -9, killed=True, closing=True), AGAIN),
        # The time was over.
        (None, Ending(STOPPED, 130, timed_out=True), "failed"),
        (None, Ending(EARLY, 130, timed_out=True), "failed"),
        # The server ends, or died.
        (None, Ending(STOPPED, 130, closing=True), AGAIN),
        (None, Ending(None, closing=True), AGAIN),
        (Wanted.PAUSED, Ending(None, closing=True), "paused"),
        (Wanted.CANCELLED, Ending(None, closing=True), "cancelled"),
        (Wanted.INTERRUPTED, Ending(EARLY, 130, closing=True), AGAIN),
        # Its node was lost.
        (None, Ending(None, 75, loss=LOSS), AGAIN),
        (None, Ending(None, 75, loss=OFTEN), "failed"),
        (None, Ending(None, 75, loss=OFTEN, closing=True), AGAIN),
        (None, Ending(STOPPED, 75, loss=LOSS), AGAIN),
        (None, Ending(DONE, 75, loss=LOSS), "done"),
        (None, Ending(None, 75, loss=LOSS, timed_out=True), "failed"),
        (Wanted.PAUSED, Ending(None, 75, loss=LOSS), "paused"),
        (Wanted.PAUSED, Ending(None, 75, loss=OFTEN), "paused"),
        (Wanted.CANCELLED, Ending(None, 75, loss=LOSS), "cancelled"),
        (Wanted.INTERRUPTED, Ending(None, 75, loss=LOSS), AGAIN),
        # By itself.
        (None, Ending(STOPPED, 130), AGAIN),
        (None, Ending(None, -9), "failed"),
        (None, Ending(None, 1), "failed"),
        (Wanted.PAUSED, Ending(None, -11), "failed"),
        (Wanted.CANCELLED, Ending(None, -11), "cancelled"),
        (Wanted.INTERRUPTED, Ending(None, -11), "failed"),
    ],
)
def test_what_becomes_of_a_job(wanted: Wanted | None, ending: Ending, state: str) -> None:
    decided = outcome(job(wanted=wanted, timeout_s=60.0), ending)
    assert (AGAIN if decided.again else str(decided.changes["state"])) == state
    if state == "failed":
        assert decided.changes["error"].endswith(".") and decided.changes["error_type"]
    if not decided.again:
        assert (decided.changes["wanted"], decided.changes["stage"]) == (None, "")


def test_results_and_steps() -> None:
    assert outcome(job(), Ending(DONE)).changes["global_step"] == 9
    assert outcome(job(), Ending(DONE)).changes["loss"] == 0.5
    unknown = outcome(job(global_step=3, loss=0.25), Ending({"state": "done", "result": {"loss": None}})).changes
    assert (unknown["global_step"], "loss" in unknown) == (3, False)
    crops = outcome(job(kind="preprocess", global_step=3, steps=5), Ending({"state": "done", "result": {}})).changes
    assert crops["global_step"] == 5


def test_an_unknown_signal_is_named_by_its_number() -> None:
    error = outcome(job(), Ending(None, -99, log=("one", "two", "Extension modules: numpy"))).changes["error"]
    assert error == "The job's process was ended by signal 99; other jobs are not touched. Its log ends: one | two"


def test_what_an_event_changes_in_its_job() -> None:
    looking = {"type": "stage", "stage": "looking", "done": 2, "total": 5}
    assert changes_by(job(), looking) == changes_by(job(kind="preprocess"), looking) == {"stage": "looking 2 of 5"}
    cutting = {**looking, "stage": "cutting"}
    assert changes_by(job(kind="preprocess"), cutting) == {"stage": "cutting 2 of 5", "global_step": 2, "steps": 5}
    drawing = {
        "type": "stage",
        "stage": "drawing previews",
        "done": 0,
        "total": 1,
        "step": 3,
        "steps": 20,
        "eta_s": 8.5,
    }
    assert changes_by(job(), drawing) == {"stage": "drawing previews, step 3 of 20", "eta_s": 8.5}
    assert changes_by(job(), {**drawing, "done": 1}) == {"stage": "", "eta_s": 8.5}
    assert changes_by(job(), {"type": "remark", "text": "odd"}) == {}
    assert changes_by(job(), {"type": "of a later version"}) == {}


def test_a_process_that_ends_without_a_word_is_told_with_its_status() -> None:
    found = outcome(job(), Ending(None, 3))
    assert "The job's process ended with status 3 without saying why; other jobs are not touched." in str(found)
