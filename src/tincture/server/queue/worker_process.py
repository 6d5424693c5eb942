"""Workers that are processes of this machine: each with a lock, orders on its standard input, and a log."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tincture.errors import StorageError, TinctureError
from tincture.formats.file_lock import FileLock
from tincture.formats.files import write_text
from tincture.server.child_environment import child_environment
from tincture.server.errors import ConflictError
from tincture.server.queue.folder import JobFolder
from tincture.server.queue.jobs import Job
from tincture.server.queue.store import JobStore
from tincture.server.queue.workers import Line, Loss

# -P: a file in the workspace that is called like a module is not taken for it.
COMMAND = (sys.executable, "-P", "-m", "tincture.server.queue.worker")
CPU = "cpu"
"""Where jobs of the lane of preprocessing run."""


class DeviceWorkers:
    """Workers on the devices of this machine, one at a time on each; and one for preprocessing, on the processor.

    Args:
        where: the folder to work in.
        devices: names of devices, such as ``auto`` or ``cuda:1``.
        command: the worker's program, to which the job's folder is added; None: ours.
        allow_hub: whether jobs may ask the Hugging Face hub for models.
    """

    def __init__(
        self, where: Path, devices: Sequence[str], *, command: Sequence[str] | None = None, allow_hub: bool = False
    ) -> None:
        self.where, self.devices, self.command, self.allow_hub = where, tuple(devices), command, allow_hub

    @property
    def lines(self) -> Sequence[Line]:
        return (*(Line(device, "training") for device in self.devices), Line(CPU, "preprocessing"))

    def start(self) -> None:
        pass  # they are there

    def claim(self, store: JobStore, line: Line) -> Job | None:
        return store.claim(line.device, [line.lane])

    def begin(self, job: Job, folder: JobFolder) -> WorkerProcess:
        environment = child_environment(allow_hub=self.allow_hub)
        return WorkerProcess(folder, task_of(job, self.where), self.where, self.command, environment=environment)

    def has_left(self, folder: JobFolder, *, overdue: bool) -> bool:
        lock = FileLock(folder.lock_file)
        if lock.take():
            lock.free()
            return True
        if overdue and (process := lock.holder()):
            end_by_force(process)
        return False

    def close(self) -> None:
        pass  # each job's ended with the job


class WorkerProcess:
    """Starts a worker for the job in ``folder``.

    Args:
        folder: where ``task`` is written, and the worker's output goes.
        task: what to do; see ``worker.Task``.
        where: the folder that it works in.
        command: the program, to which the job's folder is added; None: ours.
        environment: its variables.
        lock: what it shall hold; None: the job's lock.
        files: further files that it shall have open.

    Raises:
        ConflictError: another worker works on it still.
        StorageError: the folder cannot be written.
        TinctureError: the program cannot be started.
    """

    def __init__(
        self,
        folder: JobFolder,
        task: Mapping[str, Any],
        where: Path,
        command: Sequence[str] | None = None,
        *,
        environment: Mapping[str, str],
        lock: FileLock | None = None,
        files: Sequence[int] = (),
    ) -> None:
        lock = lock or FileLock(folder.lock_file)
        if not lock.take():
            raise ConflictError(f"A process that began with this job before ({lock.holder()}) has not ended yet.")
        try:
            write_text(folder.task, json.dumps(task, ensure_ascii=False, indent=2) + "\n")
            whole = [*(command or COMMAND), str(folder.path)]
            self._process = _started(whole, folder.log_file, where, [*lock.files, *files], environment)
        except BaseException:
            lock.free()
            raise
        lock.name_holder(self._process.pid)
        lock.leave()  # the worker holds it too, from its birth

    @property
    def loss(self) -> Loss | None:
        return None  # it is of this machine, as its server is

    @property
    def place(self) -> str:
        return ""  # that of its job

    def order(self, text: str) -> None:
        assert self._process.stdin
        with contextlib.suppress(OSError):
            self._process.stdin.write(text.encode() + b"\n")
            self._process.stdin.flush()

    def wait(self, seconds: float) -> int | None:
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        if self._process.poll() is None:
            end_by_force(self._process.pid)
            self._process.kill()

    def close(self) -> None:
        self.kill()
        self._process.wait()
        assert self._process.stdin
        with contextlib.suppress(OSError):
            self._process.stdin.close()


def task_of(job: Job, where: Path) -> dict[str, Any]:
    """What a worker is to do; see ``worker.Task``."""
    return {
        "kind": job.kind,
        "settings": job.settings,
        "root": str(where),
        "run_dir": job.run_dir,
        "device": job.device,
        "attempt": job.attempts,
        "sweep": job.sweep,
    }


def end_by_force(process: int) -> None:
    """Kills a worker and all that it started, where the system knows groups of processes."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(OSError):
            os.killpg(process, signal.SIGKILL)


def _started(
    command: Sequence[str], log: Path, where: Path, files: Sequence[int], environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C reaches the server alone.
    own: dict[str, Any] = {"start_new_session": True, "pass_fds": files} if os.name == "posix" else {}
    try:
        with log.open("ab") as output:
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=output, stderr=output, cwd=where, env=environment, **own
            )
    except OSError as error:
        reason = error.strerror or str(error)
        if error.filename == str(log):
            raise StorageError(f"{log} could not be written: {reason}.") from error
        raise TinctureError(f"The worker's process could not be started ({error.filename}: {reason}).") from error
