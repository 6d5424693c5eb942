"""The server's process for one job of the cluster: ``python -P -m ...relay ADDRESS JOB_FOLDER``.

To the server it is a worker: it takes the same orders on standard input and holds the job's lock. It lets Ray choose a
machine that has what the job needs, has the worker started there, and passes on orders; what the worker reports comes
through the job's folder. Ray begins nothing anew by itself. ``relay.json`` says:

node      the machine's name, once the job has one
status    the worker's exit status; not there when it is not known
ended     that the job has no worker, and how it ended stands among its events
lost      why the worker is gone for no fault of the job's
no_room   why it could not begin, for no fault of the job's
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tincture.errors import TinctureError, foreign
from tincture.formats.file_lock import SharedLock
from tincture.formats.files import write_text
from tincture.formats.software import VERSION
from tincture.server.queue.cluster.connection import connect
from tincture.server.queue.cluster.host import LEAVE_S, Host
from tincture.server.queue.event_file import EventFile
from tincture.server.queue.folder import JobFolder

STOPPED = 130
NOT_DONE = 75
"""The exit status of a relay whose job is not done, for no fault of its own."""
PLACE_S = 30.0
"""Seconds within which Ray has to find a place, since there was one."""
WAIT_S = 20.0
"""Seconds of one question whether the worker has ended."""
SILENT_S = 300.0
"""Seconds for which a node that Ray cannot reach is hoped for."""
_POLL_S = 0.1


class Ended(Exception):
    """The relay has nothing more to do; ``status`` is its exit status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Relay:
    """One attempt at a job."""

    def __init__(self, folder: JobFolder) -> None:
        self.folder = folder
        self.task: dict[str, Any] = json.loads(folder.task.read_text(encoding="utf-8"))
        self.orders: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._noted: dict[str, Any] = {}

    def run(self, address: str) -> int:
        """Has the job done; returns the exit status."""
        try:
            try:
                connect(address)
            except TinctureError as error:
                raise self._not_done("no_room", error.sentence) from None
            return self._follow(self._begun(self._placed()))
        except Ended as ended:
            return ended.status

    def _placed(self) -> Any:
        """Who stands for the job on the machine that Ray has chosen."""
        import ray

        asked = {"num_cpus": self.task["cpus"], "num_gpus": self.task["gpus"]}
        host = ray.remote(Host).options(max_restarts=0, max_task_retries=0, max_concurrency=4, **asked).remote()
        about, end = host.about.remote(), time.monotonic() + PLACE_S
        while not ray.wait([about], timeout=_POLL_S)[0]:
            if "stop" in self._new_orders(("stop", "kill")):
                self._end({"state": "stopped", "result": {}})
                raise Ended(STOPPED)
            if time.monotonic() > end:
                raise self._not_done("no_room", "The cluster had no room for the job after all.")
        try:
            found = ray.get(about)
        except Exception as error:
            raise self._failed(_not_started(error)) from None
        if found["version"] != VERSION:
            raise self._failed(
                f"The node {found['node']} has Tincture {found['version']}, but the server has {VERSION}; all machines "
                "of the cluster need the same."
            )
        self._note(node=found["node"])
        print(f"on the node {found['node']}", flush=True)
        return host

    def _begun(self, host: Any) -> Any:
        """The same, with a worker at work."""
        import ray

        try:
            with _witness(Path(self.task["root"])) as witness:
                refusal = ray.get(host.begin.remote(str(self.folder.path), self.task, str(witness)))
        except ray.exceptions.RayError as error:
            raise self._lost(error) from None
        except OSError as error:
            raise self._failed(f"{self.task['root']} could not be written: {error.strerror or error}.") from None
        if refusal:
            raise self._not_done("no_room", refusal.sentence) if refusal.again else self._failed(refusal.sentence)
        return host

    def _follow(self, host: Any) -> int:
        """Passes on orders until the worker has ended; returns its exit status."""
        import ray

        ended, unreachable = host.wait.remote(WAIT_S), None
        while True:
            for order in self._new_orders():
                (host.kill.remote() if order == "kill" else host.order.remote(order))
            if not ray.wait([ended], timeout=_POLL_S)[0]:
                continue
            try:
                status = ray.get(ended)
            except ray.exceptions.ActorUnavailableError as error:
                unreachable = unreachable or time.monotonic()
                if time.monotonic() - unreachable > SILENT_S:
                    raise self._lost(error) from None
                time.sleep(1.0)
            except ray.exceptions.RayError as error:
                raise self._lost(error) from None
            else:
                unreachable = None
                if status is not None:
                    self._note(status=status)
                    return status if status >= 0 else NOT_DONE
            ended = host.wait.remote(WAIT_S)

    def _new_orders(self, only: Sequence[str] = ()) -> list[str]:
        """Orders that came since the last time; others than ``only`` are left for later."""
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self.orders.get_nowait())
        for order in found:
            if only and order not in only:
                self.orders.put(order)
        return [order for order in found if not only or order in only]

    # --- how it ends -------------------------------------------------------------------------------------------------

    def _note(self, **facts: Any) -> None:
        self._noted |= facts
        write_text(self.folder.relay_file, json.dumps(self._noted) + "\n")

    def _not_done(self, why: str, sentence: str) -> Ended:
        print(sentence, flush=True)
        self._note(**{why: sentence})
        return Ended(NOT_DONE)

    def _lost(self, error: Exception) -> Ended:
        print(" ".join(str(error).split())[:1000], flush=True)
        node = self._noted.get("node", "of the job")
        return self._not_done("lost", f"The node {node} was lost; the job goes on elsewhere, from what it saved.")

    def _failed(self, sentence: str) -> Ended:
        self._end({"state": "failed", "error": sentence, "error_type": "ClusterError"})
        return Ended(1)

    def _end(self, record: dict[str, Any]) -> None:
        """Reports the end of a job that has no worker, or waits for it in vain."""
        self._note(ended=True)
        lock = SharedLock(self.folder.node_lock_file)
        end = time.monotonic() + LEAVE_S
        while not lock.take() and time.monotonic() < end:
            time.sleep(_POLL_S)
        with contextlib.closing(EventFile(self.folder.event_file)) as events:
            record = {"time": round(time.time(), 3), "type": "ended", "attempt": self.task["attempt"], **record}
            events.write([record], durably=True)
        lock.wipe()
        lock.free()


@contextlib.contextmanager
def _witness(root: Path) -> Iterator[Path]:
    """A file of the workspace that a machine with another folder of its name has not."""
    path = root / f".tincture-{secrets.token_hex(8)}.tmp"
    path.touch(exist_ok=False)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _not_started(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "No module named 'tincture" in text:
        return "The node that Ray chose has no Tincture installed; all machines of the cluster need the same one."
    return f"The cluster could not begin the job: {foreign(text[-600:], 600)}."


def listen(orders: queue.SimpleQueue[str], file: int) -> None:
    """Takes orders, a line each, until the file ends: the server has died, and the job shall save and stop."""
    rest = b""
    while content := os.read(file, 4096):
        *lines, rest = (rest + content).split(b"\n")
        for line in lines:
            orders.put(line.decode(errors="replace").strip())
    orders.put("stop")


def main(arguments: Sequence[str]) -> int:
    """The program."""
    address, folder = arguments
    relay = Relay(JobFolder(Path(folder)))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: relay.orders.put("stop"))
    threading.Thread(target=listen, args=[relay.orders, 0], name="orders", daemon=True).start()
    status = relay.run(address)
    sys.stdout.flush()
    os._exit(status)  # Ray ends what this process had there, and need not be waited for


if __name__ == "__main__":
    main(sys.argv[1:])
