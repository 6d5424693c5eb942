"""One worker from its start to its end: orders go to it, how far it is comes back."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from tincture.errors import StorageError
from tincture.events import Progressed
from tincture.server.queue.folder import JobFolder
from tincture.server.queue.history import EventRecord
from tincture.server.queue.jobs import Job, Wanted
from tincture.server.queue.outcome import Ending
from tincture.server.queue.store import JobStore
from tincture.server.queue.workers import Workers

POLL_S = 0.1
"""Seconds between two looks at the worker and at what is wanted of it."""
NOTE_S = 0.5
"""Seconds between two notes of how far a job is."""
_COUNTED_STAGE = "cutting"
"""The stage of preprocessing that counts as its progress."""

logger = logging.getLogger(__name__)


class Attempt:
    """A job that was claimed, and who does it.

    Args:
        store: where it is noted how far the job is.
        job: as it was claimed.
        folder: the job's.
        workers: who can do it.
        closing: set when the server ends, so that the job shall stop.
        grace_s: seconds that the worker has to save when it is asked to stop.

    Raises:
        TinctureError: see ``Workers.begin``.
    """

    def __init__(
        self,
        store: JobStore,
        job: Job,
        folder: JobFolder,
        workers: Workers,
        *,
        closing: threading.Event,
        grace_s: float,
    ) -> None:
        self.store, self.job, self.folder, self.closing, self.grace_s = store, job, folder, closing, grace_s
        self._began = time.monotonic()
        self._changes: dict[str, Any] = {"stage": "starting"}
        self._noted = 0.0
        self._offset = folder.last()[1]
        self._asked: float | None = None
        self._order = ""
        self._timed_out = self._killed = False
        self.worker = workers.begin(job, folder)

    def run(self) -> Ending:
        """Blocks until the worker has ended."""
        try:
            while (status := self.worker.wait(POLL_S)) is None:
                self._follow()
                self._direct()
        finally:
            self.worker.close()
        self._follow(at_once=True)
        return Ending(
            record=self.folder.ended(self.job.attempts),
            status=status,
            timed_out=self._timed_out,
            killed=self._killed,
            closing=self.closing.is_set(),
            log=tuple(self.folder.last_lines()),
            loss=self.worker.loss,
        )

    def _direct(self) -> None:
        """Orders what is wanted of the worker, and kills it when it does not heed that in time."""
        order = self._wanted_order()
        if order and order != self._order:
            self.worker.order(order)
            self._order, self._asked = order, self._asked or time.monotonic()
        if self._asked and time.monotonic() - self._asked > self.grace_s:
            self._killed = True
            self.worker.kill()

    def _wanted_order(self) -> str:
        if self.closing.is_set():
            return "stop"
        if self.job.wanted:
            return "finish" if self.job.wanted is Wanted.INTERRUPTED else "stop"
        if self.job.timeout_s is not None and time.monotonic() - self._began > self.job.timeout_s:
            self._timed_out = True
        return "stop" if self._timed_out else ""

    def _follow(self, at_once: bool = False) -> None:
        """Takes over what the worker reported since the last time; what cannot be noted now is noted later."""
        try:
            records, self._offset = self.folder.read_from(self._offset)
            for record in records:
                self._changes |= changes_by(self.job, record)
            if "run_dir" in self._changes:  # on which a later attempt depends
                self.store.update(self.job.id, run_dir=self._changes["run_dir"])
                del self._changes["run_dir"]
            if (place := self.worker.place) and place != self.job.device:
                self._changes["device"] = place
            if self._changes and (at_once or time.monotonic() - self._noted > NOTE_S):
                self.store.note(self.job.id, **self._changes)
                self._changes, self._noted = {}, time.monotonic()
            self.job = self.store.get(self.job.id)
        except StorageError:
            logger.exception("It could not be noted how far the job %s is", self.job.id)


def changes_by(job: Job, record: EventRecord) -> dict[str, Any]:
    """What an event changes in its job."""
    match record["type"]:
        case "prepared":
            return {"run_dir": record["run_dir"]}
        case "stage":
            at = Progressed(record["stage"], record["done"], record["total"], *_within(record))
            stage = {"stage": "" if at.over else at.description, **_left(record)}
            counts = job.kind == "preprocess" and at.stage == _COUNTED_STAGE
            return {**stage, "global_step": at.done, "steps": at.total} if counts else stage
        case "started" | "progress":
            return {"stage": "", "global_step": record["global_step"], "steps": record["steps"], **_left(record)}
        case "preview" if record["paths"]:
            return {"preview": record["paths"][0]}
        case "rolled_back":
            return {"global_step": record["global_step"]}
        case "steps":
            step, _, _, _, rate, *_ = record["records"][-1]
            now = {"loss": record["loss_mean"], "learning_rate": rate, **_left(record)}
            return {"global_step": step, "steps": record["steps"], **now}
    return {}


def _within(record: EventRecord) -> tuple[int, int]:
    """What is done of the next thing of a stage; workers of earlier versions do not say it."""
    return record.get("step", 0), record.get("steps", 0)


def _left(record: EventRecord) -> dict[str, Any]:
    return {"eta_s": record["eta_s"]} if "eta_s" in record else {}
