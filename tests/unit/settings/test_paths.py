"""Paths are understood as people paste them, wherever a path is a setting; what really is called so comes first."""

from __future__ import annotations

from pathlib import Path

import pytest

from tincture.errors import UsageError
from tincture.settings.conversion import ConversionRequest, InspectionRequest
from tincture.settings.drawing import DrawingSettings
from tincture.settings.merging import MergeRequest, MergeSource
from tincture.settings.paths import pasted_path
from tincture.settings.preprocess import PreprocessSettings
from tincture.settings.server import ServerSettings
from tincture.settings.toml import read_toml
from tincture.settings.train import TrainSettings

PASTED = {
    "pics": "pics",
    '"pics"': "pics",
    "'pics'": "pics",
    "\u201cpics\u201d": "pics",
    "  pics \n": "pics",
    ' "pics/" ': "pics",
    '" pics "': "pics",
    "pics/": "pics",
    "pics//": "pics",
    "pics\\": "pics",
    "'a b/pics\\'": "a b/pics",
    "C:\\pics\\": "C:\\pics",
    "\u201dpics\u201d": "pics",
    "\u201epics\u201d": "pics",
    "\u201apics\u2018": "pics",
    "\u00bbpics\u00ab": "pics",
    "\u300cpics\u300d": "pics",
    "<pics>": "pics",
    "\u202aC:\\my pics\\": "C:\\my pics",
    "\ufeff'pics'\u200b": "pics",
    "& 'my pics'": "my pics",
    '"C:\\my pics\\"': "C:\\my pics",
    "file:///home/me/my%20pics/": "/home/me/my pics",
    "FILE://localhost/pics": "/pics",
    "file:/home/me/my%20pics": "/home/me/my pics",
    "'file:///pics'": "/pics",
    "file:///C:/pics": "C:/pics",
    "file://other/pics": "file://other/pics",
    '"pics":3': "pics:3",
    "'pics/':12 ": "pics:12",
    '"pics:3"': "pics:3",
    "/": "/",
    "C:\\": "C:\\",
    "pics/1.png": "pics/1.png",
    "it's": "it's",
    "'": "'",
    '""': "",
    "": "",
    "owner/name": "owner/name",
}


@pytest.mark.parametrize("text", PASTED)
def test_what_was_pasted_is_what_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert pasted_path(text) == PASTED[text]
    assert pasted_path(PASTED[text]) == PASTED[text]


def test_blanks_that_a_terminal_escapes_are_plain_where_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert pasted_path("my\\ pics\\ \\(1\\)/") == "my\\ pics\\ \\(1\\)"
    (tmp_path / "my pics (1)").mkdir()
    assert pasted_path("my\\ pics\\ \\(1\\)/") == "my pics (1)"


@pytest.mark.parametrize("name", ['"pics"', " pics ", "pics\\", "'a b' ", "file:", "\u201cpics\u201d", "pics':3"])
def test_what_is_really_called_so_is_found_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert pasted_path(name) == name
    assert pasted_path(f'"{name}"') == name
    assert pasted_path(f"{name}", lambda text: False) != name or name in ("file:", "pics':3")


def test_what_can_be_no_path_is_left_to_others() -> None:
    for text in ("a\0b", "x" * 100_000, "\ud800"):
        assert pasted_path(text) == text


QUOTED = ' "p/q/" '
SETTINGS = {
    TrainSettings: (
        {"kind": "embedding", "name": "cat", "data": "d"},
        ("model", "vae", "template", "cache_dir", "masks", "log_dir", "data", "validation_data"),
    ),
    PreprocessSettings: (
        {"source": "s", "destination": "d"},
        ("source", "destination", "yunet_model", "captioner", "tagger"),
    ),
    DrawingSettings: ({"prompts": ["a"]}, ("model", "vae", "checkpoints")),
    ConversionRequest: ({"path": "p", "out": "o"}, ("path", "out", "picture", "model", "captions")),
    InspectionRequest: ({"path": "p"}, ("path",)),
    MergeRequest: ({"sources": ["a:0.5"], "out": "o"}, ("out",)),
    ServerSettings: ({}, ("allow_dir", "state_dir")),
}


@pytest.mark.parametrize("settings", SETTINGS)
def test_every_setting_that_is_a_path_is_understood(settings: type) -> None:
    needed, names = SETTINGS[settings]
    for name in names:
        many = name in ("checkpoints", "allow_dir")
        extra = {"use_weight": True} if name == "masks" else {}
        made = settings.from_dict({**needed, **extra, name: [QUOTED] if many else QUOTED})  # type: ignore[attr-defined]
        assert getattr(made, name) == (("p/q",) if many else "p/q"), name
    if settings is TrainSettings:
        several = TrainSettings.from_dict({**needed, "data": ["'a':3", '"b/"']})
        assert several.data == ("a:3", "b")


def test_texts_that_are_no_paths_stay_as_they_are() -> None:
    made = TrainSettings.from_dict({"kind": "embedding", "name": "cat", "data": "d", "preview_prompts": [' "a cat" ']})
    assert made.preview_prompts == (' "a cat" ',)


def test_a_path_of_nothing_but_quotes_is_empty() -> None:
    with pytest.raises(UsageError, match="data"):
        TrainSettings.from_dict({"kind": "embedding", "name": "cat", "data": '" "'})


def test_a_run_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("steps = 3\n")
    assert read_toml(f' "{tmp_path}/run.toml" ') == {"steps": 3}


@pytest.mark.parametrize(
    ("text", "place", "weight"),
    [
        ("ink", "ink", None),
        ("ink:0.6", "ink", 0.6),
        ("ink:-1e-1", "ink", -0.1),
        ('"p/q/ink.pt":2', "p/q/ink.pt", 2.0),
        ("p/a:b.pt", "p/a:b.pt", None),
        (" ink : 0.5 ", "ink", 0.5),
    ],
)
def test_a_file_to_be_merged_has_its_weight_behind_a_colon(text: str, place: str, weight: float | None) -> None:
    assert MergeSource.parse(text) == (place, weight)
