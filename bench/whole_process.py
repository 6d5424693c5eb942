"""What ``--dry-run`` predicts that the process of a run on the processor takes, and what it takes: fresh processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.material import NAME, create_adapter

from tincture.workspace import Workspace

STEPS = 3
PICTO_CASES: Sequence[Mapping[str, Any]] = (
    {},
    {"batch_size": 8},
    {"preview_every": 2},
    {"gradient_checkpointing": True},
    {"batch_size": 8, "gradient_checkpointing": True, "preview_every": 2},
)
SD15_CASES: Sequence[Mapping[str, Any]] = ({}, {"batch_size": 4}, {"gradient_checkpointing": True})
PROGRAM = """
import json, sys
from pathlib import Path
from tincture import recipe
from tincture.settings.train import TrainSettings
from tincture.workspace import Workspace

what, settings, root = sys.argv[1], TrainSettings.from_dict(json.loads(sys.argv[2])), Path(sys.argv[3])
if what == "plan":
    print(recipe.plan(settings, Workspace(root), "none", alone=True)["process_mib"])
else:
    recipe.train(settings, Workspace(root))
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    print(next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")))
"""


def compare_processes(
    model: str, title: str, side: int, cases: Sequence[Mapping[str, Any]], workspace: Workspace
) -> Iterator[dict[str, Any]]:
    """MiB of the whole process, of a plan and of a training of a few steps, for both kinds with each of ``cases``."""
    for kind in ("embedding", "hypernetwork"):
        for given in cases:
            create_adapter(workspace, kind, model)
            settings = {
                "kind": kind,
                "name": NAME,
                "model": model,
                "data": str(workspace.root / "data"),
                "template": f"{kind}-bench",
                "width": side,
                "height": side,
                "steps": STEPS,
                "preview_every": 0,
                "preview_steps": 2,
                "save_every": 0,
                "device": "cpu",
                **given,
            }
            told, measured = (_mib_of(what, settings, workspace) for what in ("plan", "train"))
            sizes = {"told_mib": round(told), "measured_mib": round(measured), "ratio": round(told / measured, 3)}
            yield {"model": title, "side": side, "kind": kind, "batch_size": 1, **given, **sizes}


def _mib_of(what: str, settings: Mapping[str, Any], workspace: Workspace) -> float:
    command = [sys.executable, "-c", PROGRAM, what, json.dumps(settings), str(workspace.root)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    if done.returncode:
        raise RuntimeError(f"The {what} failed: {done.stderr}")
    return float(done.stdout.splitlines()[-1])
