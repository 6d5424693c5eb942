"""The queue on a real Ray cluster: nodes that come and go, a server that is killed, and who may not connect."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import quick_worker, ray_cluster
from tests.end_to_end.test_sweeps import begun, prepared, steps_made, steps_of, until
from tests.served import started, write
from tincture.errors import UsageError
from tincture.run.preview_request import request_preview
from tincture.server.queue.cluster import watched
from tincture.server.queue.cluster.cluster_workers import ClusterWorkers
from tincture.server.queue.cluster.watched import WatchedCluster
from tincture.server.queue.jobs import FINISHED, Job, JobState, Wanted
from tincture.server.queue.store import JobStore
from tincture.server.queue.supervisor import Supervisor
from tincture.server.service import Service
from tincture.settings.server import ServerSettings
from tincture.settings.toml import read_toml
from tincture.workspace import Workspace

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")

PATIENCE = 120
TOKEN = "0123456789abcdef" * 4
WORKER = [sys.executable, quick_worker.__file__, "0.05"]
# All that a server is, for the queue; it ends when it is killed.
SERVER = """
import sys, time
from pathlib import Path
from tincture.server.queue.cluster.cluster_workers import ClusterWorkers
from tincture.server.queue.cluster.watched import WatchedCluster
from tincture.server.queue.store import JobStore
from tincture.server.queue.supervisor import Supervisor
from tincture.workspace import Workspace

root, (address, *worker) = Path(sys.argv[1]), sys.argv[2:]
workers = ClusterWorkers(root, WatchedCluster(address), command=worker)
Supervisor(JobStore(root / "jobs.sqlite3"), root / "jobs", Workspace(root), workers).start()
assert "ray" not in sys.modules
time.sleep(1000)
"""


class Cluster:
    """A cluster of one node with a CPU, and of those that are added; see ``ray_cluster``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
        self._process = subprocess.Popen(
            [sys.executable, ray_cluster.__file__, "1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **token, "RAY_TMPDIR": str(folder), "RAY_USAGE_STATS_ENABLED": "0"},
            text=True,
        )
        self.address = self._answer()

    def do(self, what: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        assert self._answer() == what

    def _answer(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        self._process.communicate(timeout=PATIENCE)


@pytest.fixture(scope="module")
def short_folders() -> Iterator[Callable[[], Path]]:
    """Makes folders for Ray, which has sockets in them: the names of those may have 107 characters."""
    made: list[Path] = []

    def make() -> Path:
        made.append(Path(tempfile.mkdtemp(prefix="ray")))
        return made[-1]

    yield make
    for each in made:
        shutil.rmtree(each, ignore_errors=True)


@pytest.fixture
def short_folder(short_folders: Callable[[], Path]) -> Path:
    return short_folders()


@pytest.fixture(scope="module")
def cluster(short_folders: Callable[[], Path]) -> Iterator[Cluster]:
    with contextlib.closing(Cluster(short_folders())) as made:
        yield made


@pytest.fixture(autouse=True)
def known_here(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(cluster.folder))
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)


class ClusterQueue:
    """A queue whose jobs are trainings that compute nothing."""

    def __init__(self, root: Path) -> None:
        self.root, self.store = root, JobStore(root / "jobs.sqlite3")
        write(Workspace(root).adapter_path("embedding", "cat"))

    def add(self, job_id: str, steps: int = 3, **values: Any) -> None:
        settings = {"kind": "embedding", "name": "cat", "steps": steps}
        self.store.add(Job(id=job_id, kind="train", name=job_id, settings=settings, **values))

    @contextlib.contextmanager
    def served(self, address: str) -> Iterator[Supervisor]:
        workers = ClusterWorkers(self.root, WatchedCluster(address), command=WORKER)
        supervisor = Supervisor(self.store, self.root / "jobs", Workspace(self.root), workers)
        supervisor.start()
        try:
            yield supervisor
        finally:
            supervisor.close()

    def until(self, job_id: str, what: Callable[[Job], object]) -> Job:
        deadline = time.monotonic() + PATIENCE
        while not what(job := self.store.get(job_id)):
            assert time.monotonic() < deadline, job
            assert job.state not in FINISHED, job
            time.sleep(0.02)
        return job

    def run_dir(self, job_id: str) -> Path:
        return Path(self.until(job_id, lambda job: job.run_dir).run_dir or "")


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[ClusterQueue]:
    made = ClusterQueue(tmp_path)
    yield made
    made.store.close()


def test_a_job_is_watched_and_steered_on_a_cluster_as_on_this_machine(cluster: Cluster, queue: ClusterQueue) -> None:
    queue.add("one", steps=10**6)
    queue.add("two")
    with queue.served(cluster.address) as supervisor:
        job = queue.until("one", lambda job: job.global_step > 3)
        assert (job.state, job.device, job.steps) == (JobState.RUNNING, os.uname().nodename, 10**6)
        queue.until("two", lambda job: job.stage == "waits for 1 CPU of one node of the cluster to be free")
        request_preview(queue.run_dir("one"))
        queue.until("one", lambda job: job.preview)
        assert "nothing is trained here" in supervisor.folder("one").log()[0]
        supervisor.ask("one", Wanted.PAUSED)
        paused = supervisor.wait("one", PATIENCE)
        assert (paused.state, paused.error) == (JobState.PAUSED, "")
        assert supervisor.wait("two", PATIENCE).state is JobState.DONE
        queue.store.update("one", [JobState.PAUSED], state=JobState.QUEUED)
        supervisor.wake()
        queue.until("one", lambda job: job.attempts == 2 and job.global_step > paused.global_step)
        supervisor.ask("one", Wanted.INTERRUPTED)
        done = supervisor.wait("one", PATIENCE)
        assert (done.state, done.outcome) == (JobState.DONE, "stopped")
        steps = [metric["global_step"] for metric in supervisor.folder("one").metrics()]
        assert steps == list(range(1, len(steps) + 1))  # none twice, none left out


def test_the_job_of_a_lost_node_goes_on_elsewhere_from_its_newest_state(cluster: Cluster, queue: ClusterQueue) -> None:
    queue.add("wide", steps=10**6, cpus=2)
    with queue.served(cluster.address) as supervisor:
        queue.until("wide", lambda job: "the largest has 1 CPU" in job.stage)
        cluster.do("add 2")
        before = queue.until("wide", lambda job: job.global_step > 3).global_step
        cluster.do("lose")
        queue.until("wide", lambda job: job.state is JobState.QUEUED)
        cluster.do("add 2")
        after = queue.until("wide", lambda job: job.attempts == 2 and job.global_step > before)
        assert (after.state, after.error) == (JobState.RUNNING, "")
        assert "was lost; the job goes on elsewhere" in supervisor.folder("wide").log()[0]
        steps = [metric["global_step"] for metric in supervisor.folder("wide").metrics()]
        assert steps == list(range(1, len(steps) + 1))
    assert queue.store.get("wide").state is JobState.QUEUED  # the server ended in good order, and the job was saved
    cluster.do("lose")


def test_a_job_goes_on_once_after_its_server_was_killed(cluster: Cluster, queue: ClusterQueue) -> None:
    queue.add("one", steps=60)
    arguments = [str(queue.root), cluster.address, *WORKER]
    server = subprocess.Popen([sys.executable, "-c", SERVER, *arguments])
    try:
        killed_at = queue.until("one", lambda job: job.global_step > 3).global_step
    finally:
        server.kill()
        server.wait()
    assert queue.store.get("one").state is JobState.RUNNING
    with queue.served(cluster.address) as supervisor:
        job = supervisor.wait("one", PATIENCE)
        events = supervisor.folder("one").events()
    assert (job.state, job.attempts, job.global_step) == (JobState.DONE, 2, 60)
    starts = [event["global_step"] for event in events if event["type"] == "started"]
    assert starts[0] == 0 and killed_at <= starts[1] < 60
    # What the first one did was saved before the second one began: no step was made by both.
    steps = [record[0] for event in events if event["type"] == "steps" for record in event["records"]]
    assert steps == list(range(1, 61))
    assert [event["n"] for event in events] == list(range(1, len(events) + 1))


@pytest.mark.slow
def test_a_sweep_is_done_on_the_cluster_and_goes_on_after_a_kill(cluster: Cluster, tmp_path: Path) -> None:
    root = prepared(tmp_path)
    first = begun(root, "--ray", cluster.address)
    until(lambda: steps_made(root, "s-p01") >= 3)
    first.kill()
    first.communicate()
    second = begun(root, "--ray", cluster.address)
    output, errors = second.communicate(timeout=300)
    assert second.returncode == 0, errors
    ended = json.loads(output.splitlines()[-1])
    assert ended["states"] == {"done": 1, "stopped": 1}
    for row in ended["runs"]:
        assert steps_of(root, row["run"]) == list(range(1, row["step"] + 1))
    with contextlib.closing(JobStore(root / "sweeps/s/queue/jobs.sqlite3")) as store:
        jobs = store.list([], limit=10)
    # two up to the rung and one from there to the end; the killed one is gone on with
    assert [job.attempts for job in sorted(jobs, key=lambda job: job.created_at)] == [2, 1, 1]
    assert {(job.device, job.state) for job in jobs} == {(os.uname().nodename, JobState.DONE)}


@pytest.mark.slow
def test_a_server_s_sweep_is_done_on_the_cluster(cluster: Cluster, tmp_path: Path) -> None:
    root = prepared(tmp_path)
    service = Service(Workspace(root), ServerSettings(ray=cluster.address))
    given = {**read_toml(root / "s.toml"), "name": "served"}
    with started(service):
        service.sweeps.create(given)
        until(lambda: service.sweeps.shown("served")["state"] == "done")
        found = service.sweeps.shown("served")
        jobs = service.queue.jobs()
    assert (found["error"], found["states"]) == ("", {"done": 1, "stopped": 1})
    assert {job.device for job in jobs} == {os.uname().nodename} and len(jobs) == 3
    for row in found["runs"]:
        assert steps_of(root, row["run"]) == list(range(1, row["step"] + 1))


def test_a_wrong_token_is_refused_in_one_sentence(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "f" * 64)
    with pytest.raises(UsageError, match="does not take this machine's token"):
        WatchedCluster(cluster.address).start()


def test_another_version_of_ray_is_refused_in_one_sentence(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    older = tmp_path / "older.py"
    older.write_text(
        "import sys, ray\nray.__version__ = '2.59.0'\n"
        "from tincture.server.queue.cluster.keeper import main\nsys.exit(main(sys.argv[1:]))\n"
    )
    with pytest.raises(UsageError, match=r"has another version of Ray or Python .*Ray: 2\.59\.0"):
        WatchedCluster(cluster.address, (sys.executable, str(older))).start()


def test_what_of_ray_s_inner_parts_is_used_is_there(cluster: Cluster) -> None:
    watching = WatchedCluster(cluster.address)
    watching.start()
    assert watching.nodes[0].total == {"CPU": 1.0, "GPU": 0.0}
    assert watching.nodes[0].free == {"CPU": 1.0, "GPU": 0.0}
    watching.close()


def test_the_cluster_of_this_machine_is_found(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    watching = WatchedCluster("auto")
    watching.start()
    assert watching.address == cluster.address
    watching.close()
    watched.require_answer(cluster.address)  # it is there still


def test_a_cluster_of_its_own_is_begun_and_ended(monkeypatch: pytest.MonkeyPatch, short_folder: Path) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(short_folder))
    watching = WatchedCluster("auto")
    watching.start()
    address = watching.address
    assert watching.nodes and watching.environment["RAY_AUTH_MODE"] == "token"
    watching.close()
    with pytest.raises(UsageError, match="cannot be reached"):
        watched.require_answer(address)
