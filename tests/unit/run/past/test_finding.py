"""Whichever way somebody names a run, it is found, or the sentence says which ones come near."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.past_runs import SETTINGS, past_run
from tincture.errors import UsageError
from tincture.run.past.finding import RunFinder
from tincture.workspace import Workspace


def nothing(path: Path) -> Mapping[str, Any]:
    return {"path": str(path), "kind": "embedding", "step": 4}


@pytest.fixture
def find(tmp_path: Path) -> Callable[[str], str]:
    for number, folder in enumerate(("2026-01-01/rex", "2026-01-02/rex-2", "2026-01-02/moon"), start=1):
        past_run(tmp_path, folder, at=number * 1000, name=folder.split("/")[1].removesuffix("-2"))
    return lambda text: RunFinder(Workspace(tmp_path), nothing, lambda _: None).find(text).id


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2026-01-01/rex", "2026-01-01/rex"),
        ("rex-2", "2026-01-02/rex-2"),
        ("moon", "2026-01-02/moon"),
        ("moon.pt", "2026-01-02/moon"),
        ("mo", "2026-01-02/moon"),
        ("2026-01-01", "2026-01-01/rex"),
        ("2026-01-02/m", "2026-01-02/moon"),
    ],
)
def test_ids_names_and_beginnings(find: Callable[[str], str], text: str, found: str) -> None:
    assert find(text) == found


@pytest.mark.parametrize("inside", ["", "run.json", "images", "images/rex-4-0.png"])
def test_a_path_is_the_run_around_it(find: Callable[[str], str], tmp_path: Path, inside: str) -> None:
    assert find(str(tmp_path / "textual_inversion/2026-01-01/rex" / inside)) == "2026-01-01/rex"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nobody", "There is no run 'nobody' in"),
        ("rxe", "did you mean 2026-01-02/rex-2?"),
        ("", "There is no run ''"),
        ("2026-01-02", "'2026-01-02' may be 2 runs; give one of them: 2026-01-02/moon, 2026-01-02/rex-2."),
        ("a\0b", "There is no run"),
        ("x" * 5000, "There is no run"),
    ],
    ids=["unknown", "near", "empty", "several", "zero byte", "long"],
)
def test_what_is_no_run_is_a_sentence(find: Callable[[str], str], text: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        find(text)
    assert said in str(error.value)


def test_places_that_are_no_run_are_told_apart(find: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "rex.safetensors").write_text("x")
    for place, said in (
        ("textual_inversion", "holds 3 runs; give one of them"),
        ("notes.txt", "is no run, nor an adapter's file"),
        ("rex.safetensors", "does not say which run made it"),
    ):
        with pytest.raises(UsageError, match=said):
            find(str(tmp_path / place))
    (tmp_path / "textual_inversion/2026-01-01/rex/run.json").write_text("{")
    with pytest.raises(UsageError, match="cannot be read, so that nothing is known of this run"):
        find(str(tmp_path / "textual_inversion/2026-01-01/rex"))


def test_an_adapters_file_is_the_run_that_made_it(tmp_path: Path) -> None:
    past_run(tmp_path, "2026-01-01/rex", seed=7)
    past_run(tmp_path, "2026-01-02/rex", name="rex", seed=8)
    file = tmp_path / "embeddings" / "rex.pt"
    file.parent.mkdir()
    file.touch()

    def inspect(path: Path) -> Mapping[str, Any]:
        made = {"data_hash": "d1", "settings": {**SETTINGS, "seed": 7}}
        return {"path": str(path), "kind": "embedding", "step": 4, "provenance": made}

    remarks: list[str] = []
    finder = RunFinder(Workspace(tmp_path), inspect, remarks.append)
    assert finder.find(str(file)).id == "2026-01-01/rex"
    assert not remarks


def test_of_several_runs_of_an_adapter_the_latest_is_taken_and_said(tmp_path: Path) -> None:
    past_run(tmp_path, "2026-01-02/rex-2", name="cat", at=2000)
    past_run(tmp_path, "2026-01-01/rex-1", name="cat", at=1000)
    remarks: list[str] = []
    assert RunFinder(Workspace(tmp_path), nothing, remarks.append).find("cat").id == "2026-01-02/rex-2"
    assert remarks == ["2 runs trained 'cat'; 2026-01-02/rex-2 is the latest of them."]


def test_without_any_run_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is none yet"):
        RunFinder(Workspace(tmp_path), nothing, lambda _: None).find("rex")
