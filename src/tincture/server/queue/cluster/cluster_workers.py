"""Workers on a Ray cluster, as the server sees them: for each job a process here, the relay, that has it done there."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tincture.formats.file_lock import FileLock, SharedLock
from tincture.server.errors import ConflictError, NotFoundError
from tincture.server.queue.cluster.needs import Needs, needs_of, what_it_waits_for
from tincture.server.queue.cluster.watched import WatchedCluster
from tincture.server.queue.folder import JobFolder
from tincture.server.queue.jobs import Job, JobState
from tincture.server.queue.store import JobStore
from tincture.server.queue.worker_process import CPU, WorkerProcess, end_by_force, task_of
from tincture.server.queue.workers import Line, Loss

RELAY = (sys.executable, "-P", "-m", "tincture.server.queue.cluster.relay")
ANY = "auto"
"""The device that jobs of a cluster are claimed for: which one they get is decided there."""
MOST_LOSSES = 3
"""Times in a row that a job goes on by itself after its node was lost."""
SETTLED_S = 1.5
"""Seconds after a job has got its place until what is free is known again."""
KILL_S = 20.0
"""Seconds that a worker on the cluster has to be killed."""
_OWN_STAGE = "waits for "
_OTHERS_STAGE = "waits for job "
_TURNS = 50


class ClusterWorkers:
    """As many workers as the cluster has room for; the job whose turn it is waits for its room, before all others.

    Args:
        where: the folder to work in, which all nodes see at the same path.
        cluster: which one.
        command: the worker's program on the nodes, to which the job's folder is added; None: ours.
        allow_hub: whether jobs may ask the Hugging Face hub for models.
    """

    def __init__(
        self,
        where: Path,
        cluster: WatchedCluster,
        *,
        command: Sequence[str] | None = None,
        allow_hub: bool = False,
    ) -> None:
        self.where, self.cluster, self.command, self.allow_hub = where, cluster, command, allow_hub
        self._lock = threading.Lock()
        self._placing: str | None = None
        self._placed_at = -SETTLED_S
        self._losses: Counter[str] = Counter()
        self._node_locks: dict[Path, SharedLock] = {}

    @property
    def lines(self) -> Sequence[Line]:
        return Line(ANY, "training", one_at_a_time=False), Line(CPU, "preprocessing", one_at_a_time=False)

    def start(self) -> None:
        self.cluster.start()

    def close(self) -> None:
        self.cluster.close()

    def claim(self, store: JobStore, line: Line) -> Job | None:
        nodes = self.cluster.nodes
        blocked = False
        for job in store.turns(line.device, [line.lane], limit=_TURNS):
            needs = needs_of(job, nodes)
            stage = "" if blocked else what_it_waits_for(needs, nodes)
            if not blocked and not stage:
                return self._claimed(store, line, job)
            _note(store, job, stage)
            # One that no node can hold lets the others pass; one that waits for room does not.
            blocked = blocked or any(node.holds(needs) for node in nodes)
        return None

    def _claimed(self, store: JobStore, line: Line, job: Job) -> Job | None:
        """The job, unless another one is just being placed: what is free is known only after that."""
        with self._lock:
            if self._placing is not None or time.monotonic() - self._placed_at < SETTLED_S:
                return None
            claimed = store.claim(line.device, [line.lane], only=job.id)
            self._placing = claimed.id if claimed else None
            return claimed

    def begin(self, job: Job, folder: JobFolder) -> ClusterWorker:
        try:
            worker = ClusterWorker(self, job, folder, needs_of(job, self.cluster.nodes))
        except BaseException:
            self.placed(job.id)
            raise
        return worker

    def placed(self, job_id: str) -> None:
        """Notes that a job has its place, or has ended: the next one may get one."""
        with self._lock:
            if self._placing == job_id:
                self._placing, self._placed_at = None, time.monotonic()

    def lost(self, job_id: str, sentence: str) -> Loss:
        """Counts that a job lost its node."""
        self._losses[job_id] += 1
        return Loss(sentence, often=self._losses[job_id] > MOST_LOSSES)

    def has_left(self, folder: JobFolder, *, overdue: bool) -> bool:
        locks = [FileLock(folder.lock_file)]
        if folder.node_lock_file.exists():
            # One and the same while it is asked again and again: it watches for signs of life.
            locks.append(self._node_locks.setdefault(folder.path, SharedLock(folder.node_lock_file)))
        with contextlib.ExitStack() as taken:
            for lock in locks:
                taken.callback(lock.free)
                if not lock.take():
                    if overdue and (process := lock.holder()):
                        end_by_force(process)
                    self.placed(folder.path.name)  # others need not wait for this one's place meanwhile
                    return False
        self._node_locks.pop(folder.path, None)
        return True


class ClusterWorker:
    """The worker of a job on the cluster, by its relay. What the relay notes of it stands in ``relay.json``."""

    def __init__(self, workers: ClusterWorkers, job: Job, folder: JobFolder, needs: Needs) -> None:
        self._workers, self._job, self._folder = workers, job, folder
        self._kill_by: float | None = None
        self._noted: dict[str, Any] = {}
        with contextlib.suppress(FileNotFoundError):
            folder.relay_file.unlink()
        node = {"cpus": needs.cpus, "gpus": needs.gpus, "threads": needs.threads, "shared": True}
        command = {"command": list(workers.command)} if workers.command else {}
        task = {**task_of(job, workers.where), **node, **command, "allow_hub": workers.allow_hub}
        self._relay = WorkerProcess(
            folder,
            task,
            workers.where,
            [*RELAY, workers.cluster.address],
            environment=workers.cluster.environment,
            files=workers.cluster.holds,
        )

    @property
    def place(self) -> str:
        return str(self._noted.get("node", ""))

    @property
    def loss(self) -> Loss | None:
        """Losses that are not its node's, but want of room on it, count for nothing."""
        sentence = self._noted.get("lost")
        if self._kill_by is None and not {"status", "no_room", "ended"} & self._noted.keys():
            # Ray ends the processes that speak with a cluster when that is lost, by whatever status.
            sentence = sentence or "The process that has the job done on the cluster was ended, as when that is lost."
        if sentence:
            return self._workers.lost(self._job.id, sentence)
        return Loss(self._noted["no_room"]) if "no_room" in self._noted else None

    def order(self, text: str) -> None:
        self._relay.order(text)

    def wait(self, seconds: float) -> int | None:
        status = self._relay.wait(seconds)
        if not self.place or status is not None:
            with contextlib.suppress(OSError, ValueError):
                self._noted = json.loads(self._folder.relay_file.read_bytes())
        if self.place or status is not None:
            self._workers.placed(self._job.id)
        if status is None and self._kill_by is not None and time.monotonic() > self._kill_by:
            self._relay.kill()
        return self._noted.get("status", status) if status is not None else None

    def kill(self) -> None:
        if self._kill_by is None:
            self._kill_by = time.monotonic() + KILL_S
            self._relay.order("kill")

    def close(self) -> None:
        try:
            if self._relay.wait(0) is None:
                self.kill()
                self._relay.wait(KILL_S)
        finally:
            self._relay.close()
            self._workers.placed(self._job.id)


def _note(store: JobStore, job: Job, stage: str) -> None:
    """Lets a waiting job say what it waits for, unless it says something else already."""
    others = job.stage and (job.stage.startswith(_OTHERS_STAGE) or not job.stage.startswith(_OWN_STAGE))
    if stage != job.stage and (stage or not others):
        with contextlib.suppress(ConflictError, NotFoundError):
            store.update(job.id, [JobState.QUEUED], stage=stage)
