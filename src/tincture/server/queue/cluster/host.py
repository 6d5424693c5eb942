"""What stands on a machine of the cluster for one job: it starts the worker there, and passes on orders to it."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from pathlib import Path
from typing import Any, NamedTuple

from tincture.errors import TinctureError
from tincture.formats.file_lock import SharedLock
from tincture.formats.software import VERSION
from tincture.models.threads import CHOSEN, VARIABLE
from tincture.server.child_environment import child_environment
from tincture.server.queue.folder import JobFolder
from tincture.server.queue.worker_process import WorkerProcess

LEAVE_S = 60.0
"""Seconds that a worker of before, of a machine that was lost, has to end."""
_POLL_S = 0.2


class Refusal(NamedTuple):
    """Why a worker cannot be started; ``again``: that passes by itself."""

    sentence: str
    again: bool = False


class Host:
    """Ray makes one for each job, on the machine that it has chosen, with the job's GPUs to be seen alone."""

    def __init__(self) -> None:
        self._worker: WorkerProcess | None = None
        self._lock: SharedLock | None = None

    def about(self) -> dict[str, str]:
        """The machine's name, and Tincture's version on it."""
        return {"node": socket.gethostname(), "version": VERSION}

    def begin(self, folder: str, task: dict[str, Any], witness: str) -> Refusal | None:
        """Starts the worker; returns why it cannot be, None when it was.

        Args:
            folder: the job's.
            task: what ``job.json`` must say there.
            witness: a file of the workspace that the server has just made.
        """
        place = JobFolder(Path(folder))
        if not (_sees(place, task) and Path(witness).is_file()):
            return Refusal(
                f"The node {socket.gethostname()} does not see the server's files in {folder} and {task['root']}; all "
                "nodes need the workspace, and the folder of --state-dir, at the same path on a folder that they share."
            )
        lock = SharedLock(place.node_lock_file)
        end = time.monotonic() + LEAVE_S
        while not lock.take():
            if time.monotonic() > end:
                held_on = str(lock.facts().get("host", "another one")).partition(" ")[0]
                return Refusal(f"The job's worker of before has not ended yet on its node, {held_on}.", again=True)
            time.sleep(_POLL_S)
        try:
            root, command = Path(task["root"]), task.get("command")
            self._worker = WorkerProcess(place, task, root, command, environment=_environment(task), lock=lock)
        except TinctureError as error:
            lock.free()
            return Refusal(error.sentence)
        self._lock = SharedLock(place.node_lock_file)
        return None

    def order(self, text: str) -> None:
        """Passes an order on."""
        if self._worker:
            self._worker.order(text)

    def wait(self, seconds: float) -> int | None:
        """The worker's exit status; None while it works."""
        assert self._worker
        status = self._worker.wait(seconds)
        if status is not None:
            self._worker.close()
        if status is not None and self._lock and self._lock.take():
            self._lock.wipe()
            self._lock.free()
        return status

    def kill(self) -> None:
        """Ends the worker at once, with all that it started."""
        if self._worker:
            self._worker.kill()


def _sees(place: JobFolder, task: dict[str, Any]) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return bool(json.loads(place.task.read_bytes()) == task)
    return False


def _environment(task: dict[str, Any]) -> dict[str, str]:
    """As many CPU threads as the job has processors for, on whatever machine: its last bits depend on that."""
    inherited = child_environment(allow_hub=task["allow_hub"])
    inherited.pop(CHOSEN, None)
    return {**inherited, VARIABLE: str(task["threads"])}
