"""The real program, stopped the hard ways: killed at a random moment, and interrupted by Ctrl-C."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.runs import NAMES, RANDOM, Bench, csv_text, equal, last_state, make_bench, trained
from tests.support import save_folder, tiny_model
from tincture.adapters.embedding import Embedding
from tincture.adapters.hypernetwork import Hypernetwork
from tincture.formats.files import safe_torch_load

STEPS = 24
SETTINGS: dict[str, Any] = {**RANDOM, "steps": STEPS, "save_every": 3, "log_every": 2}
PATIENCE = 120


def make(root: Path, **changes: Any) -> tuple[Bench, dict[str, Path]]:
    """A workspace with a run file per kind of adapter."""
    model = tiny_model()
    bench = make_bench(root, model, save_folder(model, root / "models" / "Stable-diffusion" / "tiny"))
    configs = {}
    for kind in NAMES:
        configs[kind] = root / f"{kind}.toml"
        configs[kind].write_text(bench.settings(kind, **{**SETTINGS, **changes}).to_toml())
    return bench, configs


def tincture(*arguments: str | Path) -> subprocess.Popen[str]:
    """Starts the program as a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "tincture", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def wait_for_steps(process: subprocess.Popen[str], bench: Bench) -> Path:
    """Waits until the loss log has a line, and returns the folder of the run."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        for path in bench.workspace.logs.glob("*/*/*_loss.csv"):
            if path.read_text().count("\n") > 1:
                return path.parent
        time.sleep(0.05)
    raise AssertionError(f"The run did not make a step: {finish(process)}")


@pytest.mark.slow
@pytest.mark.parametrize("kind", NAMES)
def test_killed_at_a_random_moment_and_resumed_equals_never_stopped(kind: str, tmp_path: Path) -> None:
    whole, configs = make(tmp_path / "whole")
    code, out, err = finish(tincture("train", "--config", configs[kind], "--root", whole.workspace.root, "--json"))
    assert code == 0, err
    expected = json.loads(out)
    killed, configs = make(tmp_path / "killed")
    process = tincture("train", "--config", configs[kind], "--root", killed.workspace.root)
    run_dir = wait_for_steps(process, killed)
    time.sleep(random.uniform(0, 1.5))
    process.kill()
    finish(process)
    # No file is torn, wherever the kill struck.
    for path in [killed.path(kind), *run_dir.rglob("*.pt")]:
        safe_torch_load(path)
    code, out, err = finish(tincture("resume", run_dir, "--root", killed.workspace.root, "--json"))
    assert code == 0, err
    result = json.loads(out)
    assert (result["global_step"], result["interrupted"]) == (STEPS, False)
    assert equal(trained(killed.path(kind)), trained(whole.path(kind)))
    assert csv_text(run_dir) == csv_text(Path(expected["run_dir"]))
    assert equal(last_state(run_dir), last_state(Path(expected["run_dir"])))


@pytest.mark.slow
def test_ctrl_c_saves_exits_130_and_resumes(tmp_path: Path) -> None:
    bench, configs = make(tmp_path, steps=5000)
    process = tincture("train", "--config", configs["hypernetwork"], "--root", bench.workspace.root)
    run_dir = wait_for_steps(process, bench)
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    assert code == 130
    assert "tincture resume" in err
    assert "Traceback" not in err
    stopped_at = Hypernetwork.load(bench.path("hypernetwork")).step
    assert 0 < stopped_at < 5000
    assert last_state(run_dir)["global_step"] == stopped_at
    assert f"step {stopped_at}" in out
    # It goes on for a little, and is stopped again.
    process = tincture("resume", run_dir, "--root", bench.workspace.root)
    deadline = time.monotonic() + PATIENCE
    while len(csv_text(run_dir).splitlines()) < stopped_at + 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 130
    assert Hypernetwork.load(bench.path("hypernetwork")).step > stopped_at
    steps = [int(line.split(",")[0]) for line in csv_text(run_dir).splitlines()[1:]]
    assert steps == list(range(1, len(steps) + 1))


def test_the_way_from_create_to_a_trained_file(tmp_path: Path) -> None:
    bench, configs = make(tmp_path, steps=3)
    root = str(bench.workspace.root)
    code, _, err = finish(
        tincture("create", "embedding", "cat", "--model", "tiny", "--vectors", "3", "--overwrite", "--root", root)
    )
    assert code == 0, err
    code, out, err = finish(tincture("train", "--config", configs["embedding"], "--root", root, "--json"))
    assert code == 0, err
    result = json.loads(out)
    assert result["adapter_path"] == str(bench.path("embedding"))
    assert (Embedding.load(bench.path("embedding")).step, Embedding.load(bench.path("embedding")).num_vectors) == (3, 3)
    code, _, err = finish(tincture("train", "--config", configs["embedding"], "--root", root))
    assert code == 0  # nothing to do is no fault
    assert "The embedding 'cat' has 3 steps already" in err
