"""What a job takes of one machine, and whether a machine has that: arithmetic that asks nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tincture.server.queue.jobs import Job


@dataclass(frozen=True)
class Needs:
    """Processors and GPUs of one machine that a job has for itself, and by how many processes it computes."""

    cpus: int
    gpus: int
    processes: int = 1

    @property
    def threads(self) -> int:
        """CPU threads of each of its processes."""
        return max(1, self.cpus // self.processes)

    def __str__(self) -> str:
        gpus = f"{self.gpus} GPU{'s' * (self.gpus > 1)} and " if self.gpus else ""
        return f"{gpus}{self.cpus} CPU{'s' * (self.cpus > 1)}"


@dataclass(frozen=True)
class Node:
    """A machine of the cluster: its name, all that it has for jobs, and what of it is free."""

    name: str
    total: Mapping[str, float]
    free: Mapping[str, float]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Node:
        return cls(values["name"], values["total"], values["free"])

    def holds(self, needs: Needs) -> bool:
        """Whether it has so much when nothing runs there."""
        return _covers(self.total, needs)

    def has_room(self, needs: Needs) -> bool:
        """Whether so much of it is free now."""
        return _covers(self.free, needs)

    def __str__(self) -> str:
        return str(Needs(int(self.total.get("CPU", 0)), int(self.total.get("GPU", 0))))


def needs_of(job: Job, nodes: Sequence[Node]) -> Needs:
    """What a job takes: what it asks for, else a GPU for each process if a node has any and it may use it.

    A training that has several GPUs and does not say by how many processes it computes does so by one for each. Where
    nothing is said of processors, each process has one.
    """
    asked = str(job.settings.get("processes") or "")
    there = any(node.total.get("GPU", 0) >= 1 for node in nodes)
    may = there and job.lane == "training" and job.settings.get("device") != "cpu"
    named = int(asked) if asked.isdecimal() else 1
    gpus = named * may if job.gpus is None else job.gpus
    processes = named if asked.isdecimal() else max(1, gpus)
    return Needs(max(1, gpus, processes) if job.cpus is None else job.cpus, gpus, processes)


def what_it_waits_for(needs: Needs, nodes: Sequence[Node]) -> str:
    """Why a job cannot begin now, as a sentence without its end; empty where a node has room for it."""
    if any(node.has_room(needs) for node in nodes):
        return ""
    if not nodes:
        return f"waits for a node of the cluster with {needs}; it has none now"
    if not any(node.holds(needs) for node in nodes):
        largest = max(nodes, key=lambda node: (node.total.get("GPU", 0), node.total.get("CPU", 0)))
        return f"waits for a node of the cluster with {needs}; the largest has {largest}"
    return f"waits for {needs} of one node of the cluster to be free"


def _covers(resources: Mapping[str, float], needs: Needs) -> bool:
    return resources.get("CPU", 0) >= needs.cpus and resources.get("GPU", 0) >= needs.gpus
