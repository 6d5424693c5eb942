"""A sweep of the command line on a Ray cluster: a queue of its own, in the sweep's folder, has its runs done there."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from tincture.models.loading.default_model import default_model
from tincture.server.queue.cluster.watched import require_cluster
from tincture.server.queue.queue import JobQueue
from tincture.server.requests.places import Places
from tincture.server.sweeps.queued import RUNS_ON_A_CLUSTER, QueuedRuns
from tincture.settings.server import ServerSettings
from tincture.sweeps.sweep_folder import SweepFolder

QUEUE = "queue"
"""In a sweep's folder: the jobs' folders, which the cluster's machines must see too."""


@contextlib.contextmanager
def runs_on_cluster(sweep: SweepFolder, address: str, jobs: int | None, database: Path | None) -> Iterator[QueuedRuns]:
    """Inside, the runs of a sweep are done on a cluster.

    What a process that was killed left at work there goes on.

    Args:
        address: as ``tincture serve --ray`` takes it.
        jobs: runs at a time; None: as many as the cluster has room for, at most ``RUNS_ON_A_CLUSTER``.
        database: file of the queue, on a disk of this machine; None: in the sweep's folder.

    Raises:
        UsageError: the cluster cannot be reached.
    """
    require_cluster(address)
    workspace, folder = sweep.workspace, sweep.path / QUEUE
    settings = ServerSettings(ray=address, allow_hub=True, database=str(database) if database else "")
    places = Places(workspace, folder, [Path(folder.anchor or "/").as_posix()], allow_hub=True)
    queue = JobQueue(
        places, settings, folder, lambda job: None, lambda adapter: default_model(workspace, adapter=adapter).name
    )
    closing = threading.Event()
    with contextlib.closing(queue.store):
        queue.supervisor.start()
        try:
            yield QueuedRuns(sweep, queue, jobs or RUNS_ON_A_CLUSTER, closing, "cli")
        finally:
            closing.set()
            queue.supervisor.close()
