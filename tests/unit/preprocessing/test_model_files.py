"""The hub is a server on this machine that answers as the true one does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from PIL import Image

from tests.unit.preprocessing.tiny import write_blip, write_wd
from tincture.errors import ModelError
from tincture.preprocessing.captioning import load_captioner
from tincture.preprocessing.model_files import find_model
from tincture.preprocessing.tagging import load_tagger

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PICTURES = [Image.new("RGB", (50, 40), color) for color in ("blue", "lime")]


class Hub(ThreadingHTTPServer):
    """Serves the folder OWNER/NAME of `root` as the model of that name; `fetched` lists the files it was asked for."""

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.root, self.fetched = root, list[str]()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class HubHandler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            folder = self.server.root / parts[2] / parts[3]
            if parts[2] == "private":
                self._send(403, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."})
            elif not folder.is_dir():
                self._send(404, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
            elif parts[4] == "tree":
                files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
                self._send(200, json.dumps([self._entry(path, folder) for path in files]).encode())
            else:
                self._send(200, json.dumps({"id": "/".join(parts[2:4]), "sha": COMMIT, "siblings": []}).encode())
        elif parts[0] == "api":  # what the client asks for besides
            self._send(404, b"{}")
        else:
            path = self.server.root.joinpath(*parts[:2], *parts[4:])
            self.server.fetched += [path.name] if with_body else []
            content = path.read_bytes()
            etag = hashlib.sha1(content).hexdigest()
            self._send(200, content if with_body else b"", {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, len(content))

    def _entry(self, path: Path, folder: Path) -> dict[str, object]:
        oid = hashlib.sha1(path.read_bytes()).hexdigest()
        return {"type": "file", "path": str(path.relative_to(folder)), "size": path.stat().st_size, "oid": oid}

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, length: int | None = None) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Length": str(length if length is not None else len(body)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub(tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
    template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_tagger_is_fetched_once_and_nothing_else_with_it(hub: Hub) -> None:
    folder = write_wd(hub.root / "someone" / "tagger")
    (folder / "model.safetensors").write_bytes(b"not wanted")
    expected = load_tagger(str(folder), device="cpu")(PICTURES)
    assert load_tagger("someone/tagger", device="cpu")(PICTURES) == expected
    assert sorted(hub.fetched) == ["model.onnx", "selected_tags.csv"]
    assert load_tagger("someone/tagger", device="cpu")(PICTURES) == expected
    assert len(hub.fetched) == 2


def test_a_captioner_is_fetched_and_works_offline_from_then_on(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_blip(hub.root / "someone" / "blip")
    (folder / "tf_model.h5").write_bytes(b"not wanted")
    expected = load_captioner(str(folder), device="cpu")(PICTURES)
    assert load_captioner("someone/blip", device="cpu")(PICTURES) == expected
    assert "model.safetensors" in hub.fetched and "tf_model.h5" not in hub.fetched
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    before = len(hub.fetched)
    assert load_captioner("someone/blip", device="cpu")(PICTURES) == expected
    assert len(hub.fetched) == before


def test_weights_of_torch_are_fetched_where_there_are_no_others(hub: Hub) -> None:
    import torch
    from safetensors.torch import load_file

    folder = write_blip(hub.root / "someone" / "blip")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    captions = load_captioner("someone/blip", device="cpu")(PICTURES)
    assert captions == load_captioner(str(folder), device="cpu")(PICTURES)
    assert "pytorch_model.bin" in hub.fetched


def test_a_model_that_the_hub_does_not_have(hub: Hub) -> None:
    with pytest.raises(ModelError, match="neither a file or folder 'someone/nothing' here nor such a model on the hub"):
        find_model("someone/nothing", ["*"], "a folder")


def test_a_model_that_must_be_asked_for(hub: Hub) -> None:
    with pytest.raises(ModelError, match="owner must let you in first"):
        find_model("private/model", ["*"], "a folder")


def test_offline(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="not in the cache, and the hub cannot be reached; give a folder, or try"):
        find_model("someone/tagger", ["*"], "a folder")
    assert not hub.fetched


def test_a_path_never_asks_the_hub(hub: Hub, tmp_path: Path) -> None:
    folder = write_wd(tmp_path / "someone" / "tagger")
    (hub.root / "someone" / "tagger").mkdir(parents=True)
    assert find_model("someone/tagger", ["*"], "a folder") == folder
    with pytest.raises(ModelError, match="There is no 'someone/mistyped' here"):
        find_model("someone/mistyped", ["*"], "a folder")
    assert not hub.fetched


@pytest.mark.parametrize("name", ["tagger", "a/b/c", "./a/b", "/a/b", "", "x" * 5000, "a/b?c"])
def test_what_cannot_be_on_the_hub_is_not_looked_for_there(name: str) -> None:
    with pytest.raises(ModelError, match="give a folder, or a model of the hub as OWNER/NAME"):
        find_model(name, ["*"], "a folder")
