"""The process that watches a cluster for the server: ``python -P -m tincture.server.queue.cluster.keeper ADDRESS``.

It writes lines of JSON: first ``address``, by which others connect, or ``error``, a sentence; then ``nodes``, whenever
they are others. A cluster that it has begun lives as long as it does. It ends when standard input does, whose other end
the server and each of the jobs' processes hold: so a cluster is there until the last job has saved.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from tincture.errors import UsageError
from tincture.server.queue.cluster.connection import connect

EVERY_S = 0.5
"""Seconds between two looks at the nodes."""
FAILURES = 20
"""Times in a row that the cluster does not answer, or has no node, after which it is given up."""


def nodes() -> list[dict[str, Any]]:
    """The nodes that are alive: name, what each has in all and what is free; CPU and GPU only."""
    import ray
    from ray._private.state import available_resources_per_node

    free = available_resources_per_node()
    return [
        {
            "name": node["NodeManagerHostname"],
            "total": _counted(node["Resources"]),
            "free": _counted(free.get(node["NodeID"], {})),
        }
        for node in ray.nodes()
        if node["Alive"]
    ]


def nodes_by_client() -> Callable[[], list[dict[str, Any]]]:
    """The same for one that is connected as a client (ray://), which a task on the cluster has to ask for."""
    import ray

    asked = ray.remote(num_cpus=0, max_retries=0)(nodes)
    return lambda: list(ray.get(asked.remote(), timeout=60))


def _counted(resources: dict[str, float]) -> dict[str, float]:
    return {name: resources.get(name, 0.0) for name in ("CPU", "GPU")}


def watch(ask: Callable[[], list[dict[str, Any]]], ended: threading.Event) -> None:
    """Tells of the nodes until it has ended, or the cluster has."""
    before: object = None
    failures, why = 0, ""
    while not ended.wait(0 if before is None and not failures else EVERY_S):
        try:
            now, why = ask(), "has no node any more"
            failures = 0 if now else failures + 1
            if now != before:
                say({"nodes": now})
            before = now
        except Exception as error:
            failures, why = failures + 1, f"does not answer any more ({type(error).__name__})"
        if failures >= FAILURES:
            raise UsageError(f"The Ray cluster {why}.")


def say(fact: dict[str, Any]) -> None:
    """One line; nobody may listen any more."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(fact).encode() + b"\n")


def main(arguments: Sequence[str]) -> int:
    """The program."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ended = threading.Event()
    threading.Thread(target=_wait_for_end, args=[ended], daemon=True).start()
    try:
        found = connect(arguments[0])
        import ray

        say(found)
        watch(nodes_by_client() if found["address"].startswith("ray://") else nodes, ended)
    except UsageError as error:
        say({"error": error.sentence})
        return 1
    ray.shutdown()
    return 0


def _wait_for_end(ended: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    ended.set()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
