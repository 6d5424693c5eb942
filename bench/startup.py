"""How long a fresh process takes: to its first training step, and to the program's help."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
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
                         steps=1, device="cpu")
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


def help_cpu_seconds() -> float:
    """CPU seconds, user and system, of ``tincture --help``."""
    before = _children()
    subprocess.run([sys.executable, "-m", "tincture", "--help"], check=True, capture_output=True)
    return _children() - before


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure_startup(workspace: Workspace, model: str, rounds: int) -> list[dict[str, Any]]:
    """Each of the three, ``rounds`` times in turn. Files are in the system's cache after the first time."""
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        for kind in ("embedding", "hypernetwork"):
            what = f"import to first step, {kind} (wall seconds)"
            seconds.setdefault(what, []).append(seconds_to_first_step(workspace, kind, model))
        seconds.setdefault("tincture --help (CPU seconds)", []).append(help_cpu_seconds())
    return [{"what": what, "seconds": spread(values), "all_rounds": values} for what, values in seconds.items()]
