"""Who does the runs of a sweep: processes of this machine here; a server's queue is another.

A run is asked for by ``submit`` and reports itself in its own folder (see ``TrialFolder``); an executor only says which
ones have ended.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tincture.errors import TinctureError
from tincture.formats.file_lock import FileLock
from tincture.models.threads import choose_threads
from tincture.processes.launch import environment_of_one
from tincture.sweeps.sweep_folder import SweepFolder, TrialFolder

COMMAND = (sys.executable, "-P", "-m", "tincture.sweeps.trial")
# -P: a file in the current folder that is called like a module is not taken for it.


@dataclass(frozen=True)
class Ended:
    """A run that nobody works at any more; ``words`` say how its process ended, for one that did not say so itself."""

    name: str
    words: str = ""


class Executor(Protocol):
    """Does runs, several at a time."""

    @property
    def slots(self) -> int:
        """How many may be submitted and not have ended."""
        ...

    def submit(self, name: str, until: int | None) -> None:
        """Lets the run of that name be trained to that step (None: to its end), or go on to it."""
        ...

    def wait(self, seconds: float) -> list[Ended]:
        """Those that ended since the last call; blocks so long at most where there are none."""
        ...

    def stop(self) -> None:
        """Asks all to end after their step, saved; ``wait`` gives them then."""
        ...


@dataclass
class _Running:
    lock: FileLock
    device: str
    process: subprocess.Popen[bytes] | None = None


class Processes:
    """Each run in a process of its own, that ends with this one, saved.

    Args:
        sweep: whose runs they are.
        devices: a place for each; empty ones leave it to the settings. On one processor several share its cores.
    """

    def __init__(self, sweep: SweepFolder, devices: Sequence[str], command: Sequence[str] = COMMAND) -> None:
        self._sweep, self._free, self._command = sweep, list(devices), command
        self.slots = len(devices)
        self._running: dict[str, _Running] = {}
        if sum(device in ("", "cpu") for device in devices) > 1:
            choose_threads(shares=len(devices))

    def submit(self, name: str, until: int | None) -> None:
        """See ``Executor``. A process that an earlier sweep has left is waited for: it saves and ends by itself."""
        folder = self._sweep.trial(name)
        device = self._free.pop(0)
        folder.ask(until, device)
        self._running[name] = _Running(FileLock(folder.lock), device)
        self._start(name)

    def wait(self, seconds: float) -> list[Ended]:
        """See ``Executor``."""
        end = time.monotonic() + seconds
        while True:
            ended = [found for name in list(self._running) if (found := self._ended(name))]
            if ended or time.monotonic() >= end:
                return ended
            time.sleep(min(0.05, seconds))

    def stop(self) -> None:
        """See ``Executor``."""
        for running in self._running.values():
            if running.process and running.process.stdin:
                with contextlib.suppress(OSError):
                    running.process.stdin.close()

    def close(self) -> None:
        """Ends what still runs, saved, and waits for it."""
        self.stop()
        for running in self._running.values():
            if running.process:
                running.process.wait()

    def _start(self, name: str) -> None:
        running, folder = self._running[name], self._sweep.trial(name)
        if not running.lock.take():
            return
        own: dict[str, Any] = {}
        if os.name == "posix":  # Ctrl-C reaches the sweep alone
            own = {"start_new_session": True, "pass_fds": running.lock.files}
        try:
            with folder.log.open("ab") as output:
                running.process = subprocess.Popen(
                    [*self._command, str(folder.path)],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                    cwd=self._sweep.cwd,
                    env=environment_of_one(),  # in a batch script of Slurm, too
                    **own,
                )
        except OSError as error:
            running.lock.free()
            raise TinctureError(f"The process of {name} could not be started ({error.strerror or error}).") from error
        running.lock.name_holder(running.process.pid)
        running.lock.leave()  # the process holds it too, from its birth

    def _ended(self, name: str) -> Ended | None:
        running = self._running[name]
        if running.process is None:
            self._start(name)
            return None
        status = running.process.poll()
        if status is None:
            return None
        if running.process.stdin:
            with contextlib.suppress(OSError):
                running.process.stdin.close()
        del self._running[name]
        self._free.append(running.device)
        return Ended(name, _words(status, self._sweep.trial(name)))


def _words(status: int, folder: TrialFolder) -> str:
    how = f"with status {status}" if status >= 0 else f"by signal {-status}"
    hint = ", as the system does when memory runs out" if status == -9 else ""
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = [line.strip() for line in folder.log.read_text(encoding="utf-8", errors="replace").splitlines() if line]
    last = f" Its log ends: {lines[-1][:200]}" if lines else ""
    return f"Its process ended {how}{hint}, without saying why.{last}"
