from __future__ import annotations

import inspect
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.runs import Bench, OnStep, Recorder, write_pictures
from tincture.adapters.embedding import Embedding
from tincture.adapters.hypernetwork import Hypernetwork
from tincture.errors import DataError, UsageError
from tincture.events import PreviewReady
from tincture.webui import create_embedding, create_hypernetwork, preprocess, train_embedding, train_hypernetwork

SMALL = {"training_width": 16, "training_height": 16, "create_image_every": 0, "steps": 3}


def on(bench: Bench) -> dict[str, Any]:
    return {"workspace": bench.workspace, "model": str(bench.model)}


def test_signatures_are_the_references() -> None:
    names = list(inspect.signature(train_hypernetwork).parameters)
    assert names[:6] == ["id_task", "hypernetwork_name", "learn_rate", "batch_size", "gradient_step", "data_root"]
    assert names[28:] == ["preview_height", "workspace", "model", "settings", "callbacks", "stop"]
    defaults = inspect.signature(train_embedding).parameters
    assert defaults["steps"].default == 100000
    made = inspect.signature(create_embedding).parameters
    assert (made["num_vectors_per_token"].default, made["init_text"].default) == (1, "*")
    assert defaults["data_root"].default is inspect.Parameter.empty
    assert defaults["workspace"].kind is inspect.Parameter.KEYWORD_ONLY


def test_create_makes_files_as_the_reference(bench: Bench) -> None:
    path = create_embedding("dog", 2, False, "moon", **on(bench))
    assert path == str(bench.workspace.embeddings / "dog.pt")
    assert Embedding.load(path).num_vectors == 2
    with pytest.raises(UsageError, match="set overwrite_old"):
        create_embedding("dog", 1, False, **on(bench))
    create_embedding("dog", 1, True, **on(bench))
    assert Embedding.load(path).num_vectors == 1
    with pytest.warns(UserWarning, match="it is 'wash'"):
        made = create_hypernetwork("wa/sh", ["32"], False, "1, 2, 1", "relu", use_dropout=True, **on(bench))
    network = Hypernetwork.load(made)
    assert (Path(made).name, network.activation_func, network.dropout_structure) == ("wash.pt", "relu", [0, 0.3, 0])
    assert network.sizes == [32]


def test_train_embedding_gives_embedding_and_file(bench: Bench) -> None:
    recorder = Recorder()
    previews = {
        "create_image_every": 3,
        "save_image_with_stored_embedding": True,
        "preview_from_txt2img": True,
        "preview_prompt": "cat",
        "preview_steps": 1,
        "preview_width": 24,
        "preview_height": 24,
    }
    embedding, filename = train_embedding(
        "task",
        "cat",
        "0.01:2, 0.001",
        2,
        1,
        "pictures",
        **{**SMALL, **previews},
        **on(bench),
        callbacks=[recorder],
    )
    assert isinstance(embedding, Embedding)
    assert (embedding.name, embedding.step, filename) == ("cat", 3, str(bench.path("embedding")))
    (run_dir,) = (bench.workspace.root / "textual_inversion").glob("*/cat")
    (settings,) = run_dir.glob("settings-*.json")
    told = json.loads(settings.read_text())
    assert (told["learn_rate"], told["batch_size"], told["preview_width"]) == ("0.01:2, 0.001", 2, 24)
    assert told["template_file"] == "style_filewords.txt"
    assert {path.name for path in (run_dir / "image_embeddings").iterdir()} == {"cat-0.png", "cat-3.png"}
    first = recorder.of(PreviewReady)[0].paths[0]
    with Image.open(first) as picture:
        assert picture.size == (24, 24)


def test_train_hypernetwork_clamps_stops_and_returns_when_nothing_is_left(bench: Bench) -> None:
    stop = threading.Event()
    arguments = {"hypernetwork_name": "ink", "data_root": str(bench.data), "template_filename": "hypernetwork.txt"}
    given: dict[str, Any] = {**SMALL, **arguments, **on(bench), "learn_rate": "1e-3"}
    with pytest.warns(UserWarning) as told:
        network, filename = train_hypernetwork(
            **given, batch_size=8, gradient_step=2, callbacks=[OnStep(1, stop.set)], stop=stop
        )
    assert [str(each.message).split(",")[0] for each in told][:2] == ["batch_size is 8", "gradient_step is 2"]
    assert (network.step, filename) == (1, str(bench.path("hypernetwork")))
    train_hypernetwork(**given)
    before = bench.path("hypernetwork").read_bytes()
    with pytest.warns(UserWarning, match="has 3 steps already"):
        network, filename = train_hypernetwork(**given)
    assert (network.step, network.name, filename) == (3, "ink", str(bench.path("hypernetwork")))
    assert bench.path("hypernetwork").read_bytes() == before


def test_a_failure_is_an_error(bench: Bench, tmp_path: Path) -> None:
    given = {**SMALL, **on(bench)}
    with pytest.raises(UsageError, match="did you mean cat"):
        train_embedding("task", "cst", "0.01", 1, 1, "pictures", **given)
    with pytest.raises(DataError, match="does not exist"):
        train_embedding("task", "cat", "0.01", 1, 1, "nowhere", **given)
    with pytest.raises(UsageError, match="the nearest is preview_prompt"):
        train_embedding("task", "cat", "0.01", 1, 1, "pictures", preview_promt="x", **given)


def test_preprocess_writes_crops_as_the_reference_names_them(bench: Bench) -> None:
    write_pictures(bench.workspace.root / "raw", ["moon", "star"], side=40)
    result = preprocess("task", "raw", "crops", 16, 16, "copy", False, True, False, False, workspace=bench.workspace)
    names = sorted(path.name for path in (bench.workspace.root / "crops").glob("0*"))
    assert names == [f"0000{n}-{s}-{n}.{end}" for n in (0, 1) for s in (0, 1) for end in ("png", "txt")]
    assert result.counts["pictures"] == 4
    assert (bench.workspace.root / "crops" / "00001-0-1.txt").read_text().strip() == "star"
