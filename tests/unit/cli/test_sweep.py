"""`tincture sweep` as a command: what it prints, its exit codes, and that it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.runs import Bench
from tests.unit.sweeps.sweeping import Pretended, made
from tincture.cli import main
from tincture.cli.sweep import _at_rung, devices
from tincture.settings.toml import toml_lines
from tincture.sweeps import executor
from tincture.sweeps.points import Trial
from tincture.sweeps.standings import Row


@pytest.fixture
def asked(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What executors were asked for; runs compute nothing. The working folder is a workspace with SWEEP.toml."""
    monkeypatch.chdir(bench.workspace.root)
    run = {"kind": "embedding", "name": "cat", "data": str(bench.data), "model": str(bench.model), "device": "cpu"}
    Path("run.toml").write_text(toml_lines({**run, "steps": 4}))
    Path("rates.toml").write_text('run = "run.toml"\n[grid]\nlearning_rate = ["1e-3", "1e-2"]\nbatch_size = [1, 2]\n')
    found: list[Any] = []

    class Fake(Pretended):
        def __init__(self, sweep: Any, devices: list[str]) -> None:
            super().__init__(sweep, lambda values, step: _loss(values), slots=len(devices))
            self.asked = found

        def close(self) -> None:
            pass

    monkeypatch.setattr(executor, "Processes", Fake)
    return found


def _loss(values: Any) -> Any:
    fails = Path("fails").exists() and values["batch_size"] == 2
    return "The loss is NaN." if fails else float(values["learning_rate"]) * values["batch_size"]


def test_a_sweep_prints_its_table_and_leaves_reports(asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "rates.toml"]) == 0
    out, err = capsys.readouterr()
    assert "* rates-p01" in out and "* best by train loss" in out and "report.html" in out
    assert "done at step 4: rates-p02: learning rate 1e-3, batch size 2, train loss 0.002" in err
    assert {path.name for path in Path("sweeps/rates").iterdir()} >= {"report.html", "table.csv", "table.json"}
    assert len(asked) == 4
    assert main(["sweep", "rates.toml"]) == 0 and main(["sweep", "rates"]) == 0
    assert len(asked) == 4  # nothing twice


def test_json_is_a_line_for_each_change_and_one_for_the_end(
    asked: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--json", "sweep", "rates.toml", "--jobs", "3"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["event"] for line in lines[:-1]} == {"run"} and lines[-1]["event"] == "ended"
    assert [line["run"] for line in lines[:-1] if line["state"] == "done"] == [f"rates-p0{n}" for n in (1, 2, 3, 4)]
    assert lines[-1]["best"] == "rates-p01" and lines[-1]["states"] == {"done": 4} and len(lines[-1]["runs"]) == 4


def test_a_failed_run_is_in_the_table_and_can_be_tried_again(
    asked: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("fails").touch()
    assert main(["sweep", "rates.toml"]) == 1
    out, err = capsys.readouterr()
    assert out.count("The loss is NaN.") == 2 and "2 of 4 runs failed; --retry tries them once more" in err
    Path("fails").unlink()
    assert main(["sweep", "rates.toml"]) == 1 and len(asked) == 4
    assert main(["sweep", "rates.toml", "--retry"]) == 0 and len(asked) == 6


def test_a_dry_run_shows_the_runs_and_writes_nothing(asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "rates.toml", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "4 runs, ranked by train loss" in out and "rates-p04" in out
    assert not asked and not Path("sweeps").exists()


def test_another_name_is_another_sweep(asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "rates.toml"]) == 0
    Path("rates.toml").write_text('run = "run.toml"\n[grid]\nbatch_size = [1, 2]\n')
    assert main(["sweep", "rates.toml"]) == 2
    assert "was begun with another grid; give this one another --name" in capsys.readouterr().err
    Path("rates.toml").write_text('run = "run.toml"\n[grid]\nbatch_size = [1, 2]\nlearning_rate = [0.1]\n')
    assert main(["sweep", "rates.toml", "--name", "more"]) == 0
    assert Path("sweeps/more/report.html").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["absent.toml"], "cannot be read"),
        (["absent"], "no sweep 'absent'"),
        (["rates.toml", "--jobs", "0"], "jobs"),
        (["rates.toml", "--name", "a/b"], "not allowed"),
        (["rates.toml", "--ray", "head"], "ray is 'head', but must be auto"),
        (["rates.toml", "--ray", "127.0.0.1:9"], "'127.0.0.1:9' cannot be reached"),
        (["rates.toml", "--database", "jobs.sqlite3"], "give --ray too"),
    ],
    ids=["no-file", "no-sweep", "no-jobs", "name", "address", "out-of-reach", "database"],
)
def test_what_is_wrong_is_a_sentence(
    asked: list[Any], capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    assert main(["sweep", *words]) == 2
    err = capsys.readouterr().err
    assert sentence in err and "Traceback" not in err and not Path("sweeps").exists()


def test_the_bar_says_how_many_wait_at_a_rung() -> None:
    def row(state: str, **result: Any) -> Row:
        return Row(Trial("p", 1, None, {}, {}), state, result)

    assert _at_rung([row("waiting"), row("running", global_step=5), row("done", global_step=9)]) == ""
    assert _at_rung([row("waiting"), *[row("waiting", global_step=5)] * 2]) == ", 2 at step 5"


@pytest.mark.parametrize(
    ("found", "device", "jobs", "places"),
    [
        ([], "auto", None, [""]),
        ([], "auto", 3, ["", "", ""]),
        (["cuda:0"], "auto", None, [""]),
        (["cuda:0", "cuda:1"], "auto", None, ["cuda:0", "cuda:1"]),
        (["cuda:0", "cuda:1"], "auto", 3, ["cuda:0", "cuda:1", "cuda:0"]),
        (["cuda:0", "cuda:1"], "cuda:1", None, [""]),
    ],
    ids=["cpu", "cpu-jobs", "one-gpu", "gpus", "gpus-jobs", "named"],
)
def test_each_gpu_is_a_place_for_a_run(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    found: list[str],
    device: str,
    jobs: int | None,
    places: list[str],
) -> None:
    monkeypatch.setattr("tincture.models.devices.accelerators", lambda: found)
    assert devices(made(bench, grid={"batch_size": [1, 2]}, device=device), jobs) == places
