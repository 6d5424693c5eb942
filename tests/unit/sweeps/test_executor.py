"""Processes of a sweep, with a program that computes nothing in them."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.runs import Bench
from tests.unit.sweeps.sweeping import made, search
from tincture.formats.file_lock import FileLock
from tincture.sweeps.executor import Ended, Processes
from tincture.sweeps.standings import rows_of
from tincture.sweeps.sweep_folder import SweepFolder

# Counts a step in "made" now and then, up to 5; "state" is what it goes on from. When standard input ends, it stops.
PROGRAM = """
import json, os, pathlib, select, sys, time
folder = pathlib.Path(sys.argv[1])
state, made = folder / "state", folder / "made"
(folder / "pid").write_text(str(os.getpid()))
step = int(state.read_text()) if state.exists() else 0
until = json.loads((folder / "task.json").read_text())["until"] or 5
pace = float((folder.parent / "pace").read_text()) if (folder.parent / "pace").exists() else 0.01
while step < until:
    assert "SLURM_NTASKS" not in os.environ
    if select.select([sys.stdin], [], [], pace)[0]:
        print("stopped", flush=True)
        sys.exit(130)
    step += 1
    with made.open("a") as file:
        file.write(f"{step}\\n")
    state.write_text(str(step))
    (folder / "progress.json").write_text(json.dumps({"global_step": step, "steps": 5}))
found = {"global_step": step, "train_loss": 0.5, "interrupted": until < 5, "seconds": 1.0}
(folder / f"result-{until if until < 5 else 'end'}.json").write_text(json.dumps(found))
"""

GRID = {"batch_size": [1, 2, 3]}


@pytest.fixture
def processes(bench: Bench) -> Iterator[Callable[..., tuple[SweepFolder, Processes]]]:
    made_here: list[Processes] = []

    def make(slots: int = 2, pace: float = 0.01) -> tuple[SweepFolder, Processes]:
        sweep = made(bench, grid=GRID)
        (sweep.path / "trials").mkdir(exist_ok=True)
        (sweep.path / "trials" / "pace").write_text(str(pace))
        made_here.append(Processes(sweep, [""] * slots, [sys.executable, "-c", PROGRAM]))
        return sweep, made_here[-1]

    before = dict(os.environ)
    yield make
    for each in made_here:
        each.close()
    os.environ.clear()
    os.environ.update(before)


def steps_made(sweep: SweepFolder, name: str) -> list[int]:
    return [int(line) for line in (sweep.trial(name).path / "made").read_text().split()]


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_each_run_is_a_process(
    processes: Callable[..., tuple[SweepFolder, Processes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And alone, in a batch script of Slurm that has more tasks, too."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    sweep, executor = processes()
    assert search(sweep, executor)
    assert [row.state for row in rows_of(sweep, ())] == ["done"] * 3
    assert len({(sweep.trial(trial.name).path / "pid").read_text() for trial in sweep.trials()}) == 3


def test_a_process_that_is_killed_is_begun_again_and_makes_no_step_twice(
    processes: Callable[..., tuple[SweepFolder, Processes]],
) -> None:
    sweep, executor = processes(slots=1, pace=0.2)
    folder = sweep.trial("try-p01")
    executor.submit("try-p01", None)
    until(lambda: (folder.path / "made").exists())
    os.kill(int((folder.path / "pid").read_text()), signal.SIGKILL)
    ended: list[Ended] = []
    until(lambda: ended.extend(executor.wait(0.1)) or ended)
    assert ended[0].name == "try-p01" and "by signal 9, as the system does when memory runs out" in ended[0].words
    (sweep.path / "trials" / "pace").write_text("0.01")
    assert search(sweep, executor)
    assert steps_made(sweep, "try-p01") == [1, 2, 3, 4, 5]


def test_runs_that_are_stopped_end_and_go_on(processes: Callable[..., tuple[SweepFolder, Processes]]) -> None:
    sweep, executor = processes(pace=0.2)
    for name in ("try-p01", "try-p02"):
        executor.submit(name, None)
    until(lambda: (sweep.trial("try-p02").path / "made").exists())
    executor.stop()
    ended: list[str] = []
    until(lambda: ended.extend(each.name for each in executor.wait(0.1)) or len(ended) == 2)
    (sweep.path / "trials" / "pace").write_text("0.01")
    assert search(sweep, executor)
    assert steps_made(sweep, "try-p02") == [1, 2, 3, 4, 5]


def test_a_run_that_another_process_holds_is_waited_for(
    processes: Callable[..., tuple[SweepFolder, Processes]],
) -> None:
    sweep, executor = processes(slots=1)
    lock = FileLock(sweep.trial("try-p01").lock)
    assert lock.take()
    executor.submit("try-p01", None)
    assert executor.wait(0.3) == [] and not (sweep.trial("try-p01").path / "pid").exists()
    lock.free()
    ended: list[Ended] = []
    until(lambda: ended.extend(executor.wait(0.1)) or ended)
    assert sweep.trial("try-p01").result(None)


def test_the_log_of_a_process_that_says_nothing_is_named(bench: Bench, tmp_path: Path) -> None:
    sweep = made(bench, grid=GRID)
    executor = Processes(sweep, [""], [sys.executable, "-c", "print('the last words'); raise SystemExit(7)"])
    assert search(sweep, executor)
    row = rows_of(sweep, ())[0]
    assert row.state == "failed" and "with status 7" in row.error and "the last words" in row.error
