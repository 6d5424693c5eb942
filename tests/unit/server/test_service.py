"""The service with its real queue, places and data sets, and stand-ins for what computes."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image

from tests.checkpoints import write_head
from tests.served import quick_service, started, training, until, write
from tincture.errors import TinctureError, UsageError
from tincture.server.errors import ConflictError, ForbiddenPathError, NotFoundError, QueueFullError, TooMuchError
from tincture.server.model_process.client import ModelProcess
from tincture.server.queue.cluster.cluster_workers import ClusterWorkers
from tincture.server.queue.jobs import Job, JobState, Wanted
from tincture.server.queue.worker_process import DeviceWorkers
from tincture.server.requests.adapters import MOST_NUMBERS
from tincture.server.service import Service
from tincture.settings.server import ServerSettings
from tincture.workspace import Workspace


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """Not at work: what is submitted waits."""
    service = quick_service(tmp_path, max_jobs=3, max_pictures=4)
    yield service
    service.close()


def asked(service: Service, which: str = "file_process") -> tuple[str, dict[str, Any]]:
    """The last call of a process."""
    last: tuple[str, dict[str, Any]] = getattr(service.model_work, which).asked[-1]
    return last


def submit(service: Service, **settings: Any) -> str:
    return service.queue.submit("train", training(**settings)["settings"]).id


# --- jobs -------------------------------------------------------------------------------------------------------------


def test_a_job_waits_with_all_that_it_needs(service: Service, tmp_path: Path) -> None:
    job = service.queue.submit("train", training(steps=7)["settings"], priority=3, timeout_s=60, source="page")
    assert service.queue.job(job.id) == job == service.queue.jobs()[0]
    assert (job.state, job.priority, job.timeout_s, job.source) == (JobState.QUEUED, 3, 60, "page")
    assert job.settings["data"] == str(tmp_path / "pictures") and job.settings["steps"] == 7
    made = service.queue.submit("preprocess", {"source": "pictures", "destination": "crops"})
    assert (made.name, made.settings["destination"]) == ("crops", str(tmp_path / "crops"))
    assert made.id > job.id or made.created_at >= job.created_at
    assert "overwrite" not in made.settings
    anew = service.queue.submit("preprocess", {"source": "pictures", "destination": "crops", "overwrite": True})
    assert anew.settings == {**made.settings, "overwrite": True}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"kind": "dance"}, UsageError),
        ({"priority": 1001}, UsageError),
        ({"priority": -1001}, UsageError),
        ({"timeout_s": 0}, UsageError),
        ({"timeout_s": float("nan")}, UsageError),
        ({"timeout_s": 1e12}, UsageError),
        ({"device": "cuda:9"}, UsageError),
        ({"gpus": 1}, UsageError),
        ({"cpus": 1}, UsageError),
        ({"settings": {}}, UsageError),
        ({"kind": "preprocess", "settings": {"source": "pictures", "destination": "x", "overwrite": 1}}, UsageError),
        ({"settings": training(device="cuda:5")["settings"]}, UsageError),
    ],
)
def test_jobs_that_are_refused(service: Service, arguments: dict[str, Any], error: type[TinctureError]) -> None:
    with pytest.raises(error):
        service.queue.submit(**{"kind": "train", "settings": training()["settings"], **arguments})
    assert service.queue.jobs() == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"gpus": -1}, "gpus are -1; allowed is 0 to 64"),
        ({"gpus": 65}, "gpus are 65; allowed is 0 to 64"),
        ({"cpus": 0}, "cpus are 0; allowed is 1 to 1024"),
        ({"cpus": 1025}, "cpus are 1025; allowed is 1 to 1024"),
        ({"device": "cuda:0"}, "ask for gpus and cpus instead"),
        ({"settings": training(device="cuda:5")["settings"]}, "sees its own GPUs only; give cuda, or leave it out"),
    ],
)
def test_what_a_cluster_cannot_give_is_refused(tmp_path: Path, arguments: dict[str, Any], expected: str) -> None:
    service = quick_service(tmp_path, ray="head.lan:6379")
    with pytest.raises(UsageError, match=expected):
        service.queue.submit(**{"kind": "train", "settings": training()["settings"], **arguments})
    assert service.queue.jobs() == []


def test_a_job_asks_a_cluster_for_its_machine(tmp_path: Path) -> None:
    service = quick_service(tmp_path, ray="head.lan:6379")
    job = service.queue.submit("train", training(device="cuda")["settings"], gpus=2, cpus=8)
    assert (service.queue.job(job.id).gpus, job.cpus, job.device) == (2, 8, "auto")
    usual = service.queue.submit("train", training()["settings"])
    assert (usual.gpus, usual.cpus, usual.device) == (None, None, "")


def test_jobs_run_on_a_cluster_only_where_that_is_asked(tmp_path: Path) -> None:
    for ray, kind in (("", DeviceWorkers), ("auto", ClusterWorkers)):
        service = Service(Workspace(tmp_path), ServerSettings(ray=ray))
        assert isinstance(service.queue.supervisor.workers, kind)
        service.queue.store.close()


def test_the_queue_s_file_may_lie_on_another_disk(tmp_path: Path) -> None:
    service = Service(Workspace(tmp_path), ServerSettings(database=str(tmp_path / "own" / "queue.sqlite3")))
    assert (tmp_path / "own" / "queue.sqlite3").is_file()
    assert not (service.state_dir / "jobs.sqlite3").exists()
    service.queue.store.close()


@pytest.mark.parametrize("ray", ["", "auto", "head.lan:6379", "10.0.0.7:6379", "ray://head.lan:10001", "ray://head"])
def test_addresses_of_clusters(ray: str) -> None:
    assert ServerSettings(ray=ray).ray == ray


@pytest.mark.parametrize(
    "ray", ["head", "http://head:1", "head:x", "head:99999", "ray://", "head:1/x", "ray://a:1?b", "ray://me@a:1", ":1"]
)
def test_what_is_no_address_of_a_cluster_is_refused(ray: str) -> None:
    with pytest.raises(UsageError, match=r"auto, HOST:PORT, such as head\.lan:6379, or ray://HOST:PORT"):
        ServerSettings(ray=ray)


@pytest.mark.parametrize("priority", [1000, -1000])
def test_the_outermost_priorities_are_taken(service: Service, priority: int) -> None:
    assert service.queue.submit("train", training()["settings"], priority=priority).priority == priority


def test_a_training_may_wait_for_pictures_that_another_job_makes(service: Service, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="The folder 'crops' is not there"):
        submit(service, data="crops")
    making = service.queue.submit("preprocess", {"source": "pictures", "destination": "crops"})
    training_job = submit(service, data="crops:2")
    assert service.queue.job(training_job).settings["data"] == f"{tmp_path / 'crops'}:2"
    service.queue.cancel(making.id)
    with pytest.raises(UsageError, match="is not there"):
        submit(service, data="crops")
    service.queue.cancel(training_job)
    assert service.queue.retry(training_job).state is JobState.QUEUED  # what it needs may come in time


def test_a_device_among_the_settings_is_the_jobs_device(tmp_path: Path) -> None:
    service = quick_service(tmp_path, device=("cuda:0", "cuda:1"))
    far = training(device="cuda:1")["settings"]
    assert (
        service.queue.submit("train", far).device
        == service.queue.submit("train", far, device="cuda:1").device
        == "cuda:1"
    )
    made = service.queue.submit("preprocess", {"source": "pictures", "destination": "crops", "device": "cuda:0"})
    assert (made.device, service.queue.submit("train", training()["settings"]).device) == ("cuda:0", "")
    assert service.model_work.plan("train", far)["settings"]["device"] == "cuda:1"
    with pytest.raises(UsageError, match="device is 'cuda:0', but its setting device is 'cuda:1'"):
        service.queue.submit("train", far, device="cuda:0")
    for ask in (service.queue.submit, service.model_work.plan):
        with pytest.raises(UsageError, match="device is 'cpu', but this server has cuda:0, cuda:1; leave it out"):
            ask("train", training(device="cpu")["settings"])
    service.close()


def test_a_server_without_named_devices_leaves_the_device_to_the_settings(tmp_path: Path) -> None:
    service = quick_service(tmp_path, device=("auto",))
    job = service.queue.submit("train", training(device="cpu")["settings"])
    assert (job.device, job.settings["device"]) == ("auto", "cpu")
    assert service.model_work.plan("train", training(device="cpu")["settings"])["settings"]["device"] == "cpu"
    service.close()


def test_a_training_needs_its_adapter(service: Service) -> None:
    with pytest.raises(UsageError, match="no embedding 'dog'"):
        submit(service, name="dog")


def test_the_queue_has_an_end(service: Service) -> None:
    jobs = [submit(service) for _ in range(3)]
    with pytest.raises(QueueFullError, match="3 jobs"):
        submit(service)
    service.queue.cancel(jobs[0])
    submit(service)


def test_waiting_jobs_are_paused_resumed_cancelled_retried_moved_and_deleted(service: Service) -> None:
    first, second = submit(service), submit(service)
    assert service.queue.pause(first).state is JobState.PAUSED
    with pytest.raises(ConflictError, match="paused"):
        service.queue.pause(first)
    assert service.queue.resume(first).state is JobState.QUEUED
    with pytest.raises(ConflictError):
        service.queue.resume(first)
    service.queue.move(second, before=first)
    assert [job.id for job in service.queue.jobs([JobState.QUEUED])] == [second, first]
    assert service.queue.cancel(first).state is JobState.CANCELLED
    assert service.queue.retry(first).state is JobState.QUEUED
    with pytest.raises(ConflictError):
        service.queue.delete(first)
    service.queue.cancel(first)
    service.queue.delete(first)
    with pytest.raises(NotFoundError):
        service.queue.job(first)
    with pytest.raises(NotFoundError):
        service.queue.folder(first).log()


def test_paused_jobs_fill_the_queue_too_and_retries_need_room(service: Service) -> None:
    first, second = submit(service), submit(service)
    service.queue.cancel(first)
    service.queue.pause(second)
    submit(service), submit(service)
    for ask in (lambda: submit(service), lambda: service.queue.retry(first)):
        with pytest.raises(QueueFullError):
            ask()
    assert service.queue.resume(second).state is JobState.QUEUED


def test_jobs_keep_their_order_when_the_clock_is_set_back(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [submit(service)]
    monkeypatch.setattr("tincture.server.service.time.time", lambda: 1000.0)
    jobs += [submit(service), submit(service)]
    assert [job.id for job in service.queue.jobs()] == jobs


def test_other_trainings_of_an_adapter_are_found(service: Service) -> None:
    write(service.workspace.adapter_path("hypernetwork", "cat"))
    first, second = submit(service), submit(service, name="cat.pt")
    other = submit(service, kind="hypernetwork")
    service.queue.pause(second)
    assert [job.id for job in service.queue.same_adapter(service.queue.job(first))] == [second]
    assert [job.id for job in service.queue.same_adapter(service.queue.job(second))] == [first]
    assert service.queue.same_adapter(service.queue.job(other)) == []
    service.queue.cancel(second)
    assert service.queue.same_adapter(service.queue.job(first)) == []


def test_a_waiting_job_says_for_which_other_it_waits_until_that_is_over(service: Service) -> None:
    begun, second, third = submit(service), submit(service), submit(service)
    service.queue.store.update(begun, state=JobState.RUNNING, attempts=1, run_dir="run")
    service.queue.store.update(begun, state=JobState.PAUSED)
    service.queue.resume(begun)
    assert service.queue.job(second).stage == f"waits for job {begun}, which is queued"
    service.queue.pause(begun)
    assert (
        service.queue.job(second).stage == service.queue.job(third).stage == f"waits for job {begun}, which is paused"
    )
    service.queue.pause(third)
    assert service.queue.job(third).stage == ""
    service.queue.resume(third)
    service.queue.delete(begun)
    assert service.queue.job(second).stage == service.queue.job(third).stage == ""


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.QUEUED])
def test_a_job_that_begins_or_stops_while_it_is_cancelled_is_cancelled_as_it_is_then(
    service: Service, monkeypatch: pytest.MonkeyPatch, state: JobState
) -> None:
    job, get = submit(service), service.queue.store.get
    looks: list[JobState] = []

    def get_late(job_id: str) -> Job:
        found = get(job_id)
        if not looks:  # right after the first look, the supervisor changes it
            service.queue.store.update(job_id, state=state)
        looks.append(found.state)
        return found

    service.queue.store.update(job, state=JobState.RUNNING if state is JobState.QUEUED else JobState.QUEUED)
    monkeypatch.setattr(service.queue.store, "get", get_late)
    cancelled = service.queue.cancel(job)
    assert (cancelled.state is JobState.CANCELLED) or cancelled.wanted is Wanted.CANCELLED
    assert cancelled.state in (JobState.CANCELLED, state)


def test_interrupting_passes_over_what_just_ended_or_stops_anyway(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, pausing, running = submit(service), submit(service), submit(service)
    for job in (ended, pausing, running):
        service.queue.store.update(job, state=JobState.RUNNING)
    service.queue.pause(pausing)
    listed = service.queue.jobs([JobState.RUNNING])
    service.queue.store.update(ended, state=JobState.DONE)
    monkeypatch.setattr(service, "jobs", lambda states: listed)
    assert {job.id: job.wanted for job in service.queue.interrupt()} == {
        pausing: Wanted.PAUSED,
        running: Wanted.INTERRUPTED,
    }
    assert service.queue.job(ended).state is JobState.DONE


def test_jobs_run_and_tell(tmp_path: Path) -> None:
    with started(quick_service(tmp_path)) as service:
        good, bad = submit(service, steps=4, preview_every=2), submit(service, author="fails")
        assert service.queue.wait(good, 120).state is JobState.DONE
        failed = service.queue.wait(bad, 120)
        assert (failed.state, failed.error, failed.error_type) == (JobState.FAILED, "The data is odd.", "DataError")
        assert [record["global_step"] for record in service.queue.folder(good).metrics(since_step=2)] == [3, 4]
        assert service.queue.folder(good).events()[-1]["type"] == "ended"
        assert "nothing is trained here" in service.queue.folder(good).log()[0]
        assert len(service.queue.folder(good).previews()) >= 2
        counts = service.about()["jobs"]
        assert (counts["done"], counts["failed"], sum(counts.values())) == (1, 1, 2)


# --- what takes a model -----------------------------------------------------------------------------------------------


def test_a_plan_is_made_of_checked_settings_for_the_servers_device(service: Service, tmp_path: Path) -> None:
    service.model_work.plan("train", training(steps=7)["settings"])
    name, arguments = asked(service)
    assert name == "plan" and arguments["settings"]["steps"] == 7
    assert arguments["settings"]["device"] == service.settings.device[0]
    assert arguments["settings"]["data"] == str(tmp_path / "pictures")
    assert arguments["timing"] == "measure"
    service.model_work.plan("train", training()["settings"], "none")
    assert asked(service)[1]["timing"] == "none"
    with pytest.raises(ForbiddenPathError):
        service.model_work.plan("train", training(data="../elsewhere")["settings"])
    with pytest.raises(UsageError, match="Only a training"):
        service.model_work.plan("preprocess", {})


def test_while_a_job_runs_a_plan_measures_no_times(service: Service) -> None:
    job = service.queue.submit("train", training()["settings"], source="api")
    service.queue.store.update(job.id, state=JobState.RUNNING)
    service.model_work.plan("train", training()["settings"])
    assert asked(service)[1]["timing"] == "known"
    service.model_work.plan("train", training()["settings"], "none")
    assert asked(service)[1]["timing"] == "none"


def test_adapters_are_made_where_none_of_that_name_is(service: Service) -> None:
    path = service.model_work.create_adapter("embedding", " rex ", num_vectors=2)
    assert path == service.adapter_file("embedding", "rex")
    assert asked(service)[1] == {
        "kind": "embedding",
        "name": "rex",
        "model": "picto",
        "num_vectors": 2,
    }
    with pytest.raises(ConflictError):
        service.model_work.create_adapter("embedding", "rex")
    service.model_work.create_adapter("embedding", "rex", overwrite=True)
    service.model_work.create_adapter("hypernetwork", "ink", layer_structure=[1, 2, 1], sizes=[320])
    with pytest.raises(NotFoundError):
        service.adapter_file("embedding", "max")
    assert {adapter["name"] for adapter in service.adapters()} >= {"rex", "ink"}


def test_a_joint_training_needs_and_holds_all_its_adapters(service: Service) -> None:
    write(service.workspace.adapter_path("hypernetwork", "ink"))
    (service.workspace.root / "mine.txt").write_text("a [name]")
    with pytest.raises(UsageError, match=r"'pen'(.|\n)*'dog'"):
        submit(service, **{"with": ["hypernetwork:pen", "embedding:dog"]})
    table = {"kind": "hypernetwork", "name": "ink", "learning_rate": "0:2, 1e-4", "template": "mine.txt"}
    job = service.queue.job(submit(service, **{"with": [table]}))
    template = service.workspace.root / "mine.txt"
    assert job.settings["companions"] == [f"hypernetwork:ink:0:2, 1e-4; template={template}"]
    with pytest.raises(ForbiddenPathError):
        submit(service, **{"with": [{**table, "template": "../outside.txt"}]})
    alone = service.queue.job(submit(service, name="ink", kind="hypernetwork"))
    assert [other.id for other in service.queue.same_adapter(alone)] == [job.id]
    with pytest.raises(ConflictError, match=f"{job.id}, which is queued, trains the hypernetwork 'ink'"):
        service.model_work.create_adapter("hypernetwork", "ink", overwrite=True)


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING, JobState.PAUSED])
def test_no_new_adapter_takes_the_place_of_one_that_a_job_trains(service: Service, state: JobState) -> None:
    job = submit(service)
    service.queue.store.update(job, state=state)
    for ask in (
        lambda: service.model_work.create_adapter("embedding", " cat ", overwrite=True),
        lambda: service.model_work.convert("embeddings/cat.pt", "embeddings/cat.pt", overwrite=True),
        lambda: service.model_work.convert("embeddings/cat.pt", "embeddings/cat.safetensors"),
        lambda: service.model_work.merge(["embeddings/cat.pt:0.5"], "cat", overwrite=True),
    ):
        with pytest.raises(ConflictError, match=f"{job}, which is {state}, trains the embedding .*cancel it"):
            ask()
    assert not service.model_work.file_process.asked  # type: ignore[attr-defined]
    service.model_work.create_adapter("hypernetwork", "cat", overwrite=True)  # another kind
    service.queue.store.update(job, state=JobState.CANCELLED)
    service.model_work.create_adapter("embedding", "cat", overwrite=True)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"out": "/etc/passwd"}, UsageError),
        ({"workspace": "x"}, UsageError),
        ({"sizes": [10**9]}, UsageError),
        ({"sizes": [0]}, UsageError),
        ({"sizes": [320.5]}, UsageError),
        ({"sizes": "a" * 10**6}, UsageError),
        ({"sizes": list(range(1, 70))}, UsageError),
        ({"layer_structure": [1, 10**6, 1]}, TooMuchError),
        ({"layer_structure": [1, 1e300, 1]}, UsageError),
        ({"layer_structure": [1, 0.0001, 1]}, UsageError),
        ({"layer_structure": "1, 2, 1"}, UsageError),
        ({"layer_structure": [1, "2", 1]}, UsageError),
        ({"layer_structure": [1] * 1000}, UsageError),
        ({"dropout_structure": {"a": 1}}, UsageError),
        ({"seed": 2**64}, UsageError),
    ],
)
def test_hypernetworks_that_no_process_is_asked_for(
    service: Service, options: dict[str, Any], error: type[TinctureError]
) -> None:
    with pytest.raises(error) as told:
        service.model_work.create_adapter("hypernetwork", "ink", **options)
    assert len(str(told.value)) < 600
    assert not service.model_work.file_process.asked  # type: ignore[attr-defined]


def test_the_largest_hypernetworks_in_use_are_made(service: Service) -> None:
    service.model_work.create_adapter("hypernetwork", "ink", layer_structure=[1, 4, 4, 1])
    service.model_work.create_adapter(
        "hypernetwork", "wash", sizes="sd2", layer_structure=[1, 2, 2, 2, 1], dropout_structure=None
    )
    assert MOST_NUMBERS > 10**9


def test_a_drawing_has_a_model_a_place_and_seeds(service: Service, tmp_path: Path) -> None:
    (path,) = service.model_work.draw({"prompts": ["a moon"], "seeds": [5]})
    name, arguments = asked(service, "drawing_process")
    assert (name, arguments["request"]["model"], arguments["request"]["seeds"]) == ("draw", "picto", [5])
    assert arguments["device"] == service.settings.device[0]
    assert path.parent.parent == service.state_dir / "pictures"
    assert service.picture_file(path.parent.name, path.name) == path
    remarks: list[str] = []
    service.model_work.draw({"prompts": ["a moon"]}, remarks)
    assert remarks == ["It was done quickly."]
    service.model_work.draw({"prompts": ["a moon"]})
    assert asked(service, "drawing_process")[1]["request"]["seeds"][0] >= 0
    assert service.model_work.drawing() == {"done": 3, "total": 20, "preview": None}
    with pytest.raises(TooMuchError):
        service.model_work.draw({"prompts": ["a"] * 5})
    service.model_work.stop_drawing()
    assert service.model_work.drawing_process.interrupted == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("day", "name"),
    [("..", "jobs.sqlite3"), ("2026-01-01", "../../jobs.sqlite3"), ("", ""), ("2026-01-01", "00001-1.png")],
)
def test_only_drawn_pictures_are_given(service: Service, day: str, name: str) -> None:
    with pytest.raises(NotFoundError):
        service.picture_file(day, name)


@pytest.mark.parametrize(
    ("path", "out", "options", "error"),
    [
        ("/etc/passwd", "converted/a.pt", {}, ForbiddenPathError),
        ("embeddings/cat.pt", "../a.pt", {}, ForbiddenPathError),
        ("embeddings/cat.pt", "tincture-server/jobs.sqlite3", {"overwrite": True}, ForbiddenPathError),
        ("embeddings/cat.pt", "a.png", {"picture": "/etc/passwd"}, ForbiddenPathError),
        ("embeddings/cat.pt", "a.png", {"workspace": "/"}, UsageError),
        ("embeddings/cat.pt", "a.safetensors", {"lora": {"model": "/etc/passwd", "rank": 4}}, ForbiddenPathError),
        ("embeddings/cat.pt", "a.safetensors", {"lora": {"rank": 10**6}}, UsageError),
        ("embeddings/cat.pt", "a.safetensors", {"lora": {"captions": "a cat"}}, UsageError),
        ("embeddings/cat.pt", "a.safetensors", {"rank": 10**6}, UsageError),
        ("embeddings/cat.pt", "a.safetensors", {"rank": 0}, UsageError),
        ("embeddings/cat.pt", "a.safetensors", {"model": "/etc/passwd", "rank": 4}, ForbiddenPathError),
        ("embeddings/cat.pt", "a.safetensors", {"captions": "/etc/passwd"}, ForbiddenPathError),
        ("embeddings/cat.pt", "a.safetensors", {"strength": float("nan")}, UsageError),
        ("embeddings/cat.pt", "a.safetensors", {"lora": {"path": "x"}}, UsageError),
        ("embeddings/cat.pt", "a.safetensors", {"lora": "all"}, UsageError),
        ("embeddings/cat.pt", "a.png", {"author": "a" * 10**6}, UsageError),
    ],
)
def test_conversions_that_are_refused(
    service: Service, path: str, out: str, options: dict[str, Any], error: type[TinctureError]
) -> None:
    with pytest.raises(error):
        service.model_work.convert(path, out, **options)
    assert not service.model_work.file_process.asked  # type: ignore[attr-defined]
    with pytest.raises(ForbiddenPathError):
        service.model_work.inspect("/etc/passwd")


# --- data sets --------------------------------------------------------------------------------------------------------


def test_a_data_set_that_a_job_needs_is_not_deleted(service: Service) -> None:
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, "PNG")
    for name in ("rex", "rex-2"):
        content.seek(0)
        service.datasets.upload(name, [("a.png", content)])
    job = submit(service, data=["rex:3"])
    assert service.queue.job(job).settings["data"] == f"{service.datasets.root / 'rex'}:3"
    with pytest.raises(ConflictError, match=job):
        service.delete_dataset("rex")
    service.delete_dataset("rex-2")
    service.queue.cancel(job)
    service.delete_dataset("rex")
    with pytest.raises(NotFoundError):
        service.delete_dataset("rex")
    assert service.datasets.list() == []


# --- the workspace ----------------------------------------------------------------------------------------------------


def test_what_lies_in_the_workspace(service: Service) -> None:
    assert [model["name"] for model in service.models()] == ["picto"]
    write_head(service.workspace.models / "inner" / "house.safetensors")
    assert [model["name"] for model in service.models()] == ["inner/house.safetensors", "picto"]
    assert service.default_model() == "inner/house.safetensors"
    write(service.workspace.templates / "mine.txt")
    templates = service.templates()
    assert templates[0] == "mine" and "style_filewords" in templates
    with pytest.raises(NotFoundError):
        service.adapter_file("lora", "x")
    assert service.about()["root"] == str(service.workspace.root)


def test_children_ask_the_hub_only_where_that_is_allowed(tmp_path: Path) -> None:
    for allowed in (False, True):
        service = Service(Workspace(tmp_path), ServerSettings(allow_hub=allowed))
        asking = (
            cast(DeviceWorkers, service.queue.supervisor.workers).allow_hub,
            service.model_work.file_process._allow_hub,
            service.model_work.drawing_process._allow_hub,
        )
        assert asking == (allowed,) * 3
        service.close()
        service.queue.store.close()


def test_the_model_that_draws_makes_room_on_its_own_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rested: list[ModelProcess] = []
    monkeypatch.setattr(ModelProcess, "rest", lambda calls: rested.append(calls))
    service = Service(Workspace(tmp_path), ServerSettings(device=("cuda:0", "cuda:1")))
    job = Job(id="one", kind="train", name="cat", settings={}, device="cuda:1")
    service.queue.supervisor._make_room(job)
    assert rested == []
    service.queue.supervisor._make_room(dataclasses.replace(job, device="cuda:0"))
    assert rested == [service.model_work.file_process, service.model_work.drawing_process]
    service.close()
    service.queue.store.close()


def test_a_start_clears_away_what_uploads_left(tmp_path: Path) -> None:
    service = quick_service(tmp_path)
    write(service.state_dir / "uploads" / "tmp1" / "0")
    with started(service):
        assert not (service.state_dir / "uploads").exists()
        assert service.queue.store.path.is_file()


def test_a_server_that_is_closed_twice_stays_closed(tmp_path: Path) -> None:
    service = quick_service(tmp_path)
    service.start()
    job = submit(service)
    until(lambda: service.queue.job(job).state is not JobState.QUEUED)
    service.close()
    service.close()


def test_extensions_find_the_queue_where_they_were_promised(tmp_path: Path) -> None:
    service = quick_service(tmp_path)
    job = service.submit("train", training()["settings"])
    assert [each.id for each in service.jobs()] == [job.id]
    record = {"n": 1, "time": 1.0, "type": "steps", "records": [[1, 0, 0, 0.5, 0.1], [2, 0, 1, 0.25, 0.1]]}
    folder = service.queue.folder(job.id)
    folder.path.mkdir(parents=True)
    folder.event_file.write_text(json.dumps(record) + "\n")
    assert [entry["loss"] for entry in service.metrics(job.id)] == [0.5, 0.25]
    assert [entry["global_step"] for entry in service.metrics(job.id, 1)] == [2]


def test_the_start_sweeps_what_killed_processes_left_half_written(service: Service) -> None:
    workspace = service.workspace
    places = (workspace.embeddings / "inner", workspace.hypernetworks, workspace.datasets / "a", service.state_dir)
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
        (place / ".tincture-0123456789abcdef.tmp").touch()
        (place / "other.tmp").touch()
    with started(service):
        assert [sorted(path.name for path in place.glob("*.tmp")) for place in places] == [["other.tmp"]] * 4
        assert not [*service.state_dir.glob(".tincture-*")]
