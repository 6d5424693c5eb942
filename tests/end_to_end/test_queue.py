"""The queue with real trainings: its server killed at any moment, asked to stop, and crashed into."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.runs import NAMES, RANDOM, Bench, csv_text, equal, last_state, make_bench, trained
from tests.support import save_folder, tiny_model
from tincture import recipe
from tincture.server.file_lock import FileLock
from tincture.server.job_store import JobStore
from tincture.server.jobs import Job, JobState
from tincture.server.supervisor import Supervisor
from tincture.workspace import Workspace

PATIENCE = 240
# All that a server is, for the queue; it ends when it is killed.
SERVER = """
import sys, time
from pathlib import Path
from tincture.server.job_store import JobStore
from tincture.server.supervisor import Supervisor
from tincture.workspace import Workspace

root = Path(sys.argv[1])
Supervisor(JobStore(root / "state" / "jobs.sqlite3"), root / "state" / "jobs", Workspace(root), ["auto"]).start()
assert "torch" not in sys.modules
time.sleep(1000)
"""


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def make(root: Path) -> Bench:
    model = tiny_model()
    return make_bench(root, model, save_folder(model, root / "models" / "Stable-diffusion" / "tiny"))


def submit(root: Path, settings: dict[str, Any], kind: Any = "train", **values: Any) -> JobStore:
    """A store at ``root`` with one job, called ``one``."""
    store = JobStore(root / "state" / "jobs.sqlite3")
    store.add(Job(id="one", kind=kind, name="it", settings=settings, created_at=time.time(), **values))
    return store


@contextmanager
def supervised(root: Path, store: JobStore, **options: Any) -> Iterator[Supervisor]:
    supervisor = Supervisor(store, root / "state" / "jobs", Workspace(root), ["auto"], **options)
    supervisor.start()
    try:
        yield supervisor
    finally:
        supervisor.close()


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def steps_told(supervisor: Supervisor) -> int:
    return max((entry["global_step"] for entry in supervisor.folder("one").metrics()), default=0)  # type: ignore[type-var,return-value]


def wait_for_steps(supervisor: Supervisor, steps: int) -> None:
    wait_until(lambda: steps_told(supervisor) >= steps, f"no {steps} steps: {supervisor.folder('one').log()[0]}")


def undisturbed(root: Path, settings: dict[str, Any]) -> recipe.RunResult:
    from tincture.settings import TrainSettings

    return recipe.train(TrainSettings.from_dict(settings), Workspace(root))


def kill_server_in_mid_training(root: Path, store: JobStore, steps: int, *, worker_too: bool) -> Path:
    """Starts a server, kills it when so many steps are done, and returns the run's folder."""
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(root)])
    lookout = Supervisor(store, root / "state" / "jobs", Workspace(root), [])
    try:
        wait_for_steps(lookout, steps)
    finally:
        server.kill()
        server.wait()
    if worker_too:
        process = FileLock(lookout.folder("one").lock_file).holder()
        assert process
        os.kill(process, signal.SIGKILL)
    run_dir = lookout.folder("one").run_dir()
    assert run_dir
    return Path(run_dir)


def check_killed_equals_undisturbed(tmp_path: Path, new: Callable[[Path], dict[str, Any]], *, worker_too: bool) -> None:
    (tmp_path / "killed").mkdir()
    (tmp_path / "whole").mkdir()
    settings, whole_settings = new(tmp_path / "killed"), new(tmp_path / "whole")
    store = submit(tmp_path / "killed", settings)
    run_dir = kill_server_in_mid_training(
        tmp_path / "killed", store, random.randint(2, settings["steps"] // 4), worker_too=worker_too
    )
    assert store.get("one").state is JobState.RUNNING
    with supervised(tmp_path / "killed", store) as supervisor:
        job = supervisor.wait("one", PATIENCE)
        assert (job.state, job.error, job.attempts) == (JobState.DONE, "", 2)
        told = supervisor.folder("one").metrics()
    whole = undisturbed(tmp_path / "whole", whole_settings)
    assert job.run_dir == job.result["run_dir"] == str(run_dir)
    assert (job.result["global_step"], job.result["loss"]) == (whole.global_step, whole.loss)
    assert equal(trained(Path(job.result["adapter_path"])), trained(whole.adapter_path))
    assert csv_text(run_dir) == csv_text(whole.run_dir)
    assert equal(last_state(run_dir), last_state(whole.run_dir))
    assert [entry["global_step"] for entry in told] == list(range(1, whole.global_step + 1))
    # The first worker stopped by itself when its server died; a power cut takes both.
    events = supervisor.folder("one").events()
    assert [event["n"] for event in events] == list(range(1, len(events) + 1))
    ends = [(event["attempt"], event["state"]) for event in events if event["type"] == "ended"]
    assert ends == ([(2, "done")] if worker_too else [(1, "stopped"), (2, "done")])


@pytest.mark.parametrize("worker_too", [False, True], ids=["server", "power cut"])
def test_killed_in_mid_training_and_restarted_equals_undisturbed(tmp_path: Path, worker_too: bool) -> None:
    def new(root: Path) -> dict[str, Any]:
        settings = make(root).settings("hypernetwork", **{**RANDOM, "steps": 60, "save_every": 3, "log_every": 1})
        return settings.to_dict()

    check_killed_equals_undisturbed(tmp_path, new, worker_too=worker_too)


@pytest.mark.slow
@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("worker_too", [False, True], ids=["server", "power cut"])
def test_the_same_on_picto(tmp_path: Path, kind: str, worker_too: bool) -> None:
    def new(root: Path) -> dict[str, Any]:
        bench = make(root)
        workspace = bench.workspace
        recipe.create_embedding("cat", workspace=workspace, num_vectors=4, overwrite=True)
        recipe.create_hypernetwork("ink", workspace=workspace, overwrite=True)
        own = {"model": "picto", "width": 0, "height": 0, "steps": 20, "save_every": 4, "log_every": 1}
        return bench.settings(kind, **{**own, "preview_every": 8, "preview_steps": 2}).to_dict()

    check_killed_equals_undisturbed(tmp_path, new, worker_too=worker_too)
