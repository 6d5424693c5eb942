"""The extension in examples/ is installed into a folder of its own, watches a real run, and makes its tab."""

from __future__ import annotations

import asyncio
import csv
import importlib
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import pytest

from tests.runs import write_pictures
from tincture.cli import main
from tincture.extensions import load_extensions
from tincture.workspace import Workspace

EXAMPLE = Path(__file__).parents[1] / "examples" / "extension"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As an installer would do it: module and records in a folder that Python looks into."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))
    about, built = project["project"], project["tool"]["hatch"]["build"]["targets"]["wheel"]
    site = tmp_path / "site"
    records = site / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
    records.mkdir(parents=True)
    for file in built["only-include"]:
        shutil.copy(EXAMPLE / file, site)
    (records / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n", encoding="utf-8"
    )
    listed = ""
    for group, points in about["entry-points"].items():
        listed += f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
    (records / "entry_points.txt").write_text(listed, encoding="utf-8")
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    yield
    sys.modules.pop("loss_tally", None)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    root = tmp_path / "workspace"
    root.mkdir()
    write_pictures(root / "pictures", side=64)
    return Workspace(root)


def train(workspace: Workspace) -> Path:
    """Six steps on picto, two to the epoch; gives the folder of the run."""
    root = ["--root", str(workspace.root)]
    assert main(["create", "embedding", "cat", *root]) == 0
    data = ["--data", str(workspace.root / "pictures"), "--batch-size", "2", "--steps", "6", "--save-every", "4"]
    assert main(["train", "embedding", "cat", *data, "--preview-every", "0", "--device", "cpu", *root]) == 0
    (run_dir,) = workspace.logs.glob("*/cat")
    return run_dir


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_it_tallies_a_run_by_epoch_and_shows_it(
    installed: None, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = train(workspace)

    assert "left out" not in capsys.readouterr().err
    logged = rows(run_dir / "textual_inversion_loss.csv")[1:]
    assert len(logged) == 6
    epochs = sorted({int(row[1]) for row in logged})
    expected = [(epoch, [float(row[3]) for row in logged if int(row[1]) == epoch]) for epoch in epochs]
    head, *table = rows(run_dir / "loss_by_epoch.csv")
    assert head == ["epoch", "steps", "mean loss"]
    assert [(int(epoch), int(steps), float(loss)) for epoch, steps, loss in table] == [
        (epoch, len(losses), pytest.approx(fmean(losses), abs=1e-6)) for epoch, losses in expected
    ]
    assert_tab_shows(workspace, run_dir, table)


def assert_tab_shows(workspace: Workspace, run_dir: Path, table: list[list[str]]) -> None:
    gradio = pytest.importorskip("gradio")

    async def build() -> Any:
        parts = load_extensions({}).build_train_tabs(SimpleNamespace(workspace=workspace))
        with gradio.Blocks() as page, gradio.Tabs():
            for part in parts:
                part.render()
        return page

    page = asyncio.run(build())
    assert [block.label for block in page.blocks.values() if isinstance(block, gradio.Tab)] == ["Loss tally"]
    refresh, show = (handler.fn for handler in page.fns.values())
    run = run_dir.relative_to(workspace.logs).as_posix()
    assert refresh().value == run
    assert show(run) == table
    assert show("../../elsewhere") == [] and show(None) == []


def test_it_can_be_switched_off(installed: None, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINCTURE_EXTENSIONS", "off")
    assert not (train(workspace) / "loss_by_epoch.csv").exists()
