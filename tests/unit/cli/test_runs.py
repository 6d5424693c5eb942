"""Who wants to go on with a run and gives something else is told the likely command."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tincture.cli import main
from tincture.cli.runs import require_run_folder
from tincture.errors import UsageError
from tincture.workspace import Workspace


def make_run(root: Path, name: str, *, at: int, step: int = 2, steps: int = 5) -> Path:
    folder = root / "textual_inversion" / name
    (folder / "state").mkdir(parents=True)
    settings = {"kind": "embedding", "name": "cat", "data": "d", "steps": steps}
    (folder / "run.json").write_text(json.dumps({"settings": settings}))
    state = folder / "state" / f"step-{step:08}.pt"
    state.touch()
    for path in (state, folder / "run.json"):
        os.utime(path, (at, at))
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def refusal(given: Path | None, workspace: Workspace) -> str:
    with pytest.raises(UsageError) as error:
        require_run_folder(given, workspace)
    return str(error.value)


def test_the_folder_of_a_run_is_taken(workspace: Workspace) -> None:
    run = make_run(workspace.root, "2026-01-01/cat", at=1)
    assert require_run_folder(run, workspace) == run


def test_without_a_folder_the_newest_that_can_go_on_is_named(workspace: Workspace) -> None:
    assert "There is none in" in refusal(None, workspace)
    make_run(workspace.root, "2026-01-01/old", at=10)
    newest = make_run(workspace.root, "2026-01-02/newest", at=20)
    make_run(workspace.root, "2026-01-03/done", at=30, step=5)
    damaged = make_run(workspace.root, "2026-01-03/damaged", at=40)
    (damaged / "run.json").write_text("{")
    said = refusal(None, workspace)
    assert said.startswith("Missing argument 'RUN_DIR'")
    assert said.endswith(f"The newest that can go on: tincture resume {str(newest)!r}.")
    missing = refusal(workspace.root / "nowhere", workspace)
    assert "is not a folder; give the one that train showed." in missing and str(newest) in missing


@pytest.mark.parametrize("inside", ["state", "state/step-00000002.pt", "run.json"])
def test_something_inside_of_a_run_names_the_run(workspace: Workspace, inside: str) -> None:
    run = make_run(workspace.root, "2026-01-01/cat", at=1)
    assert f"give the folder of the run: tincture resume {str(run)!r}." in refusal(run / inside, workspace)


@pytest.mark.parametrize("outside", ["", "textual_inversion", "textual_inversion/2026-01-01"])
def test_a_folder_with_runs_in_it_names_them(workspace: Workspace, outside: str) -> None:
    make_run(workspace.root, "2026-01-01/cat", at=1)
    newest = make_run(workspace.root, "2026-01-01/dog", at=2)
    said = refusal(workspace.root / outside, workspace)
    assert "cat" in said and said.endswith(f"The newest: tincture resume {str(newest)!r}.")


def test_a_file_elsewhere_is_no_folder(workspace: Workspace) -> None:
    (workspace.root / "file").touch()
    assert "is not a folder" in refusal(workspace.root / "file", workspace)


def test_train_without_a_kind_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("embeddings", "models/hypernetworks"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "rex.pt").write_bytes(b"x")
    (tmp_path / "embeddings" / "only.pt").write_bytes(b"x")
    assert main(["train", "rex"]) == 2
    said = capsys.readouterr().err
    assert "Did you mean tincture train embedding 'rex' or tincture train hypernetwork 'rex'?" in said
    assert main(["train", "only", "--steps", "3"]) == 2
    assert "Did you mean tincture train embedding 'only'?" in capsys.readouterr().err
    assert main(["train", "nobody"]) == 2
    assert "Did you mean" not in capsys.readouterr().err


def test_the_workspace_is_understood_as_it_was_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a b").mkdir()
    for root in (f'"{tmp_path}/a b/"', f"file://{tmp_path}/a%20b"):
        assert main(["resume", "--root", root]) == 2
        assert f"{tmp_path}/a b/textual_inversion" in capsys.readouterr().err
    monkeypatch.setenv("TINCTURE_ROOT", f" '{tmp_path}/a b' ")
    assert main(["resume"]) == 2
    assert f"{tmp_path}/a b/textual_inversion" in capsys.readouterr().err
