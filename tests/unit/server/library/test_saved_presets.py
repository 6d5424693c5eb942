"""Presets that a server saves: run files in the workspace, which the command line knows too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.served import write_pictures
from tincture.errors import UsageError
from tincture.server.errors import ConflictError, ForbiddenPathError, NotFoundError
from tincture.server.library import saved_presets
from tincture.server.library.saved_presets import Presets
from tincture.server.requests.places import Places
from tincture.settings.presets import find_preset
from tincture.settings.toml import read_toml
from tincture.settings.train import TrainSettings
from tincture.workspace import Workspace

FORM = {
    "kind": "embedding",
    "name": "rex",
    "data": "gone",
    "model": "no-such-model",
    "device": "cuda:7",
    "steps": 77,
    "ema": "0.9",
    "log_dir": "textual_inversion",
    "validation_data": ["pictures"],
}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    write_pictures(tmp_path / "pictures")
    return Workspace(tmp_path)


@pytest.fixture
def presets(workspace: Workspace) -> Presets:
    return Presets(Places(workspace, workspace.root / "state"))


def test_a_form_is_saved_found_and_deleted(presets: Presets, workspace: Workspace) -> None:
    assert presets.save(" my rex ", FORM) == "my rex"
    path = workspace.presets / "my rex.toml"
    pictures = str(workspace.root / "pictures")
    assert read_toml(path) == {"kind": "embedding", "steps": 77, "ema": "0.9", "validation_data": pictures}
    assert presets.own() == ["my rex"]
    assert presets.find("my rex").settings("embedding", "x") == find_preset("my rex", workspace).settings(
        "embedding", ""
    )
    presets.delete("my rex")
    assert presets.own() == [] and not path.exists()
    with pytest.raises(NotFoundError, match="none was saved"):
        presets.delete("my rex")


def test_what_is_there_is_not_overwritten_unasked(presets: Presets) -> None:
    presets.save("mine", FORM)
    with pytest.raises(ConflictError, match="'mine' already"):
        presets.save("mine", {**FORM, "steps": 78})
    assert presets.find("mine").common["steps"] == 77
    presets.save("mine", {**FORM, "steps": 78}, overwrite=True)
    assert presets.find("mine").common["steps"] == 78


def test_what_is_built_in_stays(presets: Presets) -> None:
    with pytest.raises(UsageError, match="'quick' is built in"):
        presets.save("quick", FORM, overwrite=True)
    with pytest.raises(NotFoundError, match="no preset 'quick' that could be deleted"):
        presets.delete("quick")


@pytest.mark.parametrize("name", ["", "../out", "a/b", "x" * 200, "."])
def test_a_name_leads_nowhere_else(presets: Presets, workspace: Workspace, name: str) -> None:
    with pytest.raises(UsageError):
        presets.save(name, FORM)
    with pytest.raises(NotFoundError):
        presets.delete(name)
    assert not workspace.presets.exists()


def test_settings_are_checked_before_anything_is_saved(presets: Presets, workspace: Workspace) -> None:
    for wrong, error in (({"steps": 0}, UsageError), ({"masks": "../out", "use_weight": True}, ForbiddenPathError)):
        with pytest.raises(error):
            presets.save("mine", {**FORM, **wrong})
    assert not workspace.presets.exists()


def test_there_are_not_too_many(presets: Presets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_presets, "MOST", 1)
    presets.save("one", FORM)
    with pytest.raises(ConflictError, match="There are 1 presets already"):
        presets.save("two", FORM)
    presets.save("one", FORM, overwrite=True)


def test_a_run_file_of_a_whole_form_trains_the_same(presets: Presets, workspace: Workspace, tmp_path: Path) -> None:
    text = presets.run_file({**FORM, "data": ["pictures", "pictures:3"], "model": "picto", "device": "cpu"})
    (tmp_path / "rex.toml").write_text(text)
    settings = TrainSettings.from_toml(tmp_path / "rex.toml")
    pictures = str(workspace.root / "pictures")
    assert (settings.name, settings.model, settings.device) == ("rex", "picto", "cpu")
    assert settings.data == (pictures, f"{pictures}:3")


def test_a_run_file_leaves_open_what_is_not_chosen_yet(presets: Presets) -> None:
    text = presets.run_file({**FORM, "name": "", "data": [], "model": ""})
    assert "name" not in text and "\ndata" not in text and "steps = 77" in text
