from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI, UploadFile
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from tests.unit.server.gate import URL
from tincture.errors import StorageError
from tincture.server.http import monitoring
from tincture.server.http.monitoring import CountRequests, Monitor
from tincture.server.queue.jobs import Job, JobKind, JobState
from tincture.server.queue.store import JobStore
from tincture.server.security.gate import protect
from tincture.settings.server import ServerSettings


class FakeService:
    """As much of the service as is watched."""

    def __init__(self, root: Path) -> None:
        self.workspace, self.state_dir = SimpleNamespace(root=root), root
        self.all: dict[str, Job] = {}
        self.queue = self.store = self
        self.started_at = time.time() - 5
        self.broken = False
        self.on_change: list[Callable[[Job], object]] = []

    def counts(self) -> dict[JobState, int]:
        if self.broken:
            raise StorageError("The queue is damaged.")
        return dict(Counter(job.state for job in self.all.values()))

    def put(self, job_id: str, kind: JobKind = "train", **changes: Any) -> None:
        now = time.time() + 1
        before = self.all.get(job_id) or Job(id=job_id, kind=kind, name="cat", settings={}, created_at=now)
        self.all[job_id] = dataclasses.replace(before, **changes)
        for each in self.on_change:
            each(self.all[job_id])

    def start(self, job_id: str, **changes: Any) -> None:
        job = self.all[job_id]
        changes = {"started_at": job.created_at + 4, "attempts": job.attempts + 1, **changes}
        self.put(job_id, state=JobState.RUNNING, **changes)

    def end(self, job_id: str, state: JobState, after: float) -> None:
        began = self.all[job_id].started_at
        assert began
        self.put(job_id, state=state, ended_at=began + after)


@pytest.fixture
def service(tmp_path: Path) -> FakeService:
    return FakeService(tmp_path)


@pytest.fixture
def server(service: FakeService) -> Iterator[TestClient]:
    yield _client(service)


def _client(service: Any, **settings: Any) -> TestClient:
    app = FastAPI()
    monitor = Monitor(service)
    app.include_router(monitoring.router(service, monitor))
    app.add_api_route("/api/v1/jobs/{job_id}", lambda job_id: job_id)

    @app.post("/api/v1/datasets/{name}")
    def upload(name: str, files: list[UploadFile]) -> str:
        return name

    protect(app, ServerSettings(**settings), received=monitor.uploaded.inc)
    app.add_middleware(CountRequests, monitor=monitor)
    return TestClient(app, base_url=URL)


def figures(server: TestClient, **headers: str) -> dict[str, float]:
    """Every figure by its name with its labels, as Prometheus reads it."""
    answer = server.get("/metrics", headers=headers)
    assert answer.headers["content-type"].startswith("text/plain")
    samples = [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]
    return {
        " ".join([sample.name, *(value for _, value in sorted(sample.labels.items()))]): sample.value
        for sample in samples
    }


def test_health_says_that_it_lives_and_is_ready(server: TestClient, service: FakeService) -> None:
    answer = server.get("/health")
    told = answer.json()
    assert (answer.status_code, told["status"], told["live"], told["ready"]) == (200, "ok", True, True)
    service.broken = True
    answer = server.get("/health")
    assert answer.status_code == 503
    assert answer.json()["ready"] is False and "damaged" in answer.json()["faults"][0]


def test_health_tells_strangers_no_more_than_whether_it_is_well(service: FakeService) -> None:
    server = _client(service, auth="ada:engine")
    assert server.get("/health").json() == {"status": "ok"}
    assert server.get("/health", auth=("ada", "engine")).json()["live"] is True
    service.broken = True
    assert server.get("/health").json() == {"status": "failed"}
    assert server.get("/health").status_code == 503


def test_figures_need_credentials_where_everything_does(service: FakeService) -> None:
    server = _client(service, token="0123456789abcdef")
    assert server.get("/metrics").status_code == 401
    assert "tincture_jobs queued" in figures(server, **{"X-API-Key": "0123456789abcdef"})


def test_figures_of_jobs_and_of_the_machine(server: TestClient, service: FakeService) -> None:
    service.put("a")
    service.put("b", state=JobState.PAUSED)
    found = figures(server)
    assert (found["tincture_jobs queued"], found["tincture_jobs paused"], found["tincture_jobs done"]) == (1, 1, 0)
    assert found["tincture_disk_free_bytes workspace"] > 0
    assert found["tincture_uptime_seconds"] >= 5
    assert found["process_resident_memory_bytes"] > 0


def test_what_jobs_did_is_counted_once(server: TestClient, service: FakeService) -> None:
    service.put("a")
    service.put("p", kind="preprocess")
    assert "tincture_job_wait_seconds_count train" not in figures(server)
    service.start("a", global_step=3)
    service.start("p", global_step=100)
    for _ in range(3):
        found = figures(server)
        assert found["tincture_train_steps_total"] == 3  # pictures are no steps
        assert (found["tincture_job_wait_seconds_count train"], found["tincture_job_wait_seconds_sum train"]) == (1, 4)
    service.put("a", global_step=10)
    service.end("a", JobState.DONE, after=30)
    service.end("p", JobState.FAILED, after=2)
    for _ in range(3):
        found = figures(server)
        assert found["tincture_train_steps_total"] == 10
        assert found["tincture_jobs_ended_total train done"] == 1
        assert found["tincture_jobs_ended_total preprocess failed"] == 1
        assert found["tincture_job_seconds_sum train done"] == pytest.approx(30)
        assert [found[f"tincture_job_seconds_bucket train {limit} done"] for limit in ("10.0", "60.0")] == [0, 1]
        assert found["tincture_jobs done"] == 1
    service.all.clear()  # deleted: what was counted stays
    assert figures(server)["tincture_train_steps_total"] == 10


def test_a_job_that_goes_on_waited_once_and_its_old_steps_do_not_count(
    server: TestClient, service: FakeService
) -> None:
    service.put("a")
    service.start("a", global_step=50, attempts=2)  # this server did not see its first attempt
    assert figures(server)["tincture_train_steps_total"] == 0
    service.put("a", global_step=60)
    service.end("a", JobState.FAILED, after=5)
    assert figures(server)["tincture_jobs_ended_total train failed"] == 1
    service.start("a", started_at=time.time() + 50)
    service.put("a", global_step=70)
    service.end("a", JobState.DONE, after=9)
    found = figures(server)
    assert (found["tincture_train_steps_total"], found["tincture_jobs_ended_total train done"]) == (20, 1)
    assert "tincture_job_wait_seconds_count train" not in found


def test_what_was_done_before_the_server_began_does_not_count(server: TestClient, service: FakeService) -> None:
    told, service.on_change[:] = service.on_change[:], []
    service.put("old", created_at=5.0)
    service.start("old", global_step=100)
    service.end("old", JobState.DONE, after=3)
    service.on_change[:] = told
    found = figures(server)
    assert (found["tincture_jobs done"], found["tincture_train_steps_total"]) == (1, 0)
    assert not [name for name in found if name.startswith("tincture_jobs_ended_total")]


def test_a_queue_that_cannot_be_read_is_an_error_and_no_figure(server: TestClient, service: FakeService) -> None:
    service.broken = True
    assert server.get("/metrics").status_code == 507


def test_nothing_is_missed_between_two_answers(tmp_path: Path) -> None:
    """Of the queue itself: a job that ends, is retried, ends again and is forgotten; and more jobs than a list has."""
    store = JobStore(tmp_path / "jobs.sqlite3")
    service = FakeService(tmp_path)
    service.queue = SimpleNamespace(store=store)  # type: ignore[assignment]
    service.store = store  # type: ignore[assignment]
    server, now = _client(service), time.time()
    figures(server)
    store.add(Job(id="a", kind="train", name="cat", settings={"kind": "embedding"}, created_at=now - 7))
    for step in (4, 9):
        assert store.claim("cpu")
        store.note("a", global_step=step)
        store.update("a", state=JobState.FAILED, ended_at=time.time() + 30)
        store.update("a", state=JobState.QUEUED)
    assert store.claim("cpu")
    store.update("a", [JobState.RUNNING], state=JobState.PAUSED, ended_at=time.time() + 30)
    store.update("a", state=JobState.CANCELLED, ended_at=time.time() + 5000)
    store.delete("a", [JobState.CANCELLED])
    for number in range(250):
        store.add(Job(id=f"p{number}", kind="preprocess", name="crops", settings={"destination": f"{number}"}))
        store.claim("cpu")
        store.update(f"p{number}", state=JobState.DONE, ended_at=time.time())
    found = figures(server)
    assert found["tincture_jobs_ended_total train failed"] == 2
    assert found["tincture_jobs_ended_total train cancelled"] == 1
    assert found["tincture_jobs_ended_total preprocess done"] == 250
    assert found["tincture_train_steps_total"] == 9
    assert found["tincture_job_wait_seconds_count train"] == 1
    assert found["tincture_job_wait_seconds_sum train"] == pytest.approx(7, abs=5)
    # it was paused after half a minute, and cancelled much later
    assert found["tincture_job_seconds_sum train cancelled"] == pytest.approx(30, abs=5)
    store.close()


def test_requests_are_counted_by_route_refusals_too(server: TestClient) -> None:
    for job in range(5):
        server.get(f"/api/v1/jobs/{job}")
    server.get("/nothing")
    server.get("/api/v1/jobs/1", headers={"Host": "evil.example"})
    server.request("BREW", "/api/v1/jobs/1")
    server.post("/api/v1/datasets/cats", files={"files": b"x" * 1000})
    found = figures(server)
    assert found["tincture_http_requests_total GET /api/v1/jobs/{job_id} 200"] == 5
    assert found["tincture_http_requests_total GET other 404"] == 1
    assert found["tincture_http_requests_total GET other 403"] == 1
    assert found["tincture_http_answer_seconds_count /api/v1/jobs/{job_id}"] >= 5
    assert 1000 < found["tincture_upload_bytes_total"] < 2000
    assert not [name for name in found if "BREW" in name or "evil" in name]


def test_each_app_counts_for_itself(service: FakeService) -> None:
    one, other = _client(service), _client(service)
    one.get("/health")
    assert figures(one)["tincture_http_requests_total GET /health 200"] == 1
    assert "tincture_http_requests_total GET /health 200" not in figures(other)
