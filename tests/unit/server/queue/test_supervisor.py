from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.server.fake_worker import COMMAND
from tincture.errors import StorageError, UsageError
from tincture.formats.file_lock import FileLock
from tincture.server.errors import ConflictError, NotFoundError
from tincture.server.queue import supervisor as supervisor_module
from tincture.server.queue.jobs import Job, JobState, Lane, Wanted
from tincture.server.queue.store import JobStore
from tincture.server.queue.supervisor import Supervisor
from tincture.server.queue.worker_process import DeviceWorkers
from tincture.workspace import Workspace

PATIENCE = 120

# Does nothing, and says that it is done, in a few milliseconds.
QUICK = """
echo "${1##*/} $(sed -n 's/.*"device": "\\(.*\\)",/\\1/p' "$1/job.json")" >> "$1/../began"
echo '{"n": 1, "time": 0, "type": "ended", "attempt": 1, "state": "done", "result": {}}' > "$1/events.jsonl"
"""


class Queue:
    """A store, and supervisors with fake workers over it."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / "jobs"
        self.store = JobStore(root / "jobs.sqlite3")
        self.supervisors: list[Supervisor] = []

    def add(self, job_id: str, act: str = "done", **values: Any) -> None:
        settings = {"act": act, **values.pop("settings", {})}
        self.store.add(
            Job(**{"id": job_id, "kind": "train", "name": job_id, "position": 1.0, **values}, settings=settings)
        )

    def supervisor(self, *devices: str, **options: Any) -> Supervisor:
        workers = DeviceWorkers(self.root, devices or ("auto",), command=options.pop("command", COMMAND))
        made = Supervisor(self.store, self.folder, Workspace(self.root), workers, **options)
        self.supervisors.append(made)
        return made

    def start(self, *devices: str, **options: Any) -> Supervisor:
        made = self.supervisor(*devices, **options)
        made.start()
        return made

    def began(self) -> list[list[str]]:
        path = self.folder / "began"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def until(self, condition: Callable[[], object], what: str = "it did not come to it") -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, what
            time.sleep(0.01)

    def until_step(self, job_id: str, step: int = 3) -> None:
        self.until(lambda: self.store.get(job_id).global_step == step)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    made = Queue(tmp_path)
    yield made
    for each in made.supervisors:
        each.close()


@pytest.fixture
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "AGAIN_S", 0.05)


def test_200_jobs_on_two_devices_run_once_each_and_by_priority(queue: Queue) -> None:
    turn = []
    for number in range(200):
        queue.add(f"job{number:03}", priority=number % 5, position=float(number))
        turn.append((-(number % 5), number, f"job{number:03}"))
    queue.start("cuda:0", "cuda:1", command=["/bin/sh", "-c", QUICK, "sh"])
    queue.until(lambda: queue.store.counts()[JobState.DONE] == 200)
    began = queue.began()
    assert sorted(job_id for job_id, _ in began) == [f"job{number:03}" for number in range(200)]
    assert {device for _, device in began} == {"cuda:0", "cuda:1"}
    # Taken in their order; two processes that start at a time may overtake each other by one.
    expected = {job_id: place for place, (_, _, job_id) in enumerate(sorted(turn))}
    claimed = sorted(queue.store.list(limit=200), key=lambda job: job.started_at or 0)
    assert [job.id for job in claimed] == [job_id for _, _, job_id in sorted(turn)]
    assert all(abs(expected[job_id] - place) <= 2 for place, (job_id, _) in enumerate(began))
    assert {job.attempts for job in claimed} == {1}


def test_progress_is_noted_and_a_running_job_can_be_stopped_in_three_ways(queue: Queue) -> None:
    supervisor = queue.start()
    for wanted, state, order in (
        (Wanted.CANCELLED, JobState.CANCELLED, None),
        (Wanted.PAUSED, JobState.PAUSED, None),
        (Wanted.INTERRUPTED, JobState.DONE, "finish"),
    ):
        queue.add(str(wanted), "steps")
        supervisor.wake()
        queue.until_step(wanted)
        job = queue.store.get(wanted)
        assert (job.state, job.steps, job.loss, job.learning_rate, job.eta_s) == (JobState.RUNNING, 9, 0.25, 0.02, 7.0)
        assert (job.stage, job.progress, job.run_dir) == ("", 1 / 3, str(queue.folder / wanted / "run"))
        assert supervisor.ask(wanted, wanted).wanted is wanted
        ended = supervisor.wait(wanted, PATIENCE)
        assert (ended.state, ended.wanted, ended.error, ended.eta_s) == (state, None, "", None)
        assert ended.result.get("order") == order
        assert ended.run_dir == str(queue.folder / wanted / "run")
        with pytest.raises(ConflictError, match="only while it is running"):
            supervisor.ask(wanted, Wanted.CANCELLED)


def test_a_paused_job_goes_on_with_its_run(queue: Queue) -> None:
    supervisor = queue.start()
    queue.add("one", "steps")
    supervisor.wake()
    queue.until_step("one")
    supervisor.ask("one", Wanted.PAUSED)
    run_dir = supervisor.wait("one", PATIENCE).run_dir
    queue.store.update("one", [JobState.PAUSED], state=JobState.QUEUED, settings={"act": "done"})
    supervisor.wake()
    queue.until(lambda: queue.store.get("one").state is JobState.DONE)
    assert queue.store.get("one").result == {"global_step": 5, "run_dir": run_dir}
    assert queue.store.get("one").attempts == 2


def test_a_second_training_waits_for_a_paused_one_and_says_so_also_after_a_restart(queue: Queue) -> None:
    supervisor = queue.start("a", "b")
    queue.add("one", "steps", name="cat")
    supervisor.wake()
    queue.until_step("one")
    queue.add("two", name="cat", priority=9)
    queue.add("three")
    supervisor.wake()
    assert queue.store.get("two").stage == "waits for job one, which is running"
    supervisor.ask("one", Wanted.PAUSED)
    supervisor.wait("one", PATIENCE)
    queue.until(lambda: queue.store.get("two").stage == "waits for job one, which is paused")
    supervisor.close()
    again = queue.start("a", "b")
    assert queue.store.get("two").stage == "waits for job one, which is paused"
    again.wait("three", PATIENCE)
    assert [job_id for job_id, _ in queue.began()] == ["one", "three"]
    queue.store.update("one", [JobState.PAUSED], state=JobState.QUEUED, settings={"act": "done"})
    again.wake()
    again.wait("two", PATIENCE)
    assert [job_id for job_id, _ in queue.began()] == ["one", "three", "one", "two"]


def test_a_job_that_takes_too_long_is_stopped_and_failed(queue: Queue) -> None:
    queue.add("slow", "steps", timeout_s=0.5)
    job = queue.start().wait("slow", PATIENCE)
    assert (job.state, job.error_type) == (JobState.FAILED, "TimeoutError")
    assert job.error == (
        "The job ran longer than the 0.5 s that it had, and was saved at step 3. Retry it to go on from there."
    )


def test_what_does_not_stop_in_time_is_killed(queue: Queue) -> None:
    supervisor = queue.start(grace_s=0.2)
    queue.add("late", "deaf", timeout_s=0.2)
    supervisor.wake()
    job = supervisor.wait("late", PATIENCE)
    assert job.state is JobState.FAILED
    assert "ran longer than the 0.2 s" in job.error
    assert "was killed" in job.error
    for wanted, state in ((Wanted.CANCELLED, JobState.CANCELLED), (Wanted.INTERRUPTED, JobState.FAILED)):
        queue.add(str(wanted), "deaf")
        supervisor.wake()
        queue.until((queue.folder / wanted / "deaf").exists)
        supervisor.ask(wanted, wanted)
        job = supervisor.wait(wanted, PATIENCE)
        assert job.state is state
        assert "was killed" in job.error


@pytest.mark.parametrize(
    ("act", "settings", "told"),
    [
        ("signal", {"number": signal.SIGKILL}, ["SIGKILL, as the system does when memory runs out", "no memory left"]),
        ("signal", {"number": signal.SIGSEGV}, ["was ended by SIGSEGV", "no memory left"]),
        ("exit", {"status": 3}, ["ended with status 3", "the last word"]),
        ("mute", {}, ["ended with status 0 without saying why"]),
    ],
    ids=["killed", "segfault", "status", "mute"],
)
def test_a_crash_ends_that_job_alone(queue: Queue, act: str, settings: dict[str, Any], told: list[str]) -> None:
    queue.add("bad", act, settings=settings, position=1.0)
    queue.add("good", position=2.0)
    supervisor = queue.start()
    assert supervisor.wait("good", PATIENCE).state is JobState.DONE
    job = queue.store.get("bad")
    assert (job.state, job.error_type) == (JobState.FAILED, "WorkerCrash")
    assert all(part in job.error for part in told)


def test_a_worker_that_is_killed_from_outside_fails_its_job(queue: Queue) -> None:
    queue.add("one", "deaf")
    supervisor = queue.start()
    queue.until((queue.folder / "one" / "deaf").exists)
    process = FileLock(supervisor.folder("one").lock_file).holder()
    assert process
    os.kill(process, signal.SIGKILL)
    assert "SIGKILL" in supervisor.wait("one", PATIENCE).error


def test_what_the_worker_says_of_a_failure_is_passed_on(queue: Queue) -> None:
    queue.add("one", "fail")
    job = queue.start().wait("one", PATIENCE)
    assert (job.state, job.error, job.error_type) == (JobState.FAILED, "There are no pictures.", "DataError")


def test_a_worker_that_stopped_without_being_asked_goes_on(queue: Queue, no_delay: None) -> None:
    """As when the system stops server and worker at the same time, and the worker is quicker."""
    queue.add("one", "leave")
    job = queue.start().wait("one", PATIENCE)
    assert (job.state, job.attempts, job.error) == (JobState.DONE, 2, "")


def test_closing_stops_what_runs_and_it_goes_on_first_at_the_next_start(queue: Queue) -> None:
    queue.add("low", "steps", priority=-3)
    supervisor = queue.start()
    queue.until_step("low")
    queue.add("high", priority=9)
    waiting = threading.Thread(target=supervisor.wait, args=["low", None])
    waiting.start()
    supervisor.close()
    waiting.join(PATIENCE)
    assert not waiting.is_alive()
    job = queue.store.get("low")
    assert (job.state, job.run_dir) == (JobState.QUEUED, str(queue.folder / "low" / "run"))
    assert [each.id for each in queue.store.list()] == ["low", "high"]
    queue.store.update("low", settings={"act": "done"})
    queue.start().wait("high", PATIENCE)
    assert queue.began() == [["low", "auto"], ["low", "auto"], ["high", "auto"]]
    assert queue.store.get("low").result["run_dir"] == job.run_dir


def left_running(queue: Queue, job_id: str, *events: dict[str, Any], **values: Any) -> None:
    """A job as a dead server leaves it."""
    queue.add(job_id, **values)
    assert queue.store.claim("auto")
    folder = queue.folder / job_id
    folder.mkdir(parents=True)
    lines = [json.dumps({"n": number, "time": 0.0, **event}) + "\n" for number, event in enumerate(events, 1)]
    (folder / "events.jsonl").write_text("".join(lines))


PREPARED = {"type": "prepared", "run_dir": "run"}
STOPPED = {"type": "ended", "attempt": 1, "state": "stopped", "result": {"global_step": 2}}
DONE = {"type": "ended", "attempt": 1, "state": "done", "result": {"global_step": 9}}
FAILED = {"type": "ended", "attempt": 1, "state": "failed", "error": "No.", "error_type": "DataError"}
OLD = {"type": "ended", "attempt": 0, "state": "failed", "error": "Long ago.", "error_type": "DataError"}


@pytest.mark.parametrize(
    ("events", "wanted", "state", "attempts"),
    [
        ([], None, JobState.DONE, 2),
        ([OLD, PREPARED], None, JobState.DONE, 2),
        ([PREPARED, STOPPED], None, JobState.DONE, 2),
        ([PREPARED, DONE], None, JobState.DONE, 1),
        ([PREPARED, DONE], Wanted.CANCELLED, JobState.DONE, 1),
        ([PREPARED, FAILED], None, JobState.FAILED, 1),
        ([PREPARED], Wanted.CANCELLED, JobState.CANCELLED, 1),
        ([PREPARED, STOPPED], Wanted.PAUSED, JobState.PAUSED, 1),
        ([PREPARED, STOPPED], Wanted.INTERRUPTED, JobState.DONE, 1),
        ([PREPARED], Wanted.INTERRUPTED, JobState.DONE, 2),
    ],
)
def test_what_a_dead_server_left_running(
    queue: Queue, events: list[dict[str, Any]], wanted: Wanted | None, state: JobState, attempts: int
) -> None:
    left_running(queue, "one", *events, wanted=wanted)
    supervisor = queue.start()
    job = supervisor.wait("one", PATIENCE)
    assert (job.state, job.attempts, job.wanted) == (state, attempts, None)
    assert job.run_dir == ("run" if events else None)
    if attempts == 2:
        assert job.result == {"global_step": 5, "run_dir": job.run_dir}


def test_a_run_that_is_to_be_ended_is_begun_only_to_be_saved(queue: Queue) -> None:
    left_running(queue, "one", PREPARED, act="steps", wanted=Wanted.INTERRUPTED)
    job = queue.start().wait("one", PATIENCE)
    assert (job.state, job.result["order"]) == (JobState.DONE, "finish")


def test_a_worker_that_lost_its_server_is_waited_for(queue: Queue) -> None:
    left_running(queue, "one")
    lock = FileLock(queue.folder / "one" / "lock")
    assert lock.take()
    supervisor = queue.start()
    queue.until(lambda: "waiting" in queue.store.get("one").stage)
    assert (queue.store.get("one").state, queue.began()) == (JobState.RUNNING, [])
    lock.free()
    assert supervisor.wait("one", PATIENCE).state is JobState.DONE


def lost_worker(queue: Queue, *command: str) -> subprocess.Popen[bytes]:
    """A process that holds the lock of the job ``one``, as a worker does whose server died."""
    lock = FileLock(queue.folder / "one" / "lock")
    assert lock.take()
    process = subprocess.Popen(command, start_new_session=True, pass_fds=lock.files)
    lock.name_holder(process.pid)
    lock.leave()
    return process


def test_a_worker_that_lost_its_server_gets_its_grace(queue: Queue) -> None:
    left_running(queue, "one")
    saving = lost_worker(queue, "sh", "-c", "sleep 1; exit 7")
    assert queue.start(grace_s=PATIENCE).wait("one", PATIENCE).state is JobState.DONE
    assert saving.wait(PATIENCE) == 7  # it was let end by itself


def test_a_worker_that_lost_its_server_and_hangs_is_killed(queue: Queue) -> None:
    left_running(queue, "one")
    hanging = lost_worker(queue, "sleep", "1000")
    assert queue.start(grace_s=0.2).wait("one", PATIENCE).state is JobState.DONE
    assert hanging.wait(PATIENCE) == -signal.SIGKILL


def test_a_job_of_a_device_that_is_gone_is_recovered_too(queue: Queue) -> None:
    queue.add("one")
    queue.store.claim("cuda:7")
    job = queue.start("cpu").wait("one", PATIENCE)
    assert (job.state, job.device) == (JobState.DONE, "cpu")


def test_a_job_that_waits_for_a_device_that_is_gone_says_so(queue: Queue) -> None:
    queue.add("one", device="cuda:7")
    queue.start("cpu").close()
    job = queue.store.get("one")
    assert job.state is JobState.QUEUED
    assert "waits for cuda:7" in job.stage
    assert queue.start("cuda:7").wait("one", PATIENCE).state is JobState.DONE


def test_two_servers_do_not_work_on_one_queue(queue: Queue) -> None:
    queue.start()
    with pytest.raises(UsageError, match="Another server"):
        queue.start()
    queue.supervisors[0].close()
    queue.start()


def test_what_cannot_be_started_fails_and_the_thread_goes_on(queue: Queue, tmp_path: Path) -> None:
    queue.add("one")
    job = queue.start(command=[str(tmp_path / "nothing")]).wait("one", PATIENCE)
    assert job.state is JobState.FAILED
    assert "could not be started" in job.error
    queue.add("blocked")
    (queue.folder / "blocked").write_text("in the way")
    queue.add("fine", "fail", position=2.0)
    queue.supervisors[0].wake()
    assert queue.supervisors[0].wait("fine", PATIENCE).state is JobState.FAILED
    assert queue.store.get("blocked").error_type == "StorageError"


def test_an_error_that_nobody_foresaw_does_not_end_the_thread(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "Attempt", lambda *_, **__: 1 / 0)
    queue.add("one")
    supervisor = queue.start()
    assert "division by zero" in supervisor.wait("one", PATIENCE).error
    monkeypatch.undo()
    queue.add("two")
    supervisor.wake()
    assert supervisor.wait("two", PATIENCE).state is JobState.DONE


def test_a_disk_that_is_full_for_a_while_loses_no_result(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, no_delay: None
) -> None:
    update, tries = queue.store.update, []

    def full(job_id: str, *arguments: Any, **changes: Any) -> Job:
        tries.append(changes)
        if len(tries) < 4:
            raise StorageError("The disk is full.")
        return update(job_id, *arguments, **changes)

    monkeypatch.setattr(queue.store, "update", full)
    queue.add("one")
    assert queue.start().wait("one", PATIENCE).result["global_step"] == 5
    assert len(tries) == 4


def test_no_job_begins_while_the_disk_is_full(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, no_delay: None, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor_module, "_lacks_room", lambda folder: True)
    queue.add("one")
    supervisor = queue.start()
    queue.until(lambda: "no job begins" in caplog.text)
    assert supervisor.wait("one", 0.3).state is JobState.QUEUED
    monkeypatch.undo()
    assert supervisor.wait("one", PATIENCE).state is JobState.DONE
    assert caplog.text.count("no job begins") == 1


@pytest.mark.parametrize(
    ("free", "full"), [(supervisor_module.LEAST_FREE, False), (supervisor_module.LEAST_FREE - 1, True)]
)
def test_how_much_room_a_job_needs(free: int, full: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    assert supervisor_module._lacks_room(tmp_path) is full


def test_a_disk_that_cannot_be_read_does_not_stop_the_queue(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, no_delay: None
) -> None:
    claim, tries = queue.store.claim, []

    def unreadable(folder: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    def unreadable_at_first(device: str, lanes: Sequence[Lane]) -> Job | None:
        tries.append(device)
        if len(tries) < 3:
            raise StorageError("The queue could not be read.")
        return claim(device, lanes)

    monkeypatch.setattr(supervisor_module.shutil, "disk_usage", unreadable)
    monkeypatch.setattr(queue.store, "claim", unreadable_at_first)
    queue.add("one")
    assert queue.start().wait("one", 30).state is JobState.DONE


def test_room_is_made_before_a_job_begins(queue: Queue) -> None:
    asked: list[tuple[str, str, list[list[str]]]] = []
    queue.add("one")
    supervisor = queue.start("cuda:3", make_room=lambda job: asked.append((job.id, job.device, queue.began())))
    assert supervisor.wait("one", PATIENCE).state is JobState.DONE
    assert asked == [("one", "cuda:3", [])]


def test_folders_of_jobs(queue: Queue) -> None:
    supervisor = queue.supervisor()
    assert supervisor.folder("one") is supervisor.folder("one")
    assert supervisor.folder("one").path == queue.folder / "one"
    for wrong in ("../one", "", "a/b", "a" * 100, "."):
        with pytest.raises(NotFoundError):
            supervisor.folder(wrong)


def test_waiting_has_an_end(queue: Queue) -> None:
    queue.add("one")
    assert queue.supervisor().wait("one", 0.01).state is JobState.QUEUED


def test_secrets_of_the_server_are_not_the_workers(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINCTURE_TOKEN", "hush")
    queue.add("one")
    command = ["/bin/sh", "-c", "env; pwd; exit 4", "sh"]
    job = queue.start(command=command).wait("one", PATIENCE)
    log = queue.supervisors[0].folder("one").log()[0]
    assert job.state is JobState.FAILED
    assert "hush" not in log
    assert "HF_HUB_OFFLINE=1" in log
    assert "PATH=" in log
    assert str(queue.root) in log


CROPS = {"source": "/photos", "destination": "/datasets/crops"}


def test_preprocessing_does_not_wait_behind_a_training(queue: Queue) -> None:
    supervisor = queue.start("cuda:0")
    queue.add("training", "steps")
    queue.add("next", "steps", position=2.0)
    supervisor.wake()
    queue.until_step("training")
    more = {**CROPS, "destination": "/datasets/more"}
    queue.add("crops", "steps", kind="preprocess", settings=CROPS, device="cuda:0")
    queue.add("more", "steps", kind="preprocess", settings=more, position=2.0)
    queue.add(
        "described",
        kind="preprocess",
        settings={"source": "/a", "destination": "/b", "captioner": "/blip"},
        position=3.0,
    )
    supervisor.wake()
    queue.until_step("crops")
    states = {job.id: (job.state, job.lane) for job in queue.store.list()}
    assert states == {
        "training": (JobState.RUNNING, "training"),
        "crops": (JobState.RUNNING, "preprocessing"),
        "next": (JobState.QUEUED, "training"),
        "more": (JobState.QUEUED, "preprocessing"),  # one at a time
        "described": (JobState.QUEUED, "training"),  # its model would take the card's memory
    }
    assert queue.store.get("crops").device == "cpu"
    supervisor.ask("crops", Wanted.PAUSED)
    assert supervisor.wait("crops", PATIENCE).state is JobState.PAUSED
    queue.until_step("more")
    assert queue.store.get("training").state is JobState.RUNNING
    supervisor.ask("more", Wanted.CANCELLED)
    assert supervisor.wait("more", PATIENCE).state is JobState.CANCELLED
    supervisor.ask("training", Wanted.INTERRUPTED)
    assert supervisor.wait("training", PATIENCE).state is JobState.DONE
    queue.until_step("next")


def test_a_restart_lets_the_jobs_of_both_lanes_go_on(queue: Queue) -> None:
    first = queue.start("cpu")
    queue.add("training", "steps")
    queue.add("crops", "steps", kind="preprocess", settings=CROPS)
    first.wake()
    queue.until_step("training")
    queue.until_step("crops")
    first.close()
    assert queue.store.counts()[JobState.QUEUED] == 2
    queue.start("cpu")
    for job_id in ("training", "crops"):
        queue.until(lambda job_id=job_id: queue.store.get(job_id).attempts == 2)
        queue.until(lambda job_id=job_id: queue.store.get(job_id).state is JobState.RUNNING)


def test_a_training_waits_for_the_pictures_that_are_made_for_it(queue: Queue) -> None:
    supervisor = queue.start("cuda:0")
    queue.add("crops", "steps", kind="preprocess", settings=CROPS, created_at=1.0)
    supervisor.wake()
    queue.until_step("crops")
    queue.add("of-crops", settings={"data": ["/datasets/other", "/datasets/crops:3"]}, created_at=2.0)
    queue.add("before", settings={"data": "/datasets/crops"}, created_at=0.5)  # meant what was there before
    queue.add("of-others", settings={"data": "/datasets/other"}, created_at=2.0, priority=-1)
    again = {"source": "/datasets/crops", "destination": "/datasets/tagged", "tagger": "/wd"}
    queue.add("tagged", kind="preprocess", settings=again, created_at=2.0)
    supervisor.wake()
    queue.until(lambda: queue.store.get("of-others").state is JobState.DONE)
    assert queue.store.get("before").state is JobState.DONE
    for job_id in ("of-crops", "tagged"):
        waiting = queue.store.get(job_id)
        assert waiting.state is JobState.QUEUED
        assert waiting.stage == "waits for job crops, which makes its pictures and is running"
    supervisor.ask("crops", Wanted.PAUSED)
    supervisor.wait("crops", PATIENCE)
    supervisor.wake()
    queue.until(lambda: queue.store.get("of-crops").stage.endswith("is paused"))
    queue.store.update("crops", state=JobState.CANCELLED)
    supervisor.wake()
    queue.until(lambda: queue.store.get("of-crops").state is JobState.DONE)
    queue.until(lambda: queue.store.get("tagged").state is JobState.DONE)
