"""A sweep that is killed, as processes are killed, goes on with the same command and does nothing twice."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runs import write_pictures
from tincture.run.create import create_embedding
from tincture.settings.toml import toml_lines
from tincture.workspace import Workspace

pytestmark = pytest.mark.slow
STEPS = 40


def begun(root: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tincture", "--root", str(root), "--json", "sweep", str(root / "s.toml"), *more]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=root, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def steps_made(root: Path, name: str) -> int:
    found = list(root.glob(f"textual_inversion/*/{name}/textual_inversion_loss.csv"))
    return len(found[0].read_text().splitlines()) - 1 if found else 0


def steps_of(root: Path, run: str) -> list[int]:
    """Those in the log of the one folder that a run has: a step that was made twice stands there twice."""
    (found,) = root.glob(f"textual_inversion/*/{run}*")
    with (found / "textual_inversion_loss.csv").open() as file:
        return [int(line["step"]) for line in csv.DictReader(file)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return prepared(tmp_path)


def prepared(tmp_path: Path) -> Path:
    """A workspace with the sweep ``s.toml`` in it."""
    create_embedding("cat", workspace=Workspace(tmp_path), model="picto", num_vectors=1)
    run = {"kind": "embedding", "name": "cat", "data": str(write_pictures(tmp_path / "pictures", side=64))}
    run |= {"model": "picto", "steps": STEPS, "save_every": 5, "log_every": 1, "preview_every": 0, "device": "cpu"}
    lines = toml_lines(run)
    text = f'name = "s"\n[run]\n{lines}\n[grid]\nlearning_rate = [0.005, 0.01]\n[halving]\nrungs = [10]\n'
    (tmp_path / "s.toml").write_text(text)
    return tmp_path


def test_a_sweep_and_its_runs_are_killed_and_go_on(root: Path) -> None:
    first = begun(root)
    until(lambda: steps_made(root, "s-p01") >= 3)
    lock = json.loads((root / "sweeps/s/trials/s-p01/lock").read_text())
    os.kill(lock["process"], signal.SIGKILL)  # the run; the sweep begins it again
    until(lambda: (root / "sweeps/s/trials/s-p01/result-10.json").exists())
    until(lambda: steps_made(root, "s-p02") >= 3)
    os.kill(first.pid, signal.SIGKILL)  # the sweep; its run saves and ends
    first.communicate()

    second = begun(root)
    until(lambda: max(steps_made(root, "s-p01"), steps_made(root, "s-p02")) > 15)
    second.send_signal(signal.SIGINT)
    _, errors = second.communicate(timeout=120)
    assert second.returncode == 130 and "the same command goes on" in errors

    third = begun(root)
    output, errors = third.communicate(timeout=300)
    assert third.returncode == 0, errors
    ended = json.loads(output.splitlines()[-1])
    assert ended["states"] == {"done": 1, "stopped": 1}
    for row in ended["runs"]:
        assert steps_of(root, row["run"]) == list(range(1, row["step"] + 1))

    command = [sys.executable, "-m", "tincture", "--root", str(root), "train", "embedding", "cat", "--config"]
    best = next(row for row in ended["runs"] if row["state"] == "done")
    run = (root / "s.toml").read_text().partition("[run]")[2].partition("[grid]")[0]
    (root / "run.toml").write_text(run + f"learning_rate = {best['learning_rate']}\n")
    subprocess.run([*command, str(root / "run.toml")], cwd=root, check=True, capture_output=True)
    logs = {
        name: next(root.glob(f"textual_inversion/*/{name}/textual_inversion_loss.csv")).read_text()
        for name in ("cat", best["run"])
    }
    assert logs["cat"] == logs[best["run"]]  # as a run that was never stopped, killed or compared

    again = begun(root)
    output, _ = again.communicate(timeout=120)
    assert again.returncode == 0 and len(output.splitlines()) == 3  # how the two stand, and the end: nothing was done
