"""The program on several processes: by its own flag, by launchers, in a job of the queue, and by variables alone."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.runs import Bench, OnStep, equal, last_state, trained
from tests.unit.run.test_together import close
from tincture import recipe
from tincture.cli import main
from tincture.errors import LostProcessError
from tincture.server.queue import worker
from tincture.server.queue.folder import JobFolder
from tincture.server.queue.worker import Control

PATIENCE_S = 300
SETTINGS = {"steps": 3, "batch_size": 2, "learning_rate": "", "preview_every": 3, "preview_steps": 1}
MANY = {**SETTINGS, "steps": 100_000, "preview_every": 0, "log_every": 1}


def program(bench: Bench, kind: str, **changes: object) -> list[str]:
    """The arguments of a training."""
    place = bench.workspace.root / "run.toml"
    place.write_text(bench.settings(kind, **{**SETTINGS, **changes}).to_toml())
    return ["train", "--config", str(place), "--root", str(bench.workspace.root), "--json"]


def launched(words: Sequence[str], **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def helpers_of(process: int) -> list[int]:
    """The processes that one started."""
    children = Path(f"/proc/{process}/task/{process}/children")
    return [int(number) for number in children.read_text().split()] if children.exists() else []


def test_the_flag_starts_processes_and_leaves_none(
    new_bench: Callable[[str], Bench], capsys: pytest.CaptureFixture[str]
) -> None:
    """The result is one run's, and signals are handled as before."""
    alone, several = new_bench("alone"), new_bench("several")
    expected = alone.train("embedding", **SETTINGS)
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    assert main([*program(several, "embedding"), "--processes", "2"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["global_step"] == 3
    assert close(trained(expected.adapter_path), trained(several.path("embedding")))
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert not helpers_of(os.getpid())
    assert len(list(several.workspace.logs.glob("*/cat*"))) == 1


@pytest.mark.parametrize("command", ["create", "generate", "preprocess", "merge", "serve", "demo", "convert"])
def test_what_each_would_do_wholly_is_refused_under_a_launcher(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert main([command]) == 2
    error = capsys.readouterr().err
    assert f"each would do the whole of tincture {command}" in error
    assert error.count("\n") == 1
    monkeypatch.setenv("RANK", "1")
    assert main([command]) == 2
    assert capsys.readouterr().err == ""  # the process of rank 0 says it


def test_a_batch_script_of_slurm_may_do_all_but_compute_together(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bench: Bench
) -> None:
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(name, value)
    assert main(["inspect", str(bench.path("embedding"))]) == 0
    assert main(program(bench, "embedding")) == 2
    assert "was not started by srun" in capsys.readouterr().err


def test_the_plan_says_how_many(bench: Bench) -> None:
    settings = bench.settings("embedding", **{**SETTINGS, "processes": "2"})
    assert recipe.plan(settings, bench.workspace, timing="known")["processes"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "accelerate", "srun", "pmi"])
def test_launchers_make_one_run(new_bench: Callable[[str], Bench], launcher: str) -> None:
    alone, several = new_bench("alone"), new_bench("several")
    expected = alone.train("embedding", **SETTINGS)
    arguments = ["-m", "tincture", *program(several, "embedding")]
    if launcher == "torchrun":
        words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]
        ended = [launched([*words, *arguments])]
    elif launcher == "accelerate":
        words = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
        ended = [launched([*words, "--num_machines", "1", "--main_process_port", free_port(), *arguments])]
    else:
        ended = started_apart(launcher, [sys.executable, *arguments])
    assert [each.returncode for each in ended] == [0] * len(ended), ended
    (shown,) = (json.loads(each.stdout) for each in ended if each.stdout.strip())
    assert shown["global_step"] == 3
    assert close(trained(expected.adapter_path), trained(several.path("embedding")))
    assert len(list(several.workspace.logs.glob("*/cat*"))) == 1


def started_apart(launcher: str, words: Sequence[str]) -> list[subprocess.CompletedProcess[str]]:
    """Two processes with the variables of a launcher that starts them one by one."""
    names = {"srun": ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"), "pmi": ("PMI_SIZE", "PMI_RANK")}[launcher]
    shared = {"MASTER_PORT": free_port(), "OMP_NUM_THREADS": "1"}
    shared |= {"SLURM_JOB_ID": "12", "SLURM_STEP_ID": "0", "MASTER_ADDR": "127.0.0.1"} if launcher == "srun" else {}
    processes = [
        subprocess.Popen(
            words,
            env={**os.environ, **shared, names[0]: "2", names[1]: str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    found = [process.communicate(timeout=PATIENCE_S) for process in processes]
    return [
        subprocess.CompletedProcess(words, process.returncode, out, err)
        for process, (out, err) in zip(processes, found, strict=True)
    ]


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return str(free.getsockname()[1])


@pytest.mark.slow
def test_ctrl_c_saves_and_a_resume_with_as_many_is_exact(new_bench: Callable[[str], Bench]) -> None:
    whole, stopped = new_bench("whole"), new_bench("stopped")
    expected = recipe.train(whole.settings("embedding", **SETTINGS, processes=2), whole.workspace)
    words = [sys.executable, "-m", "tincture", *program(stopped, "embedding", **{**MANY, "steps": 3, "log_every": 10})]
    with subprocess.Popen([*words, "--processes", "2", "--save-every", "1"], stdout=subprocess.DEVNULL) as process:
        wait_for(lambda: list(stopped.workspace.logs.glob("*/cat/state/*.pt")))
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) in (0, 130)
    (run_dir,) = stopped.workspace.logs.glob("*/cat")
    if process.returncode:
        assert recipe.resume(run_dir).global_step == 3
    states = [last_state(each) for each in (expected.run_dir, run_dir)]
    assert equal(states[0]["adapter"], states[1]["adapter"])


@pytest.mark.slow
def test_a_helper_that_is_killed_ends_the_run_by_name(bench: Bench) -> None:
    def kill() -> None:
        (helper,) = helpers_of(os.getpid())
        os.kill(helper, signal.SIGKILL)

    settings = bench.settings("embedding", **MANY, processes=2)
    with pytest.raises(LostProcessError) as lost:
        recipe.train(settings, bench.workspace, [OnStep(2, kill)])
    assert "rank 1 of 2 ended: SIGKILL ended it" in lost.value.sentence
    assert "steps are saved" in lost.value.sentence
    assert not helpers_of(os.getpid())


@pytest.mark.slow
def test_helpers_end_with_the_process_that_started_them(bench: Bench) -> None:
    words = [sys.executable, "-m", "tincture", *program(bench, "embedding", **MANY), "--processes", "2"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: list(bench.workspace.logs.glob("*/cat/state/*.pt")))
        (helper,) = helpers_of(process.pid)
        process.kill()
        process.wait()
        wait_for(lambda: not Path(f"/proc/{helper}").exists() or "Z" in Path(f"/proc/{helper}/stat").read_text()[:60])


def wait_for(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_a_job_of_the_queue_may_ask_for_processes(new_bench: Callable[[str], Bench], tmp_path: Path) -> None:
    alone, several = new_bench("alone"), new_bench("several")
    expected = alone.train("embedding", **SETTINGS)
    folder = JobFolder(tmp_path / "job")
    folder.path.mkdir()
    settings = several.settings("embedding", **SETTINGS, processes=2).to_dict()
    task = {"kind": "train", "settings": settings, "root": str(several.workspace.root), "device": "cpu", "attempt": 1}
    folder.task.write_text(json.dumps({**task, "run_dir": None}))
    assert worker.run(folder, Control()) == 0
    ended = folder.ended(1)
    assert ended is not None
    assert ended["result"]["global_step"] == 3
    assert close(trained(expected.adapter_path), trained(several.path("embedding")))
