"""A worker as the server sees it: a process with a lock, orders on its standard input, and a log."""

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

# -P: a file in the workspace that is called like a module is not taken for it.
COMMAND = (sys.executable, "-P", "-m", "tincture.server.queue.worker")


class WorkerProcess:
    """Starts a worker for the job in ``folder``.

    Args:
        folder: where ``task`` is written, and the worker's output goes.
        task: what to do; see ``worker.Task``.
        where: the folder that it works in.
        command: the program, to which the job's folder is added; None: ours.
        allow_hub: whether it may ask the Hugging Face hub for models.

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
        allow_hub: bool = False,
    ) -> None:
        lock = FileLock(folder.lock_file)
        if not lock.take():
            raise ConflictError(f"A process that began with this job before ({lock.holder()}) has not ended yet.")
        try:
            write_text(folder.task, json.dumps(task, ensure_ascii=False, indent=2) + "\n")
            whole, environment = [*(command or COMMAND), str(folder.path)], child_environment(allow_hub=allow_hub)
            self._process = _started(whole, folder.log_file, where, lock.files, environment)
        except BaseException:
            lock.free()
            raise
        lock.name_holder(self._process.pid)
        lock.leave()  # the worker holds it too, from its birth

    def order(self, text: str) -> None:
        """Gives the worker an order; one that has ended does not hear it."""
        assert self._process.stdin
        with contextlib.suppress(OSError):
            self._process.stdin.write(text.encode() + b"\n")
            self._process.stdin.flush()

    def wait(self, seconds: float) -> int | None:
        """The exit status; None when it has not ended after so many seconds. Below 0: the signal that ended it."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """Ends it at once, with the processes that it started."""
        if self._process.poll() is None:
            end_by_force(self._process.pid)
            self._process.kill()

    def close(self) -> None:
        """Ends it if it lives, and forgets it."""
        self.kill()
        self._process.wait()
        assert self._process.stdin
        with contextlib.suppress(OSError):
            self._process.stdin.close()


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
