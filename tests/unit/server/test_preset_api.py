"""Presets of trainings through the HTTP API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.served import quick_service
from tincture.server.app import build_app
from tincture.settings.presets import NAMED, find_preset
from tincture.workspace import Workspace

SETTINGS = {"kind": "embedding", "name": "rex", "steps": 77, "ema": 0.9, "data": "gone"}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Any]:
    with TestClient(build_app(quick_service(tmp_path), page=False), base_url="http://127.0.0.1/api/v1/") as client:
        yield client


def test_a_preset_is_saved_listed_read_used_and_deleted(client: Any, tmp_path: Path) -> None:
    saved = client.put("presets/mine", json={"settings": SETTINGS})
    assert saved.status_code == 201 and saved.headers["location"] == "/api/v1/presets/mine"
    listed = client.get("presets").json()["presets"]
    assert [one["name"] for one in listed] == [*NAMED, "mine"]
    assert [one["built_in"] for one in listed] == [*[True] * len(NAMED), False]
    read = client.get("presets/mine").json()
    assert (
        read
        == saved.json()
        == {
            "name": "mine",
            "kind": "embedding",
            "settings": {"kind": "embedding", "steps": 77, "ema": "0.9"},
        }
    )
    assert find_preset("mine", Workspace(tmp_path)).common["steps"] == 77
    job = {"kind": "train", "settings": {**read["settings"], "name": "cat", "data": "pictures"}}
    assert client.post("jobs", json=job).json()["settings"]["steps"] == 77
    assert client.delete("presets/mine").status_code == 204
    assert client.get("presets/mine").status_code == 404
    assert client.delete("presets/mine").status_code == 404


def test_a_built_in_preset_is_read_by_kind_and_model(client: Any) -> None:
    small = client.get("presets/careful", params={"kind": "embedding"}).json()["settings"]
    assert small["steps"] == 400  # picto is the only model
    other = client.get("presets/careful", params={"kind": "hypernetwork", "model": "v1-5"}).json()["settings"]
    assert other["steps"] == 5000 and other["learning_rate"] == "1e-5:3000, 5e-6"
    answer = client.get("presets/careful")
    assert answer.status_code == 422 and "give kind, embedding or hypernetwork" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("name", "body", "status", "words"),
    [
        ("quick", {"settings": SETTINGS}, 422, "built in"),
        ("mine", {"settings": {"steps": 3}}, 422, "kind is missing"),
        ("mine", {"settings": {**SETTINGS, "steps": 0}}, 422, "steps is 0"),
        ("mine", {"settings": {**SETTINGS, "masks": "/etc", "use_weight": True}}, 403, "leads out"),
        ("..", {"settings": SETTINGS}, 404, ""),
        ("a%00b", {"settings": SETTINGS}, 422, "not allowed"),
        ("there", {"settings": SETTINGS}, 409, "already"),
        ("there", {"settings": SETTINGS, "overwrite": True}, 201, ""),
    ],
    ids=["built_in", "no_kind", "wrong_value", "leads_out", "above", "odd_name", "there", "over"],
)
def test_what_cannot_be_saved_is_refused(client: Any, name: str, body: Any, status: int, words: str) -> None:
    client.put("presets/there", json={"settings": SETTINGS})
    answer = client.put(f"presets/{name}", json=body)
    assert answer.status_code == status and words in answer.text
