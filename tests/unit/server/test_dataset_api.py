"""The pictures of a data set through the HTTP API, by the data set's name and by a folder's path."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from tests.served import quick_service, write_pictures
from tincture.server.app import build_app


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Any]:
    write_pictures(tmp_path / "datasets" / "rex", side=32)
    with TestClient(build_app(quick_service(tmp_path), page=False), base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture(params=["rex", "-?folder=pictures"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Makes the address of something of a data set, and of a folder that is none."""
    write_pictures(tmp_path / "pictures", side=32)
    name, _, query = request.param.partition("?")
    return lambda rest="": f"/api/v1/datasets/{name}{rest}{'&' if '?' in rest else '?'}{query}"


def captions(client: Any, address: Any) -> dict[str, str]:
    pictures = client.get(address()).raise_for_status().json()["pictures"]
    return {one["file"]: one["caption"] for one in pictures if one["captioned"]}


def test_captions_are_written_changed_and_previewed(client: Any, address: Any) -> None:
    client.put(address("/captions"), json={"captions": {"1.png": "a blue square, big", "2.png": ""}}).raise_for_status()
    change = {"change": "text", "find": "SQUARE", "by": "moon", "files": ["0.png", "1.png"], "preview": True}
    previewed = client.post(address("/captions"), json=change).json()["changed"]
    assert previewed[0] == {"file": "0.png", "before": "a red square", "after": "a red moon"} and len(previewed) == 2
    assert captions(client, address)["0.png"] == "a red square"
    assert client.post(address("/captions"), json={**change, "preview": False}).json()["changed"] == previewed
    assert captions(client, address) == {"0.png": "a red moon", "1.png": "a blue moon, big", "2.png": ""}
    refused = client.put(address("/captions"), json={"captions": {"0.png": "new", "no.png": "x"}})
    assert refused.status_code == 404 and captions(client, address)["0.png"] == "a red moon"


def test_a_picture_is_cropped_masked_and_deleted(client: Any, address: Any) -> None:
    before = client.get(address()).json()["pictures"][0]
    box = {"left": 0, "top": 8, "width": 16, "height": 8}
    cropped = client.put(address("/crops/0.png"), json=box).raise_for_status().json()
    assert (cropped["width"], cropped["height"], cropped["cropped"]) == (16, 8, True)
    assert cropped["version"] != before["version"]
    assert client.delete(address("/crops/0.png")).json()["width"] == 32
    content = io.BytesIO()
    Image.linear_gradient("L").resize((32, 32)).save(content, "PNG")
    png = base64.b64encode(content.getvalue()).decode()
    assert client.get(address("/masks/0.png")).status_code == 404
    assert client.put(address("/masks/0.png"), json={"png": png}).json()["mask"] is True
    assert client.get(address("/masks/0.png")).headers["content-type"] == "image/png"
    assert client.delete(address("/masks/0.png")).json()["mask"] is False
    assert client.delete(address("/pictures/2.png")).status_code == (204 if "rex" in address() else 403)


def test_a_model_writes_the_captions_that_are_missing(client: Any, address: Any, tmp_path: Path) -> None:
    assert "there is no BLIP model" in client.post(address("/descriptions/1.png"), json={}).json()["detail"]
    (tmp_path / "models" / "BLIP").mkdir(parents=True)
    (tmp_path / "models" / "BLIP" / "config.json").write_text("{}")
    described = client.post(address("/descriptions/1.png"), json={}).raise_for_status().json()["text"]
    assert described.endswith(" bytes") and captions(client, address)["1.png"] == described
    assert client.post(address("/descriptions/0.png"), json={}).json()["text"] == "a red square"  # it had one
    client.put(address("/captions/1.png"), json={"text": ""}).raise_for_status()
    assert client.post(address("/descriptions/1.png"), json={}).json()["text"] == described  # an empty one is none


def test_what_describes_pictures_says_what_it_lacks(client: Any, tmp_path: Path) -> None:
    found = client.get("/api/v1/describers").json()
    assert found["captioner"]["model"] == "" and "models/BLIP" in found["captioner"]["missing"]
    (tmp_path / "models" / "torch_deepdanbooru").mkdir(parents=True)
    (tmp_path / "models" / "torch_deepdanbooru" / "model.pt").write_bytes(b"x")
    assert client.get("/api/v1/describers").json()["tagger"]["missing"] == ""


def test_duplicates_and_sizes_are_found(client: Any, address: Any) -> None:
    assert client.get(address("/duplicates")).json()["groups"] == []
    sizes = client.get(address("/sizes?width=64&height=48")).json()["sizes"]
    assert [(one["width"], one["height"], one["enlarged"], len(one["files"])) for one in sizes] == [(64, 48, 3, 3)]
    assert sizes[0]["enlarged_files"] == sizes[0]["files"]
    assert client.get(address("/sizes?width=63&height=48")).status_code == 422
