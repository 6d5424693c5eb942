"""The queue as those use it who ask for work: jobs are put in, watched, stopped and moved.

All methods may be called from any thread. Settings are checked at once, paths in them too; the work is done by workers,
which are processes of their own.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from tincture.errors import UsageError, shortened
from tincture.run.preview_request import request_preview
from tincture.server.errors import ConflictError, NotFoundError, QueueFullError
from tincture.server.queue.cluster.cluster_workers import ANY, ClusterWorkers
from tincture.server.queue.cluster.watched import WatchedCluster
from tincture.server.queue.folder import JobFolder
from tincture.server.queue.jobs import (
    FINISHED,
    JOB_KINDS,
    Job,
    JobKind,
    JobState,
    Wanted,
    check_machine,
    check_priority,
)
from tincture.server.queue.store import JobStore
from tincture.server.queue.supervisor import Supervisor
from tincture.server.queue.worker_process import DeviceWorkers
from tincture.server.queue.workers import Workers
from tincture.server.requests.places import Places
from tincture.settings.server import ServerSettings
from tincture.settings.train import TrainSettings

AUTO = "auto"
OVERWRITE = "overwrite"
"""What requests may give among the settings of a preprocessing besides them; as of ``preprocess``."""
LONGEST_TIMEOUT_S = 10**7


class JobQueue:
    """Jobs that wait, run and have ended.

    Args:
        places: which paths requests may name, and the workspace.
        settings: of the server.
        state_dir: the server's own folder: ``jobs.sqlite3`` and ``jobs/ID/`` are the queue's.
        make_room: called before a job begins, so that its device's memory is free.
        default_model: gives the model of a training that names none, by the file of its adapter.

    Attributes:
        store: all jobs.
        supervisor: what runs them.
    """

    def __init__(
        self,
        places: Places,
        settings: ServerSettings,
        state_dir: Path,
        make_room: Callable[[Job], None],
        default_model: Callable[[Path | None], str],
    ) -> None:
        self._places, self._workspace, self._settings = places, places.workspace, settings
        self._default_model = default_model
        self.store = JobStore(Path(settings.database) if settings.database else state_dir / "jobs.sqlite3")
        self.supervisor = Supervisor(
            self.store,
            state_dir / "jobs",
            self._workspace,
            _workers(self._workspace.root, settings),
            make_room=make_room,
        )

    def submit(
        self,
        kind: JobKind,
        settings: Mapping[str, Any],
        *,
        priority: int = 0,
        timeout_s: float | None = None,
        device: str = "",
        gpus: int | None = None,
        cpus: int | None = None,
        source: str = "api",
    ) -> Job:
        """Puts a job at the end of the queue, behind those of the same priority.

        Args:
            kind: ``train`` or ``preprocess``.
            settings: fields of ``TrainSettings``, or of ``PreprocessSettings`` and ``overwrite`` as of ``preprocess``;
                relative paths start at the workspace.
            priority: -1000 to 1000; the higher, the sooner.
            timeout_s: seconds of running after which it is stopped, saved and failed; None: the server's.
            device: one of the server's; empty: that of the settings, or any, if they have none.
            gpus, cpus: what it shall have for itself of one machine of the cluster; None: a GPU if there are any that
                it may use, and a processor for each; 0 to 64 and 1 to 1024.
            source: who asks: ``api``, ``page`` or ``webui``.

        Raises:
            UsageError: a setting is not allowed, or the adapter to train does not exist, or a template, or a folder
                that no job which has not ended will make.
            ForbiddenPathError: a path leads out of what is allowed.
            QueueFullError: the queue is full; paused jobs count too.
        """
        checked, name, device = self.checked(kind, settings, device)
        check_priority(priority)
        self._check_machine(gpus, cpus)
        if timeout_s is not None and not 0 < timeout_s <= LONGEST_TIMEOUT_S:
            raise UsageError(
                f"The timeout is {timeout_s} s; allowed is more than 0 and at most {LONGEST_TIMEOUT_S:,} s."
            )
        return self._add(
            kind, checked, name, device, priority=priority, timeout_s=timeout_s, gpus=gpus, cpus=cpus, source=source
        )

    def submit_run_of_sweep(self, sweep: str, settings: Mapping[str, Any], source: str = "api") -> Job:
        """Puts a run of a sweep at the end of the queue, up to the step that is asked for in its folder.

        Args:
            sweep: NAME/RUN.
            settings: of the run, whose adapter is made when it begins.

        Raises:
            UsageError, ForbiddenPathError, QueueFullError: as ``submit``.
        """
        training = self._places.train_settings(settings, self._to_come)
        device = self._device("", training.device)
        return self._add("train", training.to_dict(), training.name, device, source=source, sweep=sweep)

    def _add(
        self,
        kind: JobKind,
        settings: dict[str, Any],
        name: str,
        device: str,
        *,
        priority: int = 0,
        timeout_s: float | None = None,
        gpus: int | None = None,
        cpus: int | None = None,
        source: str,
        sweep: str = "",
    ) -> Job:
        self._refuse_full()
        job = Job(
            id=_new_id(),
            kind=kind,
            name=name,
            settings=settings,
            priority=priority,
            # Also when the clock was set back, behind those that wait.
            position=max(time.time(), self.store.last_position() + 1e-6),
            device=device,
            gpus=gpus,
            cpus=cpus,
            timeout_s=timeout_s if timeout_s is not None else (self._settings.job_timeout * 3600 or None),
            source=source,
            created_at=time.time(),
            sweep=sweep,
        )
        self.store.add(job)
        self.supervisor.wake()
        return job

    def checked(self, kind: JobKind, settings: Mapping[str, Any], device: str = "") -> tuple[dict[str, Any], str, str]:
        """The complete settings of a job that was asked for, its name, and where it must run (empty: anywhere).

        Raises:
            UsageError, ForbiddenPathError: as ``submit``.
        """
        if kind == "train":
            training = self._places.train_settings(settings, self._to_come)
            self._require_adapters(training)
            if not training.model:
                adapter = self._workspace.find_adapter(training.kind, training.name)
                training = training.replace(model=self._places.model(self._default_model(adapter)))
            return training.to_dict(), training.name, self._device(device, training.device)
        if kind == "preprocess":
            rest = {name: value for name, value in settings.items() if name != OVERWRITE}
            made, overwrite = self._places.preprocess_settings(rest, self._to_come), settings.get(OVERWRITE, False)
            if not isinstance(overwrite, bool):
                raise UsageError(f"{OVERWRITE} is {shortened(overwrite)}, but must be true or false.")
            checked = {**made.to_dict(), **({OVERWRITE: True} if overwrite else {})}
            return checked, Path(made.destination).name, self._device(device, made.device)
        raise UsageError(f"There is no kind of job {kind!r}; there are {' and '.join(JOB_KINDS)}.")

    def jobs(self, states: Collection[JobState] = (), limit: int = 100, offset: int = 0, search: str = "") -> list[Job]:
        """Jobs in the given states, or all: running, then waiting in their order, then ended ones, latest first.

        With ``search``, only those whose name, id, kind, base model or pictures have all its words in them.
        """
        return self.store.list(states, limit, offset, search)

    def unfinished(self) -> list[Job]:
        """Jobs that run, wait or are paused."""
        return self.jobs([JobState.RUNNING, JobState.QUEUED, JobState.PAUSED], limit=10 * self._settings.max_jobs)

    def job(self, job_id: str) -> Job:
        """The job as it stands; NotFoundError."""
        return self.store.get(job_id)

    def folder(self, job_id: str) -> JobFolder:
        """Log and events of a job; NotFoundError."""
        self.store.get(job_id)
        return self.supervisor.folder(job_id)

    def cancel(self, job_id: str) -> Job:
        """Ends a job: a waiting one at once, a running one after its step, saved. ConflictError when it has ended."""
        return self._stop(job_id, Wanted.CANCELLED, JobState.CANCELLED)

    def pause(self, job_id: str) -> Job:
        """As ``cancel``, but the job keeps its place, and ``resume`` lets it go on exactly where it stopped."""
        return self._stop(job_id, Wanted.PAUSED, JobState.PAUSED)

    def preview(self, job_id: str) -> Job:
        """A running training draws previews after its present step; ConflictError for others, and before its steps."""
        job = self.store.get(job_id)
        if job.state is not JobState.RUNNING or job.kind != "train":
            raise ConflictError(f"The job {job.id} is {job.state}; only a training that is running draws previews.")
        if job.run_dir is None:
            raise ConflictError(f"The training {job.id} makes no steps yet; ask again when it does.")
        request_preview(Path(job.run_dir))
        return job

    def interrupt(self, kind: JobKind | None = None) -> list[Job]:
        """Every running job, or those of a kind, stops after its step, saves, and counts as done, as by the webui's."""
        asked = []
        for job in self.jobs([JobState.RUNNING]):
            if kind not in (None, job.kind):
                continue
            with contextlib.suppress(ConflictError, NotFoundError):  # it ended just now
                # One that is to be paused or cancelled stops anyway, as somebody else wants it.
                asked.append(job if job.wanted else self.supervisor.ask(job.id, Wanted.INTERRUPTED))
        return asked

    def resume(self, job_id: str) -> Job:
        """A paused job waits for its turn again; ConflictError for others."""
        return self._queue_again(job_id, {JobState.PAUSED})

    def retry(self, job_id: str) -> Job:
        """A failed or cancelled job waits for its turn again, and goes on where it stopped, if it saved anything."""
        self._refuse_full()
        return self._queue_again(job_id, {JobState.FAILED, JobState.CANCELLED})

    def move(self, job_id: str, *, priority: int | None = None, before: str | None = None) -> Job:
        """Changes a waiting job's turn: another priority, or right before another waiting job, with its priority."""
        return self.store.move(job_id, priority=priority, before=before)

    def delete(self, job_id: str) -> None:
        """Forgets a job that has ended, with its log; what it trained stays. ConflictError while it waits or runs."""
        self.store.delete(job_id, FINISHED | {JobState.PAUSED})
        self.supervisor.folder(job_id).remove()
        self.supervisor.wake()

    def wait(self, job_id: str, timeout_s: float | None = None) -> Job:
        """Blocks until the job is done, failed, cancelled or paused, or the time is over; returns it as it stands."""
        return self.supervisor.wait(job_id, timeout_s)

    def same_adapter(self, job: Job) -> list[Job]:
        """Other trainings of an adapter that a training is for: those that run, wait or are paused."""
        return [other for other in self.store.holding(*job.holds) if other.id != job.id and job.kind == "train"]

    def _device(self, asked: str, setting: str) -> str:
        """Where a job must run; empty: anywhere. On a server that was given no device by name, the setting decides."""
        known = (ANY,) if self._settings.ray else self._settings.device
        if asked and self._settings.ray:
            raise UsageError(
                f"The job's device is {asked!r}, but this server's jobs run on a cluster, which chooses; ask for gpus "
                "and cpus instead."
            )
        if asked and asked not in known:
            raise UsageError(f"This server has no device {asked!r}; it has {', '.join(known)}.")
        if self._settings.ray and ":" in setting:
            raise UsageError(
                f"The setting device is {setting!r}, but on a cluster a job sees its own GPUs only; give "
                f"{setting.partition(':')[0]}, or leave it out."
            )
        if setting == AUTO:
            return asked
        named = setting if setting in known else AUTO
        if named not in known:
            raise UsageError(
                f"The setting device is {setting!r}, but this server has {', '.join(known)}; leave it out."
            )
        if asked not in ("", named):
            raise UsageError(f"The job's device is {asked!r}, but its setting device is {setting!r}; leave one out.")
        return named

    def _check_machine(self, gpus: int | None, cpus: int | None) -> None:
        check_machine(gpus, cpus)
        if not self._settings.ray and (gpus is not None or cpus is not None):
            raise UsageError(
                f"The job asks for gpus or cpus, but this server's jobs run on its own devices "
                f"({', '.join(self._settings.device)}), one at a time on each; leave them out, or start the server by "
                "tincture serve --ray."
            )

    def _require_adapters(self, training: TrainSettings) -> None:
        """UsageError naming every adapter to train that is not there."""
        faults = []
        for kind, name in training.adapters:
            try:
                self._workspace.find_adapter(kind, name)
            except UsageError as error:
                faults.append(error.sentence)
        if faults:
            raise UsageError(" ".join(faults))

    def _to_come(self) -> list[Path]:
        """Folders that jobs which have not ended will make."""
        made = [job.settings.get("destination") for job in self.unfinished() if job.kind == "preprocess"]
        return [Path(folder) for folder in made if isinstance(folder, str)]

    def _stop(self, job_id: str, wanted: Wanted, state: JobState) -> Job:
        waiting = {JobState.QUEUED} if state is JobState.PAUSED else {JobState.QUEUED, JobState.PAUSED}
        while True:
            job = self.store.get(job_id)
            try:
                if job.state is JobState.RUNNING:
                    return self.supervisor.ask(job_id, wanted)
                stopped = self.store.update(job_id, waiting, state=state, wanted=None, stage="", ended_at=time.time())
                self.supervisor.wake()
                return stopped
            except ConflictError:
                if self.store.get(job_id).state is job.state:
                    raise
                # It was begun, or stopped, in this very moment, and can be asked for the same as it is now.

    def _refuse_full(self) -> None:
        counts = self.store.counts()
        if counts[JobState.QUEUED] + counts[JobState.PAUSED] >= self._settings.max_jobs:
            raise QueueFullError(f"{self._settings.max_jobs} jobs are waiting already; try again when some are done.")

    def _queue_again(self, job_id: str, states: Collection[JobState]) -> Job:
        job = self.store.update(job_id, states, state=JobState.QUEUED, wanted=None, error="", error_type="", result={})
        self.supervisor.wake()
        return job


def _workers(where: Path, settings: ServerSettings) -> Workers:
    """On a cluster, if there is to be one, else on this machine."""
    if settings.ray:
        return ClusterWorkers(where, WatchedCluster(settings.ray), allow_hub=settings.allow_hub)
    return DeviceWorkers(where, settings.device, allow_hub=settings.allow_hub)


def _new_id() -> str:
    """Sorts by time; what follows the time cannot be guessed."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"
