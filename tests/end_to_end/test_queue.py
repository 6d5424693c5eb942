"""The queue with real trainings: its server killed at any moment, asked to stop, and crashed into."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runs import NAMES, RANDOM, Bench, csv_text, equal, last_state, make_bench, trained, write_pictures
from tests.support import save_folder, tiny_model
from tincture import recipe
from tincture.adapters.embedding import Embedding
from tincture.formats.file_lock import FileLock
from tincture.server.queue.jobs import Job, JobState, Wanted
from tincture.server.queue.store import JobStore
from tincture.server.queue.supervisor import Supervisor
from tincture.server.queue.worker_process import DeviceWorkers
from tincture.settings.preprocess import PreprocessSettings
from tincture.workspace import Workspace

PATIENCE = 600
# All that a server is, for the queue; it ends when it is killed.
SERVER = """
import sys, time
from pathlib import Path
from tincture.server.queue.store import JobStore
from tincture.server.queue.supervisor import Supervisor
from tincture.server.queue.worker_process import DeviceWorkers
from tincture.workspace import Workspace

root = Path(sys.argv[1])
store, workers = JobStore(root / "state" / "jobs.sqlite3"), DeviceWorkers(root, ["auto"])
Supervisor(store, root / "state" / "jobs", Workspace(root), workers).start()
assert "torch" not in sys.modules
time.sleep(1000)
"""


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Here and in workers alike: another number of threads adds up in another order, which changes last bits."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
    supervisor = Supervisor(store, root / "state" / "jobs", Workspace(root), DeviceWorkers(root, ["auto"]), **options)
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
    from tincture.settings.train import TrainSettings

    return recipe.train(TrainSettings.from_dict(settings), Workspace(root))


def kill_server_in_mid_training(root: Path, store: JobStore, steps: int, *, worker_too: bool) -> Path:
    """Starts a server, kills it when so many steps are done, and returns the run's folder."""
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(root)])
    lookout = Supervisor(store, root / "state" / "jobs", Workspace(root), DeviceWorkers(root, []))
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


def check_killed_equals_undisturbed(
    tmp_path: Path, new: Callable[[Path], dict[str, Any]], power_cuts: Sequence[bool]
) -> None:
    """The server is killed as often as ``power_cuts`` has entries, and each time begun again.

    Args:
        tmp_path: for the killed run and the undisturbed one.
        new: makes a workspace in a folder, and the run's settings.
        power_cuts: whether the worker is killed with its server.
    """
    (tmp_path / "killed").mkdir()
    (tmp_path / "whole").mkdir()
    settings, whole_settings = new(tmp_path / "killed"), new(tmp_path / "whole")
    store = submit(tmp_path / "killed", settings)
    seen, most, last = 0, settings["steps"] // (4 * len(power_cuts)), len(power_cuts) + 1
    for worker_too in power_cuts:
        seen += random.randint(2, most)
        run_dir = kill_server_in_mid_training(tmp_path / "killed", store, seen, worker_too=worker_too)
        assert store.get("one").state is JobState.RUNNING
        jobs, nobody = tmp_path / "killed" / "state" / "jobs", DeviceWorkers(tmp_path, [])
        seen = max(seen, steps_told(Supervisor(store, jobs, Workspace(tmp_path), nobody)))
    with supervised(tmp_path / "killed", store) as supervisor:
        job = supervisor.wait("one", PATIENCE)
        assert (job.state, job.error, job.attempts) == (JobState.DONE, "", last)
        told = supervisor.folder("one").metrics()
    whole = undisturbed(tmp_path / "whole", whole_settings)
    assert job.run_dir == job.result["run_dir"] == str(run_dir)
    assert (job.result["global_step"], job.result["loss"]) == (whole.global_step, whole.loss)
    assert equal(trained(Path(job.result["adapter_path"])), trained(whole.adapter_path))
    assert csv_text(run_dir) == csv_text(whole.run_dir)
    assert equal(last_state(run_dir), last_state(whole.run_dir))
    assert [entry["global_step"] for entry in told] == list(range(1, whole.global_step + 1))
    # A worker stops by itself when its server dies; a power cut takes both.
    events = supervisor.folder("one").events()
    assert [event["n"] for event in events] == list(range(1, len(events) + 1))
    ends = [(event["attempt"], event["state"]) for event in events if event["type"] == "ended"]
    stopped = [(attempt, "stopped") for attempt, worker_too in enumerate(power_cuts, start=1) if not worker_too]
    assert ends == [*stopped, (last, "done")]


@pytest.mark.parametrize(
    "power_cuts",
    [[False], pytest.param([True, False, True], marks=pytest.mark.slow)],
    ids=["server", "again and again"],
)
def test_killed_in_mid_training_and_restarted_equals_undisturbed(tmp_path: Path, power_cuts: list[bool]) -> None:
    def new(root: Path) -> dict[str, Any]:
        own = {"steps": 60 * len(power_cuts), "save_every": 3, "log_every": 1}
        return make(root).settings("hypernetwork", **{**RANDOM, **own}).to_dict()

    check_killed_equals_undisturbed(tmp_path, new, power_cuts)


@pytest.mark.slow
@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("worker_too", [False, True], ids=["server", "power cut"])
def test_the_same_on_picto(tmp_path: Path, kind: str, worker_too: bool) -> None:
    def new(root: Path) -> dict[str, Any]:
        bench = make(root)
        workspace = bench.workspace
        write_pictures(bench.data, side=64)
        recipe.create_embedding("cat", workspace=workspace, num_vectors=4, overwrite=True)
        recipe.create_hypernetwork("ink", workspace=workspace, overwrite=True)
        own = {"model": "picto", "width": 0, "height": 0, "steps": 20, "save_every": 4, "log_every": 1}
        return bench.settings(kind, **{**own, "preview_every": 8, "preview_steps": 2}).to_dict()

    check_killed_equals_undisturbed(tmp_path, new, [worker_too])


@pytest.mark.slow
def test_paused_crashed_and_timed_out_a_run_ends_like_the_undisturbed_one(tmp_path: Path) -> None:
    """One run, disturbed in every way that there is, by the real worker."""
    (tmp_path / "disturbed").mkdir()
    (tmp_path / "whole").mkdir()
    changes = {**RANDOM, "steps": 400, "save_every": 3, "log_every": 1}
    root = tmp_path / "disturbed"
    store = submit(root, make(root).settings("embedding", **changes).to_dict())
    with supervised(root, store) as supervisor:

        def again_until(seen: int) -> None:
            store.update("one", state=JobState.QUEUED, wanted=None)
            supervisor.wake()
            wait_for_steps(supervisor, seen)

        wait_for_steps(supervisor, 2)
        supervisor.ask("one", Wanted.PAUSED)
        job = supervisor.wait("one", PATIENCE)
        assert (job.state, job.error) == (JobState.PAUSED, "")
        assert 2 <= job.global_step < 400
        again_until(job.global_step + 5)
        process = FileLock(supervisor.folder("one").lock_file).holder()
        assert process
        os.kill(process, signal.SIGSEGV)
        job = supervisor.wait("one", PATIENCE)
        assert job.state is JobState.FAILED
        assert "SIGSEGV" in job.error
        store.update("one", timeout_s=0.5)
        again_until(0)
        job = supervisor.wait("one", PATIENCE)
        assert (job.state, job.error_type) == (JobState.FAILED, "TimeoutError")
        store.update("one", timeout_s=None)
        again_until(0)
        job = supervisor.wait("one", PATIENCE)
        assert (job.state, job.result["global_step"]) == (JobState.DONE, 400)
        steps = [entry["global_step"] for entry in supervisor.folder("one").metrics()]
    whole = undisturbed(tmp_path / "whole", make(tmp_path / "whole").settings("embedding", **changes).to_dict())
    assert equal(trained(Path(job.result["adapter_path"])), trained(whole.adapter_path))
    assert csv_text(Path(job.result["run_dir"])) == csv_text(whole.run_dir)
    assert steps == list(range(1, 401))


@pytest.mark.slow
def test_interrupted_is_done_with_what_was_learned(tmp_path: Path) -> None:
    bench = make(tmp_path)
    store = submit(tmp_path, bench.settings("embedding", **{**RANDOM, "steps": 5000, "log_every": 1}).to_dict())
    with supervised(tmp_path, store) as supervisor:
        wait_for_steps(supervisor, 2)
        supervisor.ask("one", Wanted.INTERRUPTED)
        job = supervisor.wait("one", PATIENCE)
    assert (job.state, job.result["interrupted"]) == (JobState.DONE, True)
    assert 2 <= job.result["global_step"] < 5000
    assert Embedding.load(bench.path("embedding")).step == job.result["global_step"] == job.global_step


def test_preprocessing_is_a_job_too(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures")
    settings = PreprocessSettings(
        source=str(pictures), destination=str(tmp_path / "crops"), width=16, height=16, workers=1
    )
    store = submit(tmp_path, settings.to_dict(), "preprocess")
    with supervised(tmp_path, store) as supervisor:
        job = supervisor.wait("one", PATIENCE)
    assert (job.state, job.error) == (JobState.DONE, "")
    assert (job.global_step, job.steps, job.progress) == (5, 5, 1.0)
    assert (job.result["counts"]["pictures"], job.result["new"]) == (5, 5)
    assert len(list((tmp_path / "crops").glob("*.png"))) == 5
