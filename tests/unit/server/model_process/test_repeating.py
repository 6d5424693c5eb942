"""A run is made once more by a job, from its folder or an adapter's file, and what changed since is said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from tests.runs import RANDOM, Bench, equal, trained
from tincture import recipe
from tincture.server import api_v1
from tincture.server.http import errors as http_errors
from tincture.server.model_process import targets
from tincture.server.model_process.targets import Resources
from tincture.server.service import Service
from tincture.settings.server import ServerSettings
from tincture.settings.train import TrainSettings

CHANGES: dict[str, Any] = {**RANDOM, "steps": 3, "save_every": 2, "threads": 1}
AGAIN = "/api/v1/runs/again"


class Here:
    """Does in this process what another one does for a server."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def call(self, name: str, /, **arguments: Any) -> Any:
        return getattr(targets, name)(self._resources, **arguments)

    def close(self) -> None: ...


@pytest.fixture
def bench(new_bench: Callable[[str], Bench]) -> Bench:
    return new_bench("again")


@pytest.fixture
def service(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    made = Service(bench.workspace, ServerSettings(device=("cpu",), allow_dir=(str(bench.model.parent),)))
    monkeypatch.setattr(made.model_work, "file_process", Here(Resources(bench.workspace, lambda **_: None)))
    yield made
    made.close()


@pytest.fixture
def client(service: Service) -> TestClient:
    app = FastAPI()
    http_errors.register(app)
    app.include_router(api_v1.router(service))
    return TestClient(app)


def files(bench: Bench) -> set[Path]:
    return {path for path in bench.workspace.root.rglob("*") if path.is_file() and "tincture-server" not in path.parts}


@pytest.mark.parametrize("by", ["run", "file"])
@pytest.mark.parametrize("kind", ["embedding", "hypernetwork"])
def test_the_job_makes_the_same_weights(bench: Bench, client: TestClient, kind: str, by: str) -> None:
    first = bench.train(kind, **{**CHANGES, **({} if kind == "embedding" else {"template": "hypernetwork"})})
    run_id = "/".join(first.run_dir.parts[-2:])
    answer = client.post(AGAIN, json={"run": run_id} if by == "run" else {"file": str(first.adapter_path)})
    assert answer.status_code == 202, answer.text
    found = answer.json()
    assert found["source"] == (run_id if by == "run" else first.adapter_path.name)
    assert found["changed_since"] == found["remarks"] == []
    assert found["name"] == f"{first.adapter_path.stem}-again" == found["job"]["name"]
    assert answer.headers["Location"].endswith(found["job"]["id"])
    second = recipe.train(TrainSettings.from_dict(found["job"]["settings"]), bench.workspace)
    assert equal(trained(second.adapter_path), trained(first.adapter_path))


def test_what_changed_is_said_before_anything_begins_and_a_look_leaves_nothing(
    bench: Bench, client: TestClient
) -> None:
    first = bench.train("embedding", **CHANGES)
    (bench.data / "0.txt").write_text("another caption")
    (bench.data / "1.png").unlink()
    before = files(bench)
    found = client.post(AGAIN, json={"file": str(first.adapter_path), "dry_run": True, "settings": {"seed": 9}}).json()
    assert found["changed_since"] == ["The pictures are others: there were 5, and there are 4."]
    assert found["job"] is None and found["settings"]["seed"] == 9
    assert files(bench) == before and not client.get("/api/v1/jobs").json()["jobs"]


def test_a_name_that_prompts_have_is_remarked_upon(bench: Bench, client: TestClient) -> None:
    bench.train("hypernetwork", **{**CHANGES, "template": "style"})
    run_id = client.get("/api/v1/runs").json()["runs"][0]["id"]
    found = client.post(AGAIN, json={"run": run_id, "name": "blue", "priority": 3}).json()
    assert found["name"] == "blue" and found["job"]["priority"] == 3
    assert any("[name]" in remark and "--" not in remark for remark in found["remarks"])


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ({}, 422, "Give run"),
        ({"run": "2026-01-01/rex", "file": "x.pt"}, 422, "Give run"),
        ({"run": "2026-01-01/rex"}, 404, "There is no run '2026-01-01/rex'"),
        ({"run": "../../etc"}, 404, "There is no run"),
        ({"file": "/etc/passwd"}, 403, ""),
        ({"run": "RUN", "settings": {"sted": 3}}, 422, "sted"),
        ({"run": "RUN", "settings": {"data": "nowhere"}}, 422, "nowhere"),
        ({"run": "RUN", "settings": {"data": "/etc"}}, 403, ""),
        ({"run": "RUN", "name": "cat"}, 422, "exists already"),
        ({"run": "RUN", "gpus": 2}, 422, "gpus"),
    ],
    ids=["nothing", "both", "unknown", "upward", "foreign", "setting", "data", "outside", "taken", "gpus"],
)
def test_what_cannot_be_made_again_is_refused_and_leaves_nothing(
    bench: Bench, client: TestClient, asked: dict[str, Any], status: int, part: str
) -> None:
    run_dir = bench.train("embedding", **{**CHANGES, "steps": 1}).run_dir
    before = files(bench)
    given = {key: "/".join(run_dir.parts[-2:]) if value == "RUN" else value for key, value in asked.items()}
    answer = client.post(AGAIN, json=given)
    assert (answer.status_code, part in answer.text) == (status, True), answer.text
    assert files(bench) == before and not client.get("/api/v1/jobs").json()["jobs"]


def test_the_page_says_what_changed_of_the_pictures(bench: Bench, service: Service) -> None:
    first = bench.train("embedding", **CHANGES)

    def changed() -> list[str]:
        found = service.model_work.inspect(str(first.adapter_path))
        return service.pictures_changed(found, service.settings_again(found)[0])

    assert changed() == []
    (bench.data / "0.txt").write_text("another caption")
    assert changed() == ["The pictures, their captions or masks have changed."]
    first.adapter_path.rename(first.adapter_path.with_name("dog.pt"))
    assert service.pictures_changed({"path": "cat.pt"}, {"kind": "embedding", "name": "cat", "data": "nowhere"}) == []
