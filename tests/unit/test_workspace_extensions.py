"""Extensions that lie in the workspace, and what every loaded model is handed to."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.runs import Bench
from tincture import recipe
from tincture.adapters.embedding_database import EmbeddingDatabase
from tincture.cli.app import main
from tincture.drawing.generation import Studio
from tincture.extensions import VARIABLE, Extensions, load_extensions
from tincture.models.stable_diffusion import StableDiffusion
from tincture.server.errors import ForbiddenPathError
from tincture.server.model_process.client import ModelProcess
from tincture.server.requests.places import Places
from tincture.workspace import Workspace

LEFT_OUT = "ignore:The extension:UserWarning"
NOTES = """
import json, os
from pathlib import Path

def loaded(model, embeddings):
    with (Path(__file__).parent.parent / "noted.jsonl").open("a") as file:
        file.write(json.dumps([os.getpid(), model.name, sorted(embeddings.loaded)]) + "\\n")

def register(extensions):
    extensions.on_model_loaded(loaded)
"""


def write(root: Path, name: str, source: str) -> Path:
    path = root / "extensions" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    return path


def loaded_from(root: Path, value: str = "") -> Extensions:
    return load_extensions({VARIABLE: value} if value else {}, [], root=root)


def noted(root: Path) -> list[Any]:
    file = root / "noted.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


# --- the folder ------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings(LEFT_OUT)
def test_files_and_packages_of_the_workspace_are_extensions(tmp_path: Path) -> None:
    write(tmp_path, "alone.py", "def register(extensions):\n    extensions.on_step(print)\n")
    write(tmp_path, "packed/__init__.py", "from .inner import register\n")
    write(tmp_path, "packed/inner.py", "def register(extensions):\n    extensions.on_step(print)\n")
    write(tmp_path, "torn.py", "def register(:\n")
    write(tmp_path, "fails.py", "def register(extensions):\n    raise KeyError('kind')\n")
    write(tmp_path, "stops.py", "import sys\nregister = sys.exit(3)\n")
    found = loaded_from(tmp_path)
    assert found.names() == ["alone", "packed"]
    assert [fault.split("'")[1] for fault in found.faults] == ["fails", "stops", "torn"]
    assert "KeyError: 'kind'" in found.faults[0] and "SyntaxError" in found.faults[2]


def test_what_a_webui_keeps_there_is_not_run(tmp_path: Path) -> None:
    """Its extensions are folders of scripts, which are nobody's business here."""
    harm = "open('harm', 'w')\n"
    for name in (
        "install.py",
        "a-webui-extension/scripts/main.py",
        "other/__init__.py",
        "_own.py",
        "notes.txt",
        "x.y.py",
    ):
        write(tmp_path, name, harm)
    write(tmp_path, "..pyc", harm)
    found = loaded_from(tmp_path)
    assert (found.names(), found.faults) == ([], [])
    assert not Path("harm").exists() and not (tmp_path / "harm").exists()
    assert loaded_from(tmp_path / "nowhere").names() == []


@pytest.mark.filterwarnings(LEFT_OUT)
def test_they_can_be_left_out(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path, f"{name}.py", "def register(extensions):\n    extensions.on_step(print)\n")
    assert loaded_from(tmp_path, "off").names() == loaded_from(tmp_path, "installed").names() == []
    chosen = loaded_from(tmp_path, "two,absent")
    assert chosen.names() == ["two"] and "'absent' is left out" in chosen.faults[0]
    assert load_extensions({}, []).names() == []  # without a workspace


@pytest.mark.skipif(os.name != "posix", reason="rights of others are POSIX's")
@pytest.mark.filterwarnings(LEFT_OUT)
@pytest.mark.parametrize("open_to_all", ["extensions", "extensions/one.py"])
def test_what_every_user_may_change_is_not_run(tmp_path: Path, open_to_all: str) -> None:
    write(tmp_path, "one.py", "def register(extensions):\n    extensions.on_step(print)\n")
    (tmp_path / open_to_all).chmod(0o777)
    found = loaded_from(tmp_path)
    assert found.names() == [] and "may be changed by every user" in found.faults[0]


def test_no_request_writes_there(tmp_path: Path) -> None:
    places = Places(Workspace(tmp_path), tmp_path / "state")
    write(tmp_path, "one.py", "")
    (tmp_path / "link").symlink_to("extensions")
    for text in ("extensions", "extensions/new.py", "link/new", "pictures/../extensions/x"):
        with pytest.raises(ForbiddenPathError, match="folder of extensions"):
            places.path(text, writing=True)
    assert places.path("extensions-2/x", writing=True)


# --- every model that is loaded --------------------------------------------------------------------------------------


def test_a_function_gets_as_much_as_it_takes() -> None:
    calls: list[tuple[Any, ...]] = []
    asked: list[int] = []
    extensions = Extensions()
    extensions.on_model_loaded(lambda model: calls.append((model,)))
    extensions.on_model_loaded(calls.append)
    extensions.model_loaded("a model", lambda: asked.append(1))
    assert (calls, asked) == ([("a model",), "a model"], [])
    extensions.on_model_loaded(lambda model, embeddings: calls.append((model, embeddings)))
    extensions.on_model_loaded(lambda *all_of_it: calls.append(all_of_it))
    extensions.model_loaded("other", lambda: "database")
    assert calls[-2:] == [("other", "database")] * 2


def test_a_training_hands_over_the_model_with_the_embeddings_of_the_workspace(bench: Bench) -> None:
    got: list[Any] = []
    extensions = Extensions()
    extensions.on_model_loaded(lambda model, embeddings: got.append((model, embeddings)))
    settings = bench.settings("embedding", steps=1)
    recipe.train(settings, bench.workspace, callbacks=[extensions.callback()])
    ((model, embeddings),) = got
    assert isinstance(model, StableDiffusion) and isinstance(embeddings, EmbeddingDatabase)
    assert set(embeddings.loaded) == {"cat"}


def test_a_studio_hands_over_each_model_once(bench: Bench) -> None:
    got: list[Any] = []
    studio = Studio(bench.workspace, lambda model, embeddings: got.append((model, embeddings())))
    model = studio.model(str(bench.model), None, "cpu", "fp32")
    assert studio.model(str(bench.model), None, "cpu", "fp32") is model
    assert [each for each, _ in got] == [model] and set(got[0][1].loaded) == {"cat"}
    studio.model(str(bench.model), None, "cpu", "bf16")
    assert len(got) == 2
    studio.model(str(bench.model), None, "cpu", "fp32", text_only=True)
    assert len(got) == 2


def test_generate_and_the_servers_model_process_call_it(bench: Bench) -> None:
    root = bench.workspace.root
    write(root, "notes.py", NOTES)
    small = ["--steps", "1", "--width", "16", "--height", "16", "--seed", "1", "--device", "cpu"]
    assert main(["generate", "a cat", "--root", str(root), "--model", str(bench.model), *small]) == 0
    assert noted(root) == [[os.getpid(), "tiny", ["cat"]]]
    calls = ModelProcess(bench.workspace, idle_s=600)
    try:
        calls.call("load", model=str(bench.model), device="cpu")
    finally:
        calls.close()
    (_, (pid, name, embeddings)) = noted(root)
    assert (pid != os.getpid(), name, embeddings) == (True, "tiny", ["cat"])
