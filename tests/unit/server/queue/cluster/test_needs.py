from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tincture.server.queue.cluster.needs import Needs, Node, needs_of, what_it_waits_for
from tincture.server.queue.jobs import Job


def job(**values: Any) -> Job:
    return Job(**{"id": "one", "kind": "train", "name": "cat", "settings": {}, **values})


def node(cpus: float, gpus: float = 0, *, free: tuple[float, float] | None = None, name: str = "a") -> Node:
    free = (cpus, gpus) if free is None else free
    return Node(name, {"CPU": cpus, "GPU": gpus}, {"CPU": free[0], "GPU": free[1]})


@pytest.mark.parametrize(
    ("values", "nodes", "expected"),
    [
        ({}, [node(4)], Needs(1, 0)),
        ({}, [node(4), node(8, 2)], Needs(1, 1)),
        ({"gpus": 0}, [node(8, 2)], Needs(1, 0)),
        ({"gpus": 2}, [node(8, 2)], Needs(2, 2, 2)),
        ({"gpus": 2, "cpus": 1}, [node(8, 2)], Needs(1, 2, 2)),
        ({"cpus": 6}, [node(8, 2)], Needs(6, 1)),
        ({"settings": {"device": "cpu"}}, [node(8, 2)], Needs(1, 0)),
        ({"kind": "preprocess"}, [node(8, 2)], Needs(1, 0)),
        ({"kind": "preprocess", "settings": {"captioner": "blip"}}, [node(8, 2)], Needs(1, 1)),
        ({}, [], Needs(1, 0)),
        ({"gpus": 2, "settings": {"processes": ""}}, [node(8, 2)], Needs(2, 2, 2)),
        ({"settings": {"processes": "3"}}, [node(8, 4)], Needs(3, 3, 3)),
        ({"settings": {"processes": "3"}}, [node(8)], Needs(3, 0, 3)),
        ({"settings": {"processes": "3"}, "cpus": 6, "gpus": 1}, [node(8, 2)], Needs(6, 1, 3)),
        ({"settings": {"processes": "auto"}}, [node(8, 2)], Needs(1, 1)),
        ({"settings": {"processes": "auto"}, "gpus": 4}, [node(8, 2)], Needs(4, 4, 4)),
    ],
)
def test_what_a_job_takes(values: dict[str, Any], nodes: Sequence[Node], expected: Needs) -> None:
    assert needs_of(job(**values), nodes) == expected


@pytest.mark.parametrize(
    ("needs", "threads"), [(Needs(1, 0), 1), (Needs(6, 0), 6), (Needs(6, 3, 3), 2), (Needs(1, 4, 4), 1)]
)
def test_threads_of_each_process(needs: Needs, threads: int) -> None:
    assert needs.threads == threads


@pytest.mark.parametrize(
    ("needs", "nodes", "expected"),
    [
        (Needs(1, 0), [node(2)], ""),
        (
            Needs(2, 1),
            [node(1, 1), node(2, 0)],
            "waits for a node of the cluster with 1 GPU and 2 CPUs; the largest has",
        ),
        (
            Needs(1, 2),
            [node(9, 1)],
            "waits for a node of the cluster with 2 GPUs and 1 CPU; the largest has 1 GPU and 9",
        ),
        (Needs(1, 1), [node(9, 1, free=(9, 0))], "waits for 1 GPU and 1 CPU of one node of the cluster to be free"),
        # Halves that are free on two nodes are no whole.
        (Needs(2, 0), [node(2, free=(1, 0)), node(2, free=(1, 0))], "waits for 2 CPUs of one node"),
        (Needs(2, 0), [], "waits for a node of the cluster with 2 CPUs; it has none now"),
    ],
)
def test_what_a_job_waits_for(needs: Needs, nodes: Sequence[Node], expected: str) -> None:
    found = what_it_waits_for(needs, nodes)
    assert found.startswith(expected)
    assert bool(found) == bool(expected)
