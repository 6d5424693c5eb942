"""What the server's child processes do, called as they call it; and once in such a process."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.runs import Bench
from tests.unit.preprocessing.tiny import write_blip
from tests.unit.server.model_process.test_client import until
from tincture.adapters.embedding import Embedding
from tincture.errors import DataError, OutOfMemoryError, UsageError
from tincture.formats.picture_text import read_parameters
from tincture.server.errors import StoppedError
from tincture.server.model_process import targets as call_targets
from tincture.server.model_process.client import ModelProcess
from tincture.server.model_process.targets import TARGETS, Resources, open_resources
from tincture.server.requests.places import Places
from tincture.workspace import Workspace

Reports = list[dict[str, Any]]


@pytest.fixture
def reports() -> Reports:
    return []


@pytest.fixture
def resources(bench: Bench, reports: Reports) -> Resources:
    return open_resources(bench.workspace, lambda **progress: reports.append(progress))


def request_for(bench: Bench, **request: Any) -> dict[str, Any]:
    small = {"prompts": ["a cat"], "seeds": [3], "model": str(bench.model), "steps": 2, "width": 16, "height": 16}
    places = Places(bench.workspace, bench.workspace.root / "state", [str(bench.model)])
    return places.drawing({**small, **request}, most=64, side=64).to_dict()


def draw(resources: Resources, bench: Bench, **request: Any) -> list[Path]:
    checked = request_for(bench, **request)
    paths: list[Path] = TARGETS["draw"](resources, request=checked, out=bench.workspace.root / "out", device="cpu")
    return paths


def test_pictures_are_drawn_by_the_kept_model_and_progress_is_reported(
    resources: Resources, bench: Bench, reports: Reports
) -> None:
    paths = draw(resources, bench, prompts=["a cat", "ink"], seeds=[3, 4], batch_size=1)
    assert [path.name for path in paths] == ["00001-3.png", "00002-4.png", "00003-3.png", "00004-4.png"]
    assert (reports[0], reports[-1]["done"], reports[-1]["total"]) == ({"done": 0, "total": 0, "preview": None}, 8, 8)
    assert reports[-1]["preview"] == paths[2]
    parameters = read_parameters(paths[0])
    assert parameters is not None
    assert (parameters.prompt, parameters.settings["Seed"], parameters.settings["Steps"]) == ("a cat", "3", "2")
    kept = resources.studio.model_cache._model
    draw(resources, bench)
    assert resources.studio.model_cache._model is kept is not None


def test_a_sheet_where_strengths_or_copies_are_asked_for(resources: Resources, bench: Bench) -> None:
    (sheet,) = draw(resources, bench, prompts=["a <hypernet:ink:1>"], strengths=[0, 1])
    assert sheet.name == "grid-00001-3.png"
    copy = bench.workspace.root / "cat-5.pt"
    copy.write_bytes(bench.path("embedding").read_bytes())
    (other,) = draw(resources, bench, checkpoints=["cat-5.pt"])
    assert other.name == "grid-00002-3.png"


def test_a_stopped_drawing_ends_and_the_model_stays(resources: Resources, bench: Bench) -> None:
    draw(resources, bench)
    kept = resources.studio.model_cache._model

    def stop(**progress: Any) -> None:
        if progress["done"] == 1:
            raise StoppedError("It was stopped.")

    resources.report = stop
    with pytest.raises(StoppedError):
        draw(resources, bench, prompts=["a cat <hypernet:ink:1>"])
    assert resources.studio.model_cache._model is kept
    assert kept is not None and not kept.text.attached


def test_a_stopped_drawing_gives_what_is_finished_where_that_is_wanted(resources: Resources, bench: Bench) -> None:
    out = bench.workspace.root / "out"

    def stop(**progress: Any) -> None:
        if progress["done"] >= stop_at:
            raise StoppedError("It was stopped.")

    resources.report = stop
    request = request_for(bench, seeds=[3, 4, 5], batch_size=1)
    stop_at = 5  # of six: two pictures of two steps are finished, and half of the third
    with pytest.warns(UserWarning, match="2 of 3 pictures"):
        paths = TARGETS["draw"](resources, request=request, out=out, device="cpu", partly=True)
    assert [path.name for path in paths] == ["00001-3.png", "00002-4.png"]
    assert sorted(out.iterdir()) == paths
    with pytest.raises(StoppedError):
        TARGETS["draw"](resources, request=request, out=out, device="cpu")
    stop_at = 1
    with pytest.raises(StoppedError):
        TARGETS["draw"](resources, request=request, out=out, device="cpu", partly=True)


def test_memory_that_runs_out_is_told_as_what_to_change(
    resources: Resources, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("out of memory")

    draw(resources, bench)
    monkeypatch.setattr(call_targets, "generate_pictures", full)
    with pytest.raises(OutOfMemoryError, match="draw smaller ones"):
        draw(resources, bench)
    assert resources.studio.model_cache._model is None


def test_an_adapter_that_is_not_there_is_named(resources: Resources, bench: Bench) -> None:
    with pytest.raises(UsageError, match="no hypernetwork 'nope'"):
        draw(resources, bench, prompts=["<hypernet:nope>"])


def test_embeddings_are_listed_with_why_some_are_left_out(resources: Resources, bench: Bench) -> None:
    folder = bench.workspace.embeddings
    Embedding("wide", {"clip_l": torch.ones(3, 768)}, 7, "sd", "0123456789").save(folder / "wide.pt")
    (folder / "bad.pt").write_bytes(b"bad")
    listed = TARGETS["list_embeddings"](resources, model=str(bench.model))
    (cat,) = listed["loaded"]
    assert (cat["name"], cat["shape"], cat["vectors"], cat["step"]) == ("cat", 32, 2, 0)
    assert cat["path"] == str(bench.path("embedding"))
    bad, wide = listed["skipped"]
    assert (bad["name"], bad["step"], bad["vectors"]) == ("bad", None, 0) and "bad.pt" in bad["reason"]
    assert (wide["name"], wide["shape"], wide["vectors"], wide["step"]) == ("wide", 768, 3, 7)
    assert (wide["sd_checkpoint"], wide["sd_checkpoint_name"]) == ("0123456789", "sd")
    assert "768" in wide["reason"]
    (folder / "bad.pt").unlink()
    assert [entry["name"] for entry in TARGETS["list_embeddings"](resources, model=str(bench.model))["skipped"]] == [
        "wide"
    ]


def test_what_fits_a_model_is_found_out_from_it(resources: Resources, bench: Bench) -> None:
    fit = TARGETS["model_fit"](resources, model=str(bench.model), text="small moon")
    base = resources.studio.model(str(bench.model), None, "cpu", "fp32", text_only=True)
    assert fit["context_widths"] == base.context_widths() and fit["text_width"] == 32
    assert fit["text_width"] in fit["context_widths"]
    assert (fit["family"], fit["most_vectors"]) == ("Stable Diffusion 1", 75)
    assert len(fit["tokens"]) == len(base.text.token_embeddings("small moon")["clip_l"])
    assert TARGETS["model_fit"](resources, model="picto", text="a café moon")["context_widths"] == [96, 112, 128, 144]


def test_plans_and_new_adapters(resources: Resources, bench: Bench) -> None:
    planned = TARGETS["plan"](resources, settings=bench.settings("embedding", steps=9).to_dict())
    assert (planned["steps"], planned["pictures"]) == (9, 5)
    with pytest.raises(DataError):
        TARGETS["plan"](
            resources, settings=bench.settings("embedding", data=str(bench.workspace.root / "no")).to_dict()
        )
    made = TARGETS["create"](
        resources, kind="embedding", name="rex", model=str(bench.model), num_vectors=3, init_text="moon"
    )
    assert Embedding.load(made).num_vectors == 3
    network = TARGETS["create"](
        resources, kind="hypernetwork", name="wash", model=str(bench.model), layer_structure=[1, 3, 1]
    )
    assert TARGETS["inspect"](resources, path=network)["layer_structure"] == [1, 3, 1]
    card = TARGETS["convert"](resources, path=made, out=bench.workspace.root / "rex.png", name="rex")
    assert card["format"] == "png" and Path(card["path"]).is_file()


def test_a_model_that_was_loaded_is_what_the_next_drawing_takes(resources: Resources, bench: Bench) -> None:
    TARGETS["load"](resources, model=str(bench.model), device="cpu")
    loaded = resources.studio.model_cache._model
    draw(resources, bench)
    assert resources.studio.model_cache._model is loaded is not None


def test_a_picture_is_described_by_the_captioner_that_stays(resources: Resources, tmp_path: Path) -> None:
    blip = str(write_blip(tmp_path / "blip"))
    red, green = (picture_bytes(colour) for colour in ("red", "green"))
    said = [TARGETS["describe"](resources, picture=picture, device="cpu", captioner=blip) for picture in (red, green)]
    assert all(said) and said[0] != said[1]
    settings, captioner = resources._described_by or (None, None)
    TARGETS["describe"](resources, picture=red, device="cpu", captioner=blip)
    assert resources._described_by == (settings, captioner) and captioner is not None
    for bad in (b"", b"%!PS-Adobe", b"<svg/>", red[:60]):
        with pytest.raises(DataError, match=r"^The image .*; send another one\.$"):
            TARGETS["describe"](resources, picture=bad, device="cpu", captioner=blip)


def picture_bytes(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def calls(tmp_path: Path) -> Iterator[ModelProcess]:
    calls = ModelProcess(Workspace(tmp_path), idle_s=600)
    yield calls
    calls.close()


@pytest.mark.slow
def test_in_a_process_of_its_own(calls: ModelProcess, tmp_path: Path) -> None:
    made: Callable[..., Any] = calls.call
    assert made("create", kind="embedding", name="rex", model="picto", num_vectors=2).is_file()
    assert made("list_embeddings", model="picto")["loaded"][0]["name"] == "rex"
    Embedding("dog", {"clip_l": torch.ones(2, 768)}).save(tmp_path / "embeddings" / "dog.pt")
    places = Places(calls.workspace, tmp_path / "state")
    request = places.drawing(
        {"prompts": ["rex and dog"], "seeds": [1], "steps": 2, "model": "picto"}, most=4, side=64
    ).to_dict()
    paths, remarks = calls.call_with_remarks("draw", request=request, out=tmp_path / "out", device="cpu")
    assert [path.name for path in paths] == ["00001-1.png"] and "width" in remarks[0]
    with pytest.raises(UsageError, match="no hypernetwork"):
        made("draw", request={**request, "prompts": ["<hypernet:nope>"]}, out=tmp_path / "out", device="cpu")
    until(lambda: calls.progress() is None)
