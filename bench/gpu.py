"""All that a GPU is to be asked, within eight minutes: ``bench/gpu.sh [OUT]``; ``--cpu`` tries it with tiny models.

Installs and downloads nothing: the models are SD 1.5's and SDXL's anatomy with random weights, and picto. Each part is
a process with a limit of its own; one that fails or takes too long is noted, and the others go on. Into OUT go
``gpu.json`` with what was found, ``gpu.log`` with what was said, and the pictures of the demo.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

ROOT = Path(__file__).parents[1]
WHOLE = 470.0
"""Seconds for all parts together."""
SAVING: tuple[dict[str, Any], ...] = (
    {},
    {"precision": "bf16"},
    {"precision": "bf16", "gradient_checkpointing": True},
)
_RESULT, _MATERIAL = "{}.part.json", "material"


@dataclasses.dataclass(frozen=True)
class Bench:
    """Where and how large. ``models``: family by the name of its file; ``side``: of its pictures in pixels."""

    out: Path
    cpu: bool

    @property
    def device(self) -> str:
        return "cpu" if self.cpu else "cuda"

    @property
    def patience(self) -> float:
        """How many times the limits that a card has."""
        return 6.0 if self.cpu else 1.0

    def side(self, family: str) -> int:
        return 64 if self.cpu else {"sd1": 512, "sdxl": 1024}[family]

    def model(self, family: str) -> str:
        return str(self.out / _MATERIAL / f"{family}.safetensors")

    def workspace(self, name: str) -> Any:
        """An empty one with pictures."""
        from bench.material import make_workspace

        root = self.out / _MATERIAL / name
        shutil.rmtree(root, ignore_errors=True)
        return make_workspace(root, 4)


# --- parts ------------------------------------------------------------------------------------------------------------


def write_models(bench: Bench) -> Any:
    """Random weights of both anatomies."""
    from tools.make_checkpoint import write_checkpoint

    sizes = {}
    for family in ("sd1", "sdxl"):
        path = Path(bench.model(family))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_checkpoint(family, path, full=not bench.cpu)
        sizes[family] = path.stat().st_size
    return {"bytes": sizes}


def demo(bench: Bench) -> Any:
    """Picto's own demo: does what is learned on this device show?"""
    from tincture.kinds.embedding import EMBEDDING
    from tincture.kinds.hypernetwork import HYPERNETWORK
    from tincture.run import demo as job

    out, short = bench.out / "demo", {"steps": 2} if bench.cpu else {}
    shutil.rmtree(out, ignore_errors=True)
    with patch.dict(cast(Any, EMBEDDING.preset), short), patch.dict(cast(Any, HYPERNETWORK.preset), short):
        return job.run(out, pairs=2 if bench.cpu else 120)


def resume(bench: Bench) -> Any:
    """Whether a run that stopped half-way ends with the same bits as one that did not, by kind and precision."""
    from bench.material import NAME, create_adapter

    from tincture import recipe
    from tincture.settings.train import TrainSettings

    def trained(kind: str, precision: str, halves: bool) -> Path:
        workspace = bench.workspace("resume")
        create_adapter(workspace, kind, "picto")
        given: dict[str, Any] = {
            "kind": kind,
            "name": NAME,
            "model": "picto",
            "data": str(workspace.root / "data"),
            "steps": 8,
        }
        given |= {"template": f"{kind}-bench", "preview_every": 0, "save_every": 4}
        settings = TrainSettings.from_dict({**given, "precision": precision, "device": bench.device})
        if not halves:
            return recipe.train(settings, workspace).adapter_path
        run = recipe.train(settings, workspace, [stop := _StopAt(4)], stop.stop).run_dir
        return recipe.resume(run, workspace=workspace).adapter_path

    found = {}
    for kind in ("embedding", "hypernetwork"):
        for precision in ("bf16",) if bench.cpu else ("fp32", "bf16", "fp16"):
            whole = _weights(kind, trained(kind, precision, False))
            halves = _weights(kind, trained(kind, precision, True))
            same = all(halves[name].equal(weight) for name, weight in whole.items())
            found[f"{kind} {precision}"] = same
    return found


def speed(family: str, precision: str) -> Callable[[Bench], Any]:
    """Steps per second of both kinds against the floors."""

    def measure(bench: Bench) -> Any:
        from bench.measure import Case, measure_speed

        found = []
        for kind in ("embedding", "hypernetwork"):
            case = Case(
                bench.model(family),
                kind,
                bench.side(family),
                batch_size=1,
                rounds=2 if bench.cpu else 4,
                steps=1 if bench.cpu else 6,
                warmup=1 if bench.cpu else 4,
                precision=precision,  # type: ignore[arg-type]
                device=bench.device,
                gradient_checkpointing=False,
            )
            found.append(measure_speed(case, bench.workspace(f"speed-{family}")))
        return found

    return measure


def memory(family: str) -> Callable[[Bench], Any]:
    """The predicted peak against what torch allocates, both kinds, with sets of what saves memory."""

    def measure(bench: Bench) -> Any:
        from bench import memory as peaks

        watch, rows = peaks.watch_cpu if bench.cpu else peaks.watch_cuda, []
        for kind in peaks.KINDS:
            for measures in SAVING[-1:] if bench.cpu else SAVING:
                given = {**measures, "device": bench.device, "preview_every": 3}
                workspace, side = bench.workspace(f"memory-{family}"), bench.side(family)
                found = peaks.compared(bench.model(family), kind, workspace, side, watch, **given)
                rows.append(peaks.described(family, side, kind, measures=measures, **found))
        return rows

    return measure


def card(family: str, gigabytes: int) -> Callable[[Bench], Any]:
    """A run by ``--vram auto`` on a card of so many gigabytes, which the allocator is held to."""

    def measure(bench: Bench) -> Any:
        import torch
        from bench.material import NAME, create_adapter

        from tincture import recipe
        from tincture.settings.train import TrainSettings

        if not bench.cpu:
            whole = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(gigabytes * 2**30 / whole)
        found = {}
        for kind in ("embedding", "hypernetwork"):
            workspace, side = bench.workspace(f"card-{family}"), bench.side(family)
            create_adapter(workspace, kind, bench.model(family))
            given: dict[str, Any] = {
                "kind": kind,
                "name": NAME,
                "model": bench.model(family),
                "data": str(workspace.root / "data"),
            }
            given |= {"template": f"{kind}-bench", "steps": 2, "width": side, "height": side, "preview_every": 2}
            settings = TrainSettings.from_dict(
                {**given, "preview_steps": 2, "device": bench.device, "vram": str(gigabytes)}
            )
            plan = recipe.plan(settings, workspace, "none")
            recipe.train(settings, workspace)
            peak = None if bench.cpu else torch.cuda.max_memory_allocated() / 2**20
            found[kind] = {
                "chosen": plan.get("chosen_for_memory"),
                "told_mib": plan["memory_mib"]["peak"],
                "peak_mib": peak,
            }
        return found

    return measure


PARTS: Mapping[str, tuple[float, Callable[[Bench], Any]]] = {
    "models": (110, write_models),
    "resume": (40, resume),
    "speed of sd1 in bf16": (45, speed("sd1", "bf16")),
    "speed of sd1 in fp16": (45, speed("sd1", "fp16")),
    "card of 4 GB, sd1": (40, card("sd1", 4)),
    "memory of sd1": (60, memory("sd1")),
    "demo": (90, demo),
    "speed of sdxl in bf16": (70, speed("sdxl", "bf16")),
    "card of 8 GB, sdxl": (60, card("sdxl", 8)),
    "speed of sdxl in fp16": (70, speed("sdxl", "fp16")),
    "memory of sdxl": (90, memory("sdxl")),
}
"""By name, seconds at most and what is done; what matters most comes first."""


class _StopAt:
    """Stops a run after a step."""

    def __init__(self, step: int) -> None:
        import threading

        self.step, self.stop = step, threading.Event()

    def on_event(self, event: Any) -> None:
        if type(event).__name__ == "StepEnd" and event.global_step >= self.step:
            self.stop.set()


def _weights(kind: str, path: Path) -> Mapping[str, Any]:
    from tincture.adapters.adapter import adapter_class
    from tincture.kinds.registry import find_kind

    return adapter_class(find_kind(kind)).load(path).state_dict()


# --- all of them ------------------------------------------------------------------------------------------------------


def run_part(name: str, bench: Bench) -> None:
    """In a process of its own; what was found goes into a file."""
    found = PARTS[name][1](bench)
    (bench.out / _RESULT.format(name)).write_text(json.dumps(found, default=str), encoding="utf-8")


def run_all(bench: Bench, whole: float = WHOLE) -> dict[str, Any]:
    """Every part within its limit and what is left of ``whole``; the results file is whole after each."""
    started, parts = time.monotonic(), dict[str, Any]()
    results: dict[str, Any] = {"date": datetime.date.today().isoformat(), "cpu": bench.cpu, "parts": parts}
    with (bench.out / "gpu.log").open("w", encoding="utf-8") as log:
        for name, (limit, _) in PARTS.items():
            began = time.monotonic()
            state = _child(name, bench, min(limit, whole - (began - started) / bench.patience) * bench.patience, log)
            part = bench.out / _RESULT.format(name)
            parts[name] = {"state": state, "seconds": round(time.monotonic() - began, 1)}
            if part.is_file():
                parts[name]["found"] = json.loads(part.read_text(encoding="utf-8"))
                part.unlink()
            (bench.out / "gpu.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            print(f"{name}: {state}, {parts[name]['seconds']} s", flush=True)
    shutil.rmtree(bench.out / _MATERIAL, ignore_errors=True)
    return results


def _child(name: str, bench: Bench, seconds: float, log: Any) -> str:
    """Runs a part; how it ended, in words."""
    if seconds < 1:
        return "left out: the time was up"
    log.write(f"\n=== {name}, {seconds:.0f} s at most\n")
    log.flush()
    command = [sys.executable, __file__, "--part", name, "--out", str(bench.out), *(["--cpu"] if bench.cpu else [])]
    with subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True) as process:
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with what it started
            return f"stopped after {seconds:.0f} s"
    return "done" if code == 0 else f"failed with {code}; see gpu.log"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu-out"))
    parser.add_argument("--cpu", action="store_true", help="tiny models on the processor")
    parser.add_argument("--part", choices=PARTS, help="one part, in this process")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(args.out.resolve(), args.cpu)
    sys.path.insert(0, str(ROOT))
    if args.part:
        run_part(args.part, bench)
        return 0
    results = run_all(bench)
    return 0 if all(part["state"] == "done" for part in results["parts"].values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
