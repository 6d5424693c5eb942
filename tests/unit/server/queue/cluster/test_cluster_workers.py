from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from tests.unit.server.queue.cluster.fake_relay import COMMAND
from tests.unit.server.queue.cluster.test_needs import node
from tests.unit.server.queue.test_supervisor import PATIENCE, PREPARED, STOPPED, Queue, left_running
from tincture.formats.file_lock import SharedLock
from tincture.server.queue.cluster import cluster_workers
from tincture.server.queue.cluster.cluster_workers import MOST_LOSSES, ClusterWorkers
from tincture.server.queue.cluster.needs import Node
from tincture.server.queue.cluster.watched import WatchedCluster
from tincture.server.queue.jobs import JobState, Wanted
from tincture.server.queue.supervisor import Supervisor
from tincture.workspace import Workspace


class FakeCluster:
    address, holds, environment = "mars:1", (), {"PATH": "/bin"}

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = tuple(nodes)

    def start(self) -> None:
        pass

    def close(self) -> None:
        pass


class ClusterQueue(Queue):
    """A store, and a supervisor whose workers are on a cluster of which only the nodes are there."""

    def cluster(self, *nodes: Node, **options: Any) -> Supervisor:
        self.nodes = FakeCluster(nodes)
        workers = ClusterWorkers(self.root, cast(WatchedCluster, self.nodes))
        made = Supervisor(self.store, self.folder, Workspace(self.root), workers, **options)
        self.supervisors.append(made)
        made.start()
        return made


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClusterQueue]:
    monkeypatch.setattr(cluster_workers, "RELAY", COMMAND)
    monkeypatch.setattr(cluster_workers, "SETTLED_S", 0.0)
    monkeypatch.setattr("tincture.server.queue.supervisor.IDLE_S", 0.05)
    monkeypatch.setattr("tincture.server.queue.supervisor.AGAIN_S", 0.05)
    made = ClusterQueue(tmp_path)
    yield made
    for each in made.supervisors:
        each.close()


def test_jobs_run_beside_each_other_and_are_steered_as_those_of_this_machine(queue: ClusterQueue) -> None:
    supervisor = queue.cluster(node(8))
    for wanted in Wanted:
        queue.add(str(wanted), "steps")
    supervisor.wake()
    for wanted in Wanted:
        queue.until_step(wanted)
        queue.until(lambda each=wanted: queue.store.get(each).device == "mars")
    assert {job.state for job in queue.store.list()} == {JobState.RUNNING}  # all at a time
    for wanted, state in zip(
        (Wanted.PAUSED, Wanted.CANCELLED, Wanted.INTERRUPTED),
        (JobState.PAUSED, JobState.CANCELLED, JobState.DONE),
        strict=True,
    ):
        supervisor.ask(wanted, wanted)
        ended = supervisor.wait(wanted, PATIENCE)
        assert (ended.state, ended.error, ended.run_dir) == (state, "", str(queue.folder / wanted / "run"))
    assert queue.store.get("interrupted").result["order"] == "finish"


def test_what_no_node_can_hold_says_so_and_lets_others_pass(queue: ClusterQueue) -> None:
    queue.add("big", gpus=2, priority=9)
    queue.add("small", "done")
    supervisor = queue.cluster(node(4, 1))
    assert supervisor.wait("small", PATIENCE).state is JobState.DONE
    big = queue.store.get("big")
    assert big.state is JobState.QUEUED
    assert big.stage == "waits for a node of the cluster with 2 GPUs and 2 CPUs; the largest has 1 GPU and 4 CPUs"
    queue.nodes.nodes = (node(4, 1), node(4, 2, name="b"))
    ended = supervisor.wait("big", PATIENCE)
    assert (ended.state, ended.stage) == (JobState.DONE, "")


def test_what_waits_for_room_lets_nobody_pass(queue: ClusterQueue) -> None:
    queue.add("wide", cpus=4, priority=9)
    queue.add("narrow")
    supervisor = queue.cluster(node(4, free=(1, 0)))
    queue.until(lambda: queue.store.get("wide").stage == "waits for 4 CPUs of one node of the cluster to be free")
    time.sleep(0.3)
    assert [job.state for job in queue.store.list()] == [JobState.QUEUED] * 2
    queue.nodes.nodes = (node(4),)
    assert supervisor.wait("narrow", PATIENCE).state is JobState.DONE
    assert [job_id for job_id, _ in queue.began()] == ["wide", "narrow"]


def test_a_job_gets_its_place_before_the_next_one_is_taken(queue: ClusterQueue) -> None:
    """What is free is known only afterwards."""
    supervisor = queue.cluster(node(8))
    workers = supervisor.workers
    supervisor._closing.set()  # nobody else takes jobs
    queue.add("one")
    queue.add("two")
    first = workers.claim(queue.store, workers.lines[0])
    assert first
    assert workers.claim(queue.store, workers.lines[0]) is None
    cast(ClusterWorkers, workers).placed(first.id)
    assert workers.claim(queue.store, workers.lines[0])


def test_a_job_that_lost_its_node_goes_on_by_itself(queue: ClusterQueue) -> None:
    queue.add("one", settings={"relay": {"node": "mars", "lost": "The node mars was lost."}, "times": 2})
    job = queue.cluster(node(1)).wait("one", PATIENCE)
    assert (job.state, job.attempts, job.error) == (JobState.DONE, 3, "")


def test_a_job_that_loses_its_nodes_again_and_again_fails(queue: ClusterQueue) -> None:
    queue.add("one", settings={"relay": {"node": "mars", "lost": "The node mars was lost."}})
    queue.add("two", position=2.0)
    supervisor = queue.cluster(node(1))
    job = supervisor.wait("one", PATIENCE)
    assert (job.state, job.attempts, job.error_type) == (JobState.FAILED, MOST_LOSSES + 1, "WorkerLost")
    assert job.error == "The node mars was lost. Retry it to go on from what it saved."
    assert supervisor.wait("two", PATIENCE).state is JobState.DONE


@pytest.mark.parametrize("status", [-6, -9, 1, 75])
def test_a_job_whose_relay_is_ended_by_ray_goes_on_by_itself(queue: ClusterQueue, status: int) -> None:
    queue.add("one", settings={"dies": status})
    job = queue.cluster(node(1)).wait("one", PATIENCE)
    assert (job.state, job.attempts, job.error) == (JobState.DONE, 2, "")


def test_a_job_that_finds_no_room_after_all_waits_again_however_often(queue: ClusterQueue) -> None:
    times = MOST_LOSSES + 2
    queue.add("one", settings={"relay": {"no_room": "There was no room after all."}, "times": times})
    job = queue.cluster(node(1)).wait("one", PATIENCE)
    assert (job.state, job.attempts) == (JobState.DONE, times + 1)


def test_a_job_that_is_to_be_paused_is_paused_though_its_node_is_lost(queue: ClusterQueue) -> None:
    left_running(queue, "one", PREPARED, wanted=Wanted.PAUSED, act="steps")
    queue.store.update("one", state=JobState.QUEUED, settings={"relay": {"lost": "The node mars was lost."}})
    assert queue.cluster(node(1)).wait("one", PATIENCE).state is JobState.PAUSED


def test_how_the_worker_ended_there_counts_and_not_how_its_relay_did(queue: ClusterQueue) -> None:
    queue.add("one", settings={"relay": {"node": "mars", "status": -9}})
    job = queue.cluster(node(1)).wait("one", PATIENCE)
    assert (job.state, job.error_type) == (JobState.FAILED, "WorkerCrash")
    assert "SIGKILL" in job.error


def test_what_does_not_stop_in_time_is_killed(queue: ClusterQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_workers, "KILL_S", 0.1)
    queue.add("late", "deaf", timeout_s=0.2)
    job = queue.cluster(node(1), grace_s=0.2).wait("late", PATIENCE)
    assert job.state is JobState.FAILED
    assert "was killed" in job.error


def test_a_worker_that_lost_its_server_is_waited_for_on_whatever_machine(queue: ClusterQueue) -> None:
    left_running(queue, "one", PREPARED, STOPPED)
    lock = SharedLock(queue.folder / "one" / "node-lock")
    assert lock.take()
    supervisor = queue.cluster(node(1))
    queue.until(lambda: "waiting" in queue.store.get("one").stage)
    assert (queue.store.get("one").state, queue.began()) == (JobState.RUNNING, [])
    queue.add("two")
    supervisor.wake()
    assert supervisor.wait("two", PATIENCE).state is JobState.DONE  # which nobody keeps from its place
    lock.free()
    job = supervisor.wait("one", PATIENCE)
    assert (job.state, job.attempts, job.run_dir) == (JobState.DONE, 2, "run")


def test_a_job_of_this_machine_s_device_is_gone_on_with_on_a_cluster(queue: ClusterQueue) -> None:
    queue.add("one")
    queue.store.claim("cuda:1")
    assert queue.cluster(node(1)).wait("one", PATIENCE).state is JobState.DONE


def test_preprocessing_waits_behind_no_training_for_room(queue: ClusterQueue) -> None:
    queue.add("train", cpus=4, priority=9)
    queue.add("crop", kind="preprocess", settings={"destination": "crops"})
    supervisor = queue.cluster(node(4, free=(1, 0)))
    assert supervisor.wait("crop", PATIENCE).state is JobState.DONE
    assert queue.store.get("train").state is JobState.QUEUED


def test_a_job_that_waits_for_its_worker_of_before_keeps_no_place(queue: ClusterQueue) -> None:
    """As when its node cannot be reached, and still works at it."""
    lock = SharedLock(queue.folder / "one" / "node-lock")
    assert lock.take()
    queue.add("one")
    queue.add("two", position=2.0)
    supervisor = queue.cluster(node(2))
    assert supervisor.wait("two", PATIENCE).state is JobState.DONE
    assert (queue.store.get("one").state, [job_id for job_id, _ in queue.began()]) == (JobState.RUNNING, ["two"])
    lock.free()
    assert supervisor.wait("one", PATIENCE).state is JobState.DONE
