"""`--events` writes lines of JSON to a file or to standard output, and how the run ended as the last of them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import FakeRecipe, Result
from tincture.cli import main
from tincture.errors import TrainingError
from tincture.events import RunStarted, StepEnd

TRAIN = ["train", "embedding", "cat", "--data", "d"]


def run(*_: Any, callbacks: Any, **__: Any) -> Result:
    for event in (RunStarted(0, 12, 5, 5), StepEnd(1, 12)):
        for callback in callbacks:
            callback.on_event(event)
    warnings.simplefilter("always")  # the command puts back what was there
    warnings.warn("something is odd", stacklevel=1)
    return Result(interrupted=False)


def fail(*_: Any, **__: Any) -> Result:
    raise TrainingError("The run diverged.")


def read(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("command", [TRAIN, ["resume", "run"]], ids=("train", "resume"))
def test_lines_end_with_the_result_and_stand_alone_on_standard_output(
    recipe: FakeRecipe, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    Path("run").mkdir()
    Path("run/run.json").write_text("{}")
    recipe.answers.update(train=run, resume=run)
    assert main([*command, "--events", "-"]) == 0
    records = read(capsys.readouterr().out)
    assert [record["type"] for record in records] == ["started", "progress", "remark", "ended"]
    assert records[2]["text"] == "something is odd"
    assert (records[-1]["state"], records[-1]["result"]) == ("done", Result().to_dict())


def test_a_file_is_appended_to_and_the_result_is_shown_as_ever(
    recipe: FakeRecipe, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    recipe.answers["train"] = run
    for _ in range(2):
        assert main([*TRAIN, "--events", "ev.jsonl"]) == 0
        assert "embeddings/cat.pt" in capsys.readouterr().out
    assert [record["type"] for record in read((tmp_path / "ev.jsonl").read_text())].count("ended") == 2


def test_a_run_that_fails_says_so_in_its_last_line(recipe: FakeRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.answers["train"] = fail
    assert main([*TRAIN, "--events", "-"]) == 1
    (last,) = read(capsys.readouterr().out)
    assert (last["state"], last["error"], last["error_type"]) == ("failed", "The run diverged.", "TrainingError")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--events", "absent/ev.jsonl"], "--events is 'absent/ev.jsonl', which cannot be written"),
        (["--events", "."], "--events is '.', which cannot be written"),
        (["--events", "-", "--dry-run"], "--events says what happens in a run, and --dry-run begins none"),
        (["--log-with", "nobody"], "must be one or more of tensorboard, wandb"),
        (["--log-project", " "], "log_project"),
    ],
    ids=["absent", "folder", "dry-run", "unknown tracker", "no project"],
)
def test_what_cannot_be_is_refused_before_anything_begins(
    recipe: FakeRecipe, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert main([*TRAIN, *more]) == 2
    assert said in capsys.readouterr().err and not recipe.calls


def test_a_reader_that_left_does_not_end_the_run(recipe: FakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def write(self, text: str) -> None:
            raise BrokenPipeError

        flush: Callable[[], None] = lambda self: None

    recipe.answers["train"] = run
    monkeypatch.setattr("sys.stdout", Closed())
    assert main([*TRAIN, "--events", "-"]) == 0
