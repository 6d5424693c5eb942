from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.past_runs import SETTINGS
from tincture.errors import UsageError
from tincture.run.past.origin import run_origin, settings_again
from tincture.workspace import Workspace


def found(path: Path, step: int = 4, **settings: Any) -> dict[str, Any]:
    """What is said of a file."""
    made = {"data_hash": "d1", "settings": {**SETTINGS, **settings}}
    return {"path": str(path), "kind": "embedding", "step": step, "provenance": made}


def made_run(root: Path, name: str = "rex", data_hash: str = "d1", **settings: Any) -> Path:
    folder = root / "textual_inversion" / "2026-11-30" / name
    (folder / "images").mkdir(parents=True)
    record = {"data_hash": data_hash, "settings": {**SETTINGS, "data": str(root / "far" / "dogs"), **settings}}
    (folder / "run.json").write_text(json.dumps(record))
    losses = ["nan", *(0.1 * step for step in range(1, 5))]
    rows = "".join(f"{step},0,0,{loss},0.005\n" for step, loss in enumerate(losses))
    (folder / "textual_inversion_loss.csv").write_text(f"step,epoch,epoch_step,loss,learn_rate\n{rows}")
    for step, number in ((0, 0), (2, 0), (2, 1), (4, 0)):
        (folder / "images" / f"rex-{step}-{number}.png").write_bytes(b"x")
    (folder / "images" / "contact-sheet.png").write_bytes(b"x")
    return folder


def test_the_run_of_a_file_knows_its_loss_and_previews_up_to_its_step(tmp_path: Path) -> None:
    folder, workspace = made_run(tmp_path), Workspace(tmp_path)
    made_run(tmp_path, "rex-2", seed=1)
    made_run(tmp_path, "rex-3", data_hash="d2")
    origin = run_origin(workspace, found(tmp_path / "anywhere" / "renamed.pt", step=3))
    assert origin is not None and origin.folder == folder
    assert origin.loss == pytest.approx(0.2) and origin.loss_steps == 3
    assert (origin.preview_step, [path.name for path in origin.previews]) == (2, ["rex-2-0.png", "rex-2-1.png"])


def test_the_run_that_a_file_lies_in_goes_before_others(tmp_path: Path) -> None:
    folder = made_run(tmp_path)
    made_run(tmp_path, "rex-2")
    for name in ("rex", "rex-2"):
        path = folder.with_name(name) / "embeddings" / "rex-4.pt"
        origin = run_origin(Workspace(tmp_path), found(path))
        assert origin is not None and origin.folder.name == name


@pytest.mark.parametrize("text", ["", "{", "[]", '{"settings": 1}', '{"settings": {}, "data_hash": "d1"}'])
def test_records_that_say_nothing_are_passed_over(text: str, tmp_path: Path) -> None:
    (made_run(tmp_path) / "run.json").write_text(text)
    assert run_origin(Workspace(tmp_path), found(tmp_path / "rex.pt")) is None
    assert run_origin(Workspace(tmp_path), {"path": str(tmp_path / "rex.pt"), "provenance": "x"}) is None


def test_losses_that_cannot_be_read_are_none(tmp_path: Path) -> None:
    folder = made_run(tmp_path)
    (folder / "textual_inversion_loss.csv").write_text("step,loss\nx,y\n")
    origin = run_origin(Workspace(tmp_path), found(tmp_path / "rex.pt", step=-1))
    assert origin is not None and origin.loss is None and origin.previews == ()


def test_the_settings_of_a_run_that_is_here_have_its_folders(tmp_path: Path) -> None:
    made_run(tmp_path)
    settings, absent = settings_again(Workspace(tmp_path), found(tmp_path / "rex.pt", word_of_the_future=1))
    assert settings["data"] == str(tmp_path / "far" / "dogs") and absent == []


def test_folders_are_looked_for_among_the_data_sets(tmp_path: Path) -> None:
    (tmp_path / "datasets" / "dogs").mkdir(parents=True)
    file = found(tmp_path / "rex.pt", data=["dogs:3", "cats"], validation_data=["dogs"], vae="odd", template="mine")
    settings, absent = settings_again(Workspace(tmp_path), file)
    dogs = str(tmp_path / "datasets" / "dogs")
    assert settings["data"] == [f"{dogs}:3", "cats"] and settings["validation_data"] == dogs
    assert sorted(absent) == ["data", "template", "vae"]


@pytest.mark.parametrize("data", ["../outside", "/etc", ".."])
def test_nothing_is_looked_for_outside_of_the_data_sets(data: str, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "datasets").mkdir()
    assert settings_again(Workspace(tmp_path), found(tmp_path / "rex.pt", data=data)) == (
        {**SETTINGS, "data": data},
        ["data"],
    )


@pytest.mark.parametrize(
    ("provenance", "said"),
    [
        ({}, "does not say how it was trained"),
        ({"settings": {"steps": 4}}, "does not say what was trained"),
        ({"settings": {**SETTINGS, "steps": "many"}}, "rex.pt"),
        ({"settings": {**SETTINGS, "data": {"a": 1}}}, "data"),
    ],
)
def test_files_that_do_not_say_it_are_refused(provenance: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        settings_again(Workspace(tmp_path), {"path": str(tmp_path / "rex.pt"), "provenance": provenance})
