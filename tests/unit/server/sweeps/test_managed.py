"""Sweeps of a server: their runs are jobs of its queue, whose workers compute nothing here."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.served import quick_service, started, training, until
from tincture.server.app import build_app
from tincture.server.errors import ConflictError, NotFoundError
from tincture.server.queue.jobs import JobState
from tincture.server.service import Service

GRID = {"learning_rate": ["0.3", "0.1", "0.2"]}


def given(**more: Any) -> dict[str, Any]:
    """A sweep as a request gives it."""
    run = {**training()["settings"], "steps": 6, "model": "picto"}
    return {"name": "rates", "run": run, "grid": GRID, **more}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with started(quick_service(tmp_path)) as service:
        yield service


def state(service: Service, name: str = "rates") -> str:
    return str(service.sweeps.shown(name)["state"])


def ended(service: Service, name: str = "rates") -> dict[str, Any]:
    until(lambda: state(service, name) in ("done", "stopped"))
    return service.sweeps.shown(name)


def test_each_run_is_a_job(service: Service) -> None:
    made = service.sweeps.create(given(), "page")
    assert made["state"] == "running" and len(made["runs"]) == 3
    found = ended(service)
    assert found["states"] == {"done": 3} and found["best"] == "rates-p02"
    jobs = service.queue.jobs()
    assert {job.sweep for job in jobs} == {f"rates/rates-p0{n}" for n in (1, 2, 3)}
    assert {job.source for job in jobs} == {"page"} and {job.state for job in jobs} == {JobState.DONE}
    assert (service.workspace.sweeps / "rates" / "report.html").is_file()


def test_the_better_part_goes_on_at_a_rung(service: Service) -> None:
    service.sweeps.create(given(halving={"rungs": [2], "factor": 2}))
    found = ended(service)
    assert found["states"] == {"done": 2, "stopped": 1}
    assert [run["step"] for run in found["runs"]] == [2, 6, 6]
    assert len(service.queue.jobs()) == 5


def test_a_job_that_fails_is_a_run_that_failed(service: Service) -> None:
    service.sweeps.create(given(grid={"author": ["somebody", "fails"]}, run={**given()["run"], "learning_rate": "0.1"}))
    found = ended(service)
    assert found["states"] == {"done": 1, "failed": 1}
    assert found["runs"][1]["message"] == "The data is odd."
    service.sweeps.resume("rates", retry=True)
    assert ended(service)["states"] == {"done": 1, "failed": 1} and len(service.queue.jobs()) == 3


def test_a_job_that_somebody_cancels_ends_its_run_alone(tmp_path: Path) -> None:
    with started(quick_service(tmp_path, pace_s=0.2)) as service:
        service.sweeps.create(given(run={**given()["run"], "steps": 3}))
        until(lambda: service.queue.jobs([JobState.RUNNING]))
        (job,) = service.queue.jobs([JobState.RUNNING])
        service.queue.cancel(job.id)
        found = ended(service)
    assert found["states"] == {"failed": 1, "done": 2}
    assert re.search(r"was cancelled at step \d", found["runs"][0]["message"])


def test_a_sweep_is_stopped_and_goes_on(tmp_path: Path) -> None:
    with started(quick_service(tmp_path, pace_s=0.1)) as service:
        service.sweeps.create(given())
        until(lambda: any(job.global_step for job in service.queue.jobs()))
        service.sweeps.stop("rates")
        found = ended(service)
        assert found["state"] == "stopped" and not service.queue.unfinished()
        with pytest.raises(ConflictError, match="Nothing works"):
            service.sweeps.stop("rates")
        service.sweeps.resume("rates")
        assert ended(service)["states"] == {"done": 3}
    steps = [int(step) for step in (tmp_path / "sweeps/rates/trials/rates-p01/jobs").read_text().split()]
    assert steps[-1] == 6 and len(steps) <= 2


def test_a_sweep_goes_on_when_its_server_starts_again(tmp_path: Path) -> None:
    with started(quick_service(tmp_path, pace_s=0.1)) as service:
        service.sweeps.create(given())
        until(lambda: any(job.global_step for job in service.queue.jobs([JobState.RUNNING])))
    with started(quick_service(tmp_path)) as service:
        assert ended(service)["states"] == {"done": 3}
        assert len(service.queue.jobs()) == 3  # those that waited or ran were taken on, not put in again
    with started(quick_service(tmp_path)) as service:
        assert state(service) == "done" and len(service.queue.jobs()) == 3


def test_more_runs_than_the_queue_has_room_for_wait_outside(tmp_path: Path) -> None:
    with started(quick_service(tmp_path, max_jobs=1)) as service:
        service.sweeps.create(given(grid={"learning_rate": [f"0.{n}" for n in range(1, 7)]}))
        assert ended(service)["states"] == {"done": 6}


def test_what_is_not_allowed_leaves_nothing(service: Service, tmp_path: Path) -> None:
    for more, words in (
        ({"grid": {"lr": [1]}}, "no setting 'lr'"),
        ({"run": {**given()["run"], "data": "/etc"}}, "leads out"),
        ({"grid": {"data": ["pictures", "/etc"]}}, "leads out"),
        ({"grid": {"log_dir": ["/etc/x"]}}, "leads out"),
        ({"random": {"trials": 2, "ranges": {"cache_dir": {"choices": ["/etc/x"]}}}, "grid": None}, "leads out"),
        ({"run": "run.toml"}, "table of its settings"),
        ({"name": "a/b"}, "not allowed"),
    ):
        wanted = {key: value for key, value in given(**more).items() if value is not None}
        with pytest.raises(Exception, match=words):
            service.sweeps.create(wanted)
    assert not (tmp_path / "sweeps").exists() and not service.queue.jobs()


def test_a_name_is_given_once(service: Service) -> None:
    service.sweeps.create(given())
    with pytest.raises(ConflictError, match="already"):
        service.sweeps.create(given(grid={"steps": [1, 2]}))
    ended(service)
    for act in (service.sweeps.shown, service.sweeps.stop, service.sweeps.resume, service.sweeps.report):
        with pytest.raises(NotFoundError, match="no sweep"):
            act("other")  # type: ignore[operator]


def test_a_sweep_of_the_command_line_is_shown_and_goes_on_there(service: Service, tmp_path: Path) -> None:
    service.sweeps.create(given())
    ended(service)
    record = tmp_path / "sweeps/rates/sweep.json"
    record.write_text(record.read_text().replace(f'"cwd": "{tmp_path}"', '"cwd": "/elsewhere"'))
    assert [each["name"] for each in service.sweeps.listed()] == ["rates"]
    with pytest.raises(ConflictError, match=r"begun by tincture sweep in /elsewhere; go on with it there"):
        service.sweeps.resume("rates")
    shutil.rmtree(tmp_path / "sweeps")
    assert service.sweeps.listed() == [] and service.sweeps.names() == []


# --- HTTP ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def client(service: Service) -> Iterator[Any]:
    with TestClient(build_app(service, page=False), base_url="http://127.0.0.1/api/v1/") as client:
        yield client


def test_a_sweep_through_the_api(client: Any, service: Service) -> None:
    made = client.post("sweeps", json=given())
    assert made.status_code == 202 and made.headers["location"] == "/api/v1/sweeps/rates"
    assert len(made.json()["runs"]) == 3
    ended(service)
    found = client.get("sweeps/rates").json()
    assert found["state"] == "done" and found["columns"][:2] == ["run", "learning_rate"]
    assert [each["name"] for each in client.get("sweeps").json()["sweeps"]] == ["rates"]
    report = client.get("sweeps/rates/report")
    assert report.headers["content-type"].startswith("text/html") and "rates-p02" in report.text
    assert client.get("jobs").json()["jobs"][0]["sweep"].startswith("rates/")
    assert client.post("sweeps/rates/stop").status_code == 409
    assert client.post("sweeps/rates/resume").status_code == 200
    assert client.get("sweeps/none").status_code == 404
    assert client.post("sweeps", json=given()).status_code == 409


def test_a_sweep_may_be_given_as_its_file(client: Any, service: Service) -> None:
    lines = "\n".join(f"{key} = {value!r}".replace("'", '"') for key, value in given()["run"].items())
    text = f'name = "file"\n[run]\n{lines}\n[grid]\nlearning_rate = [0.1, 0.2]\n'
    assert client.post("sweeps", json={"toml": text}).json()["name"] == "file"
    assert client.post("sweeps", json={"toml": text, "name": "other"}).json()["name"] == "other"
    assert ended(service, "other")["states"] == {"done": 2}
    for body, words in (
        ({"toml": "a = ["}, "not valid TOML"),
        ({"toml": text, "grid": {}}, "not both"),
        ({"grid": GRID}, "run must be"),
    ):
        answer = client.post("sweeps", json=body)
        assert answer.status_code == 422 and words in answer.json()["detail"]
