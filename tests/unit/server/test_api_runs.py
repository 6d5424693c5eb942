"""Runs of the workspace over HTTP: the list, and some beside each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from tests.past_runs import past_run
from tests.served import quick_service
from tincture.server import api_v1
from tincture.server.http import errors as http_errors


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    service = quick_service(tmp_path)
    app = FastAPI()
    http_errors.register(app)
    app.include_router(api_v1.router(service))
    root = service.workspace.root
    past_run(root, "2026-01-01/rex", at=1000, ended={}, validation=[(2, 0.5)])
    past_run(root, "2026-01-02/max", at=2000, learning_rate="0.1", losses=(0.5, float("nan"), 0.3))
    yield TestClient(app)
    service.close()


def test_the_list_has_state_step_and_curve(client: TestClient) -> None:
    answer = client.get("/api/v1/runs", params={"limit": 1}).json()
    assert answer["more"] == 1 and answer["runs"][0]["id"] == "2026-01-02/max"
    (rex,) = client.get("/api/v1/runs", params={"search": "REX pic"}).json()["runs"]
    assert (rex["state"], rex["global_step"], rex["best_step"], len(rex["curve"])) == ("done", 4, 2, 4)


def test_a_comparison_is_what_the_command_draws(client: TestClient) -> None:
    answer = client.get("/api/v1/runs/compare", params={"run": ["2026-01-01/rex", "2026-01-02/max"]}).json()
    assert answer["settings"] == {"name": ["rex", "max"], "learning_rate": ["0.005", "0.1"]}
    assert [len(curve["step"]) for curve in answer["curves"]["Loss"]] == [4, 2]
    assert {row["step"] for row in answer["previews"]} == {0, 4}


@pytest.mark.parametrize(
    ("runs", "status"),
    [
        (["2026-01-01/rex"], 422),
        (["2026-01-01/rex", "nobody"], 404),
        (["2026-01-01/rex", "../../etc"], 404),
        (["2026-01-01/rex", "/"], 404),
        (["2026-01-01/rex", "2026-01-01/rex"], 422),
    ],
    ids=["one", "unknown", "upward", "path", "twice"],
)
def test_what_is_no_run_of_the_workspace_is_refused(client: TestClient, runs: list[str], status: int) -> None:
    answer = client.get("/api/v1/runs/compare", params={"run": runs})
    assert answer.status_code == status, answer.text
