"""How long a fresh process takes: to its first training step, to a new embedding, to a refusal, to the help."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from bench.material import NAME, create_adapter
from bench.measure import spread

from tincture.workspace import Workspace

FIRST_STEP = """
import sys
from pathlib import Path
from tincture import recipe
from tincture.events import StepEnd
from tincture.settings.train import TrainSettings
from tincture.workspace import Workspace

kind, name, model, root = sys.argv[1:]

class Tell:
    def on_event(self, event):
        if isinstance(event, StepEnd):
            print("step", flush=True)

settings = TrainSettings(kind=kind, name=name, model=model, data=str(Path(root) / "data"), template=f"{kind}-bench",
                         steps=1, device="cpu", preview_every=0)
recipe.train(settings, Workspace(Path(root)), [Tell()])
"""


def seconds_to_first_step(workspace: Workspace, kind: str, model: str) -> float:
    """Wall seconds from starting Python to the end of the first training step, imports and loading included."""
    create_adapter(workspace, kind, model)
    command = [sys.executable, "-c", FIRST_STEP, kind, NAME, model, str(workspace.root)]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - started
        _, errors = process.communicate()
    if line.strip() != "step" or process.returncode:
        raise RuntimeError(f"The run to the first step failed: {errors}")
    return seconds


def cpu_seconds(arguments: Sequence[str], code: int = 0) -> float:
    """CPU seconds, user and system, of the program, which ends with ``code``."""
    before = _children()
    done = subprocess.run([sys.executable, "-m", "tincture", *arguments], capture_output=True, text=True)
    if done.returncode != code:
        raise RuntimeError(f"tincture {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
    return _children() - before


def commands(workspace: Workspace, model: str) -> dict[str, tuple[list[str], int]]:
    """What is measured of the program: arguments, and the code that it ends with."""
    root, data = ["--root", str(workspace.root)], str(workspace.root / "data")
    trained = ["--data", data, "--model", model, *root]
    create = ["create", "embedding", "new", "--overwrite", *root]
    return {
        "tincture --help": (["--help"], 0),
        "tincture create embedding": ([*create, "--model", model], 0),
        "an unknown model is refused": ([*create, "--model", "unknown"], 1),
        "an unknown optimizer is refused": (["train", "embedding", NAME, *trained, "--optimizer", "unknown"], 2),
        "an unknown embedding is refused": (["train", "embedding", "unknown", "--data", data, *root], 2),
    }


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure_startup(workspace: Workspace, model: str, rounds: int) -> list[dict[str, Any]]:
    """All of it, ``rounds`` times in turn. Files are in the system's cache after the first time."""
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        for kind in ("embedding", "hypernetwork"):
            what = f"import to first step, {kind} (wall seconds)"
            seconds.setdefault(what, []).append(seconds_to_first_step(workspace, kind, model))
        for what, (arguments, code) in commands(workspace, model).items():
            seconds.setdefault(f"{what} (CPU seconds)", []).append(cpu_seconds(arguments, code))
    return [{"what": what, "seconds": spread(values), "all_rounds": values} for what, values in seconds.items()]
