"""What becomes of a job whose worker has ended: a decision from what is known, which touches nothing."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from typing import Any

from tincture.server.queue.history import EventRecord
from tincture.server.queue.jobs import Job, JobState, Wanted
from tincture.server.queue.workers import Loss

_ENDED = {Wanted.PAUSED: JobState.PAUSED, Wanted.CANCELLED: JobState.CANCELLED}


@dataclass(frozen=True)
class Ending:
    """How a worker ended.

    Attributes:
        record: its event record ``ended``; None when it did not come to write it.
        status: its exit status, below 0 the signal that ended it; None: it was another server's worker.
        timed_out: the job's time was over, and it was asked to stop for that.
        killed: it was asked to stop and did not within the time of grace, so that it was killed.
        closing: the server ends, or died, and the job is to go on later.
        log: the last lines that it printed.
        loss: why it is gone for no fault of the job's, which then goes on by itself.
    """

    record: EventRecord | None
    status: int | None = None
    timed_out: bool = False
    killed: bool = False
    closing: bool = False
    log: tuple[str, ...] = ()
    loss: Loss | None = None


@dataclass(frozen=True)
class Outcome:
    """What to note: ``changes`` of the job; ``again``: it waits for its turn, before all others."""

    changes: dict[str, Any]
    again: bool = False


def outcome(job: Job, ending: Ending) -> Outcome:
    """What becomes of a running job.

    What is done is done, also when something else was asked for meanwhile, and a failure is noted in any case. Else it
    becomes what was asked for last.
    """
    record = ending.record or {}
    if record.get("state") == "done":
        return _done(job, record["result"])
    if record.get("state") == "failed":
        return _failed(record["error"], record["error_type"])
    stopped = bool(record or ending.killed or ending.closing or ending.loss)
    if job.wanted in _ENDED and (stopped or job.wanted is Wanted.CANCELLED):
        return Outcome(_ended(_ENDED[job.wanted], error=_killed_note(ending)))
    if ending.timed_out:
        return _failed(_too_long(job, ending), "TimeoutError")
    if job.wanted is Wanted.INTERRUPTED and record.get("result"):
        return _done(job, record["result"])
    if ending.loss and not ending.loss.often:
        return Outcome({"stage": ending.loss.sentence, "eta_s": None}, again=True)
    if ending.closing or (record and job.wanted is None):
        # A worker that stopped without being asked got a signal to do so, as the server perhaps gets one right now.
        return Outcome({"stage": "", "eta_s": None}, again=True)
    if ending.loss:
        return _failed(f"{ending.loss.sentence} Retry it to go on from what it saved.", "WorkerLost")
    if ending.killed:
        return _failed(f"It was asked to stop, but {_killed_note(ending)}", "TimeoutError")
    return _failed(_crash(ending), "WorkerCrash")


def _ended(state: JobState, **changes: Any) -> dict[str, Any]:
    now = {"ended_at": time.time(), "wanted": None, "stage": "", "eta_s": None}
    return {"state": state, **now, "error": "", "error_type": "", **changes}


def _done(job: Job, result: dict[str, Any]) -> Outcome:
    whole = job.steps if job.kind == "preprocess" else job.global_step
    changes: dict[str, Any] = {"global_step": result.get("global_step") or whole}
    if result.get("loss") is not None:
        changes["loss"] = result["loss"]
    return Outcome(_ended(JobState.DONE, result=result, **changes))


def _failed(error: str, error_type: str) -> Outcome:
    return Outcome(_ended(JobState.FAILED, error=error, error_type=error_type))


def _killed_note(ending: Ending) -> str:
    return "it did not within the time of grace and was killed; what it saved before is there." if ending.killed else ""


def _too_long(job: Job, ending: Ending) -> str:
    began = f"The job ran longer than the {job.timeout_s or 0:g} s that it had"
    if ending.killed:
        return f"{began}; it was asked to stop, but {_killed_note(ending)} Retry it to go on from there."
    result = (ending.record or {}).get("result") or {}
    saved = f"saved at step {result['global_step']}" if result.get("global_step") else "stopped"
    return f"{began}, and was {saved}. Retry it to go on from there."


def _crash(ending: Ending) -> str:
    # A crash report of Python ends in a list of modules, which helps nobody.
    lines = [line[:200] for line in ending.log if not line.startswith("Extension modules:")]
    last = f" Its log ends: {' | '.join(lines)}" if lines else ""
    return f"The job's process {_status(ending.status)}; other jobs are not touched.{last}"


def _status(status: int | None) -> str:
    if status is None:
        return "ended without a word"
    if status >= 0:
        return f"ended with status {status} without saying why"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
    return f"was ended by {name}{hint}"
