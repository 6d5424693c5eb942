"""`tincture runs` lists, and `tincture compare` writes two files, or refuses in one sentence and writes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.past_runs import past_run
from tincture.cli import main
from tincture.cli.app import build_app


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("TINCTURE_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    past_run(tmp_path, "2026-01-01/rex", at=1000, ended={}, validation=[(2, 0.5)])
    past_run(tmp_path, "2026-01-02/max", at=3000, ended={"interrupted": True}, losses=(0.9, 0.8), model="anime")
    past_run(tmp_path, "2026-01-02/moon", at=2000, kind="hypernetwork", losses=())
    return tmp_path


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["runs", "--json", *words]) == 0
    return [run["id"].split("/")[1] for run in json.loads(capsys.readouterr().out)]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], ["max", "moon", "rex"]),
        (["--sort", "oldest"], ["rex", "moon", "max"]),
        (["--sort", "loss"], ["rex", "max", "moon"]),
        (["--sort", "best"], ["rex", "max", "moon"]),
        (["--sort", "state"], ["rex", "max", "moon"]),
        (["--sort", "name", "--limit", "2"], ["max", "moon"]),
        (["--state", "stopped"], ["max"]),
        (["--state", "stopped", "--state", "done"], ["max", "rex"]),
        (["--kind", "hypernetwork"], ["moon"]),
        (["--name", "rex"], ["rex"]),
        (["--model", "ANI"], ["max"]),
        (["2026-01-02", "M"], ["max", "moon"]),
        (["nowhere"], []),
    ],
    ids=lambda value: " ".join(value) if value and value[0] in ("--sort", "--state") else None,
)
def test_runs_are_filtered_and_sorted(
    root: Path, capsys: pytest.CaptureFixture[str], words: list[str], found: list[str]
) -> None:
    result = listed(capsys, *words)
    assert (sorted(result), result[:1]) == (sorted(found), found[:1])


def test_a_line_has_state_step_loss_and_curve(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs"]) == 0
    head, first, _, last = capsys.readouterr().out.splitlines()
    assert head.split() == ["RUN", "STATE", "STEP", "LOSS", "BEST", "CURVE", "KIND", "MODEL"]
    assert first.split() == ["2026-01-02/max", "stopped", "2/4", "0.8500", "█▁", "embedding", "anime"]
    assert last.split() == ["2026-01-01/rex", "done", "4/4", "0.2500", "0.5000", "@2", "█▆▃▁", "embedding", "picto"]
    assert main(["runs", "--limit", "1"]) == 0
    assert "2 more; --limit 0 shows all" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--state", "asleep"], "--state is 'asleep', but must be running, done, ended early, stopped or broken off."),
        (["--kind", "lora"], "--kind is 'lora', but must be embedding or hypernetwork."),
        (["--limit", "-1"], "--limit is -1, but must be at least 0."),
        (["--log-dir", "absent"], "--log-dir is 'absent', which is no folder"),
        (["--sort", "size"], "--sort"),
    ],
    ids=["state", "kind", "limit", "log-dir", "sort"],
)
def test_wrong_filters_are_refused(root: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert main(["runs", *words]) == 2
    shown = capsys.readouterr()
    assert said in shown.err and shown.err.count("\n") == 1 and not shown.out


def test_a_comparison_is_two_files(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "rex", "max", "--out", "both.html"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[:2] == ["both.html", "both.png"] and "  model: picto | anime" in out
    assert (
        Path("both.html").read_text().startswith("<!doctype html>") and Path("both.png").read_bytes()[:4] == b"\x89PNG"
    )
    assert main(["compare", "rex", "max", "--out", "both.html"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["--json", "compare", "rex", "max", "--out", "both.html", "--overwrite"]) == 0
    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert [run["id"] for run in shown["runs"]] == ["2026-01-01/rex", "2026-01-02/max"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Give the runs to compare, 2 to 12"),
        (["rex"], "Give the runs to compare, 2 to 12"),
        (["rex", "rex"], "is given twice"),
        (["rex", "nobody"], "There is no run 'nobody'"),
        (["rex", "m"], "'m' may be 2 runs"),
        (["rex", "max", "--out", "x.pdf"], "must be a file that ends in .html"),
        (["rex", "max", "--out", "absent/x.html"], "there is no folder absent"),
        (["rex", "max", "--smoothing", "101"], "--smoothing is 101, but must be from 0 to 100"),
        (["rex", "max", "--step", "3"], "--step is 3, of which no run has previews"),
    ],
    ids=["none", "one", "twice", "unknown", "several", "suffix", "folder", "smoothing", "step"],
)
def test_what_cannot_be_compared_leaves_no_file(
    root: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    before = sorted(root.rglob("*"))
    assert main(["compare", *words]) == 2
    shown = capsys.readouterr()
    assert said in shown.err and shown.err.count("\n") == 1 and not shown.out
    assert sorted(root.rglob("*")) == before


def test_a_terminal_without_such_marks_gets_digits(root: Path) -> None:
    command = [sys.executable, "-m", "tincture", "runs", "rex"]
    done = subprocess.run(command, capture_output=True, env={"PYTHONIOENCODING": "ascii", "PATH": ""}, check=True)
    assert b"8631" in done.stdout


def test_neither_loads_torch_nor_does_the_help_load_numpy(root: Path) -> None:
    code = (
        "import sys; from tincture.cli import main; import tincture.cli.app\n"
        "assert not {'numpy', 'PIL', 'torch'} & set(sys.modules)\n"
        "assert main(['runs']) == 0 and not {'numpy', 'torch'} & set(sys.modules)\n"
        "assert main(['compare', 'rex', 'max']) == 0 and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, capture_output=True)
    assert build_app()
