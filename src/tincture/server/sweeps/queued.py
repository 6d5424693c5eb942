"""Runs of a sweep as jobs of the queue, which places them: see ``tincture.sweeps.executor.Executor``."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from tincture.data.listing import Source
from tincture.errors import TinctureError
from tincture.server.errors import ConflictError, NotFoundError, QueueFullError
from tincture.server.queue.jobs import FINISHED, Job, JobState
from tincture.server.queue.queue import JobQueue
from tincture.settings.train import FIELDS
from tincture.sweeps.executor import Ended
from tincture.sweeps.sweep_file import Fields
from tincture.sweeps.sweep_folder import SweepFolder

POLL_S = 0.2
RUNS_ON_A_CLUSTER = 8
"""Of a sweep at a time, where nobody says how many; it is the cluster that knows how many it has room for."""


class QueuedRuns:
    """Submits each run as a job, and says when it has ended. What a job says of its failure is noted for the run.

    Args:
        sweep: whose runs they are.
        queue: of the server.
        slots: as many may stand in the queue at a time.
        closing: set when the server ends: its jobs are saved and go on at its next start.
        source: who asked: ``api``, ``page`` or ``cli``.
    """

    def __init__(
        self,
        sweep: SweepFolder,
        queue: JobQueue,
        slots: int,
        closing: threading.Event,
        source: str = "api",
    ) -> None:
        self._sweep, self._queue, self._closing, self._source = sweep, queue, closing, source
        self.slots = slots
        self._jobs: dict[str, str | None] = {}  # by run: the id of its job; None: there is no room for it yet
        self._until: dict[str, int | None] = {}
        self._stopping = False

    def submit(self, name: str, until: int | None) -> None:
        """See ``Executor``. A job of the same run that has not ended is taken on."""
        self._until[name] = until
        there = next((job for job in self._queue.unfinished() if job.sweep == self._key(name)), None)
        if there is None:
            self._sweep.trial(name).ask(until)
        self._jobs[name] = there.id if there else self._submitted(name)

    def wait(self, seconds: float) -> list[Ended]:
        """See ``Executor``."""
        end = time.monotonic() + seconds
        while True:
            ended = [Ended(name) for name in list(self._jobs) if self._has_ended(name)]
            for each in ended:
                del self._jobs[each.name]
            if ended or time.monotonic() >= end:
                return ended
            time.sleep(min(POLL_S, seconds))

    def stop(self) -> None:
        """Cancels the jobs, which save; those of a server that ends stay where they are."""
        if self._stopping:
            return
        self._stopping = True
        for job_id in self._jobs.values() if not self._closing.is_set() else ():
            try:
                if job_id:
                    self._queue.cancel(job_id)
            except (ConflictError, NotFoundError):
                continue  # it has ended, or was deleted

    def _key(self, name: str) -> str:
        return f"{self._sweep.name}/{name}"

    def _submitted(self, name: str) -> str | None:
        trial = next(each for each in self._sweep.trials() if each.name == name)
        try:
            return self._queue.submit_run_of_sweep(self._key(name), self._placed(trial.settings), self._source).id
        except QueueFullError:
            return None
        except TinctureError as error:
            self._sweep.trial(name).note_failure(str(error))
            return None

    def _placed(self, settings: Mapping[str, Any]) -> Fields:
        """The same with folders as they are from here: their paths start where the sweep was begun."""
        placed = dict(settings)
        for name in [name for name, spec in FIELDS.items() if spec.path and settings.get(name)]:
            value = settings[name]
            texts = [self._path(text) for text in ([value] if isinstance(value, str) else value)]
            placed[name] = texts[0] if isinstance(value, str) else texts
        return placed

    def _path(self, text: str) -> str:
        return str(self._sweep.cwd / text) if (self._sweep.cwd / Source.parse(text).folder).exists() else text

    def _has_ended(self, name: str) -> bool:
        folder = self._sweep.trial(name)
        if self._stopping and self._closing.is_set():
            return True
        job_id = self._jobs[name]
        if job_id is None:
            self._jobs[name] = job_id = None if self._stopping or folder.failure() else self._submitted(name)
            return job_id is None and (self._stopping or bool(folder.failure()))
        try:
            job = self._queue.job(job_id)
        except NotFoundError:
            job = None
        if job is not None and job.state not in FINISHED:
            return False
        if not self._stopping and not folder.result(self._until[name]):
            folder.note_failure(_words(job))
        return True


def _words(job: Job | None) -> str:
    if job is None:
        return "Its job was deleted."
    if job.state is JobState.FAILED:
        return job.error
    return f"Its job was {'cancelled' if job.state is JobState.CANCELLED else 'stopped'} at step {job.global_step}."
