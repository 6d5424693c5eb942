"""Works on the queue: a thread for every line takes jobs, and each job is done by a worker of its own.

Preprocessing that loads no model onto a device has a line of its own, and so waits behind no training.

claim ──► start a worker ──► follow its events ──► note how it ended
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

from tincture.errors import StorageError, TinctureError, UsageError
from tincture.formats.file_lock import FileLock
from tincture.server.errors import ConflictError, NotFoundError
from tincture.server.queue.attempt import POLL_S, Attempt
from tincture.server.queue.folder import JobFolder
from tincture.server.queue.jobs import FINISHED, Job, JobState, Wanted
from tincture.server.queue.outcome import Ending, Outcome, outcome
from tincture.server.queue.store import JobStore, checked_id
from tincture.server.queue.workers import Line, Workers
from tincture.workspace import Workspace

GRACE_S = 300.0
"""Seconds that a worker has to finish its step, with the previews that are due, and to save, before it is killed."""
IDLE_S = 2.0
"""Seconds after which an idle thread looks for jobs by itself."""
AGAIN_S = 2.0
"""Seconds until what failed for the disk's sake is tried again."""
LEAST_FREE = 64 * 2**20
"""Bytes that the disk must have free for a job to begin: a full one would fail every job of the queue in turn."""
MOST_FOLDERS = 16
"""Folders of jobs, with what was read of them, that stay in memory."""

logger = logging.getLogger(__name__)


class Supervisor:
    """One thread for each line of the workers. What goes wrong with a job ends that job alone.

    Args:
        store: the queue.
        folder: where the jobs' folders go.
        workspace: what jobs work in.
        workers: who does the jobs.
        grace_s: seconds that a worker has to save when it is asked to stop.
        make_room: called before a job begins, so that others give memory back that they do not need.
    """

    def __init__(
        self,
        store: JobStore,
        folder: Path,
        workspace: Workspace,
        workers: Workers,
        *,
        grace_s: float = GRACE_S,
        make_room: Callable[[Job], object] = lambda job: None,
    ) -> None:
        self.store, self.path, self.workspace, self.workers, self.grace_s = store, folder, workspace, workers, grace_s
        self._make_room = make_room
        self._closing = threading.Event()
        self._full = False
        self._changed = threading.Condition()
        self._changes = 0
        # Held while it is decided what becomes of a job, so that nothing is asked of it in between.
        self._deciding = threading.RLock()
        self._threads: list[threading.Thread] = []
        self._folders: OrderedDict[str, JobFolder] = OrderedDict()
        self._devices: frozenset[str] = frozenset()
        self._sole = FileLock(folder / "server.lock")

    def start(self) -> None:
        """Begins to work. Jobs that a server left running when it died go on before all others.

        Raises:
            UsageError: another server works on this queue.
            TinctureError: there is nobody who could work on it.
        """
        if not self._sole.take():
            raise UsageError(
                f"Another server works on the queue in {self.path.parent}; end it, or choose another by "
                "tincture serve --state-dir."
            )
        try:
            self.workers.start()
        except BaseException:
            self._sole.free()
            raise
        lines = self.workers.lines
        self._devices = frozenset(line.device for line in lines if line.lane == "training")
        self._note_missing_devices()
        left = self.store.list([JobState.RUNNING], limit=10_000)
        for line in lines:
            own = [job for job in left if self._line_of(job, lines) == line]
            self._begin(self._work, line, own, name=f"jobs on {line.device}" if line.lane == "training" else line.lane)

    def _line_of(self, job: Job, lines: Sequence[Line]) -> Line | None:
        """The line that goes on with a job which was left running; one of a device that is gone is the first line's."""
        same = [line for line in lines if line.lane == job.lane]
        return next((line for line in same if line.device == job.device), same[0] if same else None)

    def _begin(self, act: Callable[..., None], *arguments: object, name: str) -> None:
        thread = threading.Thread(target=act, args=arguments, name=name, daemon=True)
        with self._deciding:
            self._threads = [other for other in self._threads if other.is_alive()]
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Stops what runs, which is saved and goes on at the next start; blocks until then."""
        self._closing.set()
        self.wake()
        while living := [thread for thread in self._threads if thread.is_alive()]:
            living[0].join()
        self.workers.close()
        self._sole.free()

    def wake(self) -> None:
        """Wakes those who wait for the queue to change."""
        with contextlib.suppress(StorageError):  # what a job waits for is noted next time
            self.store.note_what_waits()
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    def ask(self, job_id: str, wanted: Wanted) -> Job:
        """Asks a running job to become what is wanted once its step is done and saved; ConflictError if none runs."""
        with self._deciding:
            return self.store.update(job_id, [JobState.RUNNING], wanted=wanted)

    def folder(self, job_id: str) -> JobFolder:
        """Log and events of a job, be there any or not; NotFoundError for what cannot be an id."""
        with self._deciding:
            folder = self._folders.pop(job_id, None) or JobFolder(self.path / checked_id(job_id))
            self._folders[job_id] = folder
            if len(self._folders) > MOST_FOLDERS + len(self._threads):
                self._folders.popitem(last=False)
            return folder

    def wait(self, job_id: str, timeout_s: float | None) -> Job:
        """Blocks until a job is done, failed, cancelled or paused, the time is over, or this is closed."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            job = self.store.get(job_id)
            left = IDLE_S if end is None else end - time.monotonic()
            if job.state in FINISHED or job.state is JobState.PAUSED or left <= 0 or self._closing.is_set():
                return job
            with self._changed:
                self._changed.wait(min(left, 0.5))

    def _note_missing_devices(self) -> None:
        """A job that must run on a device that this server has not would wait for ever without a word."""
        for job in self.store.list([JobState.QUEUED], limit=10_000):
            lacking = job.lane == "training" and job.device and job.device not in self._devices
            stage = f"waits for {job.device}, which this server was not given by --device" if lacking else ""
            if stage != job.stage:
                self.store.update(job.id, [JobState.QUEUED], stage=stage)
        self.store.note_what_waits()

    # --- threads -----------------------------------------------------------------------------------------------------

    def _work(self, line: Line, left: Sequence[Job]) -> None:
        for job in left:
            self._do(line, self._recover, job)
        while not self._closing.is_set():
            seen = self._changes
            if self._is_full():
                self._closing.wait(AGAIN_S)
                continue
            try:
                claimed = self.workers.claim(self.store, line)
            except StorageError:
                logger.exception("No job could be taken from the queue")
                self._closing.wait(AGAIN_S)
                continue
            if claimed is not None:
                self._do(line, self._run, claimed)
                continue
            with self._changed:
                self._changed.wait_for(functools.partial(self._has_changed, seen), IDLE_S)

    def _do(self, line: Line, act: Callable[[Job], None], job: Job) -> None:
        """Does something with a job; where jobs of the line run beside each other, in a thread of its own."""
        if line.one_at_a_time:
            self._guarded(act, job)
        else:
            self._begin(self._guarded, act, job, name=f"job {job.id}")

    def _is_full(self) -> bool:
        """Whether a disk that jobs write to has no room for another one; logged when that begins."""
        before, self._full = self._full, any(map(_lacks_room, (self.path, self.workspace.root)))
        if self._full and not before:
            logger.error("The disk is full: no job begins before it has %d MB free", LEAST_FREE // 2**20)
        return self._full

    def _has_changed(self, seen: int) -> bool:
        return self._changes != seen or self._closing.is_set()

    def _guarded(self, act: Callable[[Job], None], job: Job) -> None:
        """Whatever happens with one job, the thread goes on with the next."""
        try:
            act(job)
        except Exception as error:
            if not isinstance(error, TinctureError):
                logger.exception("The job %s could not be run", job.id)
            record = {"state": "failed", "error": str(error) or repr(error), "error_type": type(error).__name__}
            self._settle(job, Ending(record))
        self.wake()

    def _run(self, job: Job) -> None:
        folder = self.folder(job.id)
        self._wait_for_lock(job, folder)
        if self._closing.is_set():
            self._settle(job, Ending(None, closing=True))
            return
        self._make_room(job)
        attempt = Attempt(
            self.store,
            job,
            folder,
            self.workers,
            closing=self._closing,
            grace_s=self.grace_s,
        )
        self._settle(job, attempt.run())

    def _recover(self, job: Job) -> None:
        """Lets a job go on that a server left running when it died, unless it ended since."""
        folder = self.folder(job.id)
        self._wait_for_lock(job, folder)
        if self._closing.is_set():
            return
        run_dir = folder.run_dir()
        if run_dir:
            self.store.update(job.id, [JobState.RUNNING], run_dir=run_dir)
        self._settle(job, Ending(folder.ended(job.attempts), closing=True))

    def _wait_for_lock(self, job: Job, folder: JobFolder) -> None:
        """Waits for a worker that has lost its server: it stops and saves by itself, or else is killed."""
        began = time.monotonic()
        if not self.workers.has_left(folder, overdue=False):
            self.store.note(job.id, stage="waiting for the process before to save and end")
        while not self._closing.is_set():
            if self.workers.has_left(folder, overdue=time.monotonic() - began > self.grace_s):
                return
            self._closing.wait(POLL_S)

    def _settle(self, job: Job, ending: Ending) -> None:
        """Notes what becomes of a job, as often as it takes; at a full disk, the next start finds out by itself."""
        while True:
            try:
                with self._deciding:
                    now = self.store.get(job.id)
                    decided = outcome(now, ending)
                    if not (decided.again and not ending.closing):
                        self._note(now, decided)
                        return
                # Stopped by a signal: perhaps the server gets one as well, and shall not begin anew before.
                self._closing.wait(AGAIN_S)
                ending = dataclasses.replace(ending, closing=True)
            except (ConflictError, NotFoundError):
                logger.exception("The job %s is not running any more", job.id)
                return
            except StorageError:
                logger.exception("It could not be noted how the job %s ended", job.id)
                if self._closing.wait(AGAIN_S):
                    return

    def _note(self, job: Job, decided: Outcome) -> None:
        if decided.again:
            self.store.put_in_front(job.id, **decided.changes)
        else:
            self.store.update(job.id, [JobState.RUNNING], **decided.changes)


def _lacks_room(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < LEAST_FREE
    except OSError:
        return False  # what is wrong with it, the job will find out
