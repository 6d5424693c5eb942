"""How many times the steps of one process several make, each with one thread, on a model where arithmetic dominates.

    python bench/processes.py           # 1, 2 and 4 processes, five rounds; JSON on standard output
    python bench/processes.py --quick   # two short rounds: to see that it works

Every round trains a new adapter with each number of processes by turns, so that what changes on the machine meanwhile
meets all alike. The time of a step is taken from the first steps' end on: start-up, encoding and saving stand apart.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench import machine  # noqa: E402
from bench.material import NAME, create_adapter, make_workspace  # noqa: E402
from bench.measure import Kind, spread  # noqa: E402

from tincture import recipe  # noqa: E402
from tincture.events import Event, StepEnd  # noqa: E402
from tincture.settings.train import TrainSettings  # noqa: E402
from tincture.workspace import Workspace  # noqa: E402

COUNTS = (1, 2, 4)
BATCH, PICTURES, SIZE = 8, 16, 128
"""Pictures of twice picto's own side, eight in a step: what a step exchanges is small beside what it computes."""
GOAL = 1.6
"""Times the steps of one process that two make on two cores."""


class Pace:
    """Steps per second behind the first ``warmup`` steps of a run."""

    def __init__(self, warmup: int) -> None:
        self.warmup, self.steps, self.began, self.ended = warmup, 0, 0.0, 0.0

    def on_event(self, event: Event) -> None:
        if isinstance(event, StepEnd):
            self.ended = time.perf_counter()
            if event.global_step == self.warmup:
                self.began = self.ended
            self.steps = event.global_step - self.warmup

    @property
    def rate(self) -> float:
        return self.steps / (self.ended - self.began)


def settings(kind: Kind, workspace: Workspace, model: str, processes: int, steps: int) -> TrainSettings:
    """One run as a user would give it; nothing is saved or drawn in between."""
    return TrainSettings(
        kind=kind,
        name=NAME,
        model=model,
        data=str(workspace.root / "data"),
        width=SIZE,
        height=SIZE,
        template=f"{kind}-bench",
        steps=steps,
        batch_size=BATCH,
        device="cpu",
        precision="fp32",
        threads=1,
        processes=str(processes),
        save_every=0,
        preview_every=0,
    )


def measure(kind: Kind, model: str, counts: Sequence[int], rounds: int, steps: int, warmup: int) -> dict[str, Any]:
    """Steps per second by number of processes, and by round the ratio to those of one."""
    rates: dict[int, list[float]] = {count: [] for count in counts}
    with tempfile.TemporaryDirectory(prefix="tincture-processes-") as folder:
        workspace = make_workspace(Path(folder) / "workspace", PICTURES)
        for _ in range(rounds):
            for count in counts:
                create_adapter(workspace, kind, model)
                pace = Pace(warmup)
                recipe.train(settings(kind, workspace, model, count, warmup + steps), workspace, [pace])
                rates[count].append(pace.rate)
    one = rates[counts[0]]
    ratios = {count: [rate / alone for rate, alone in zip(found, one, strict=True)] for count, found in rates.items()}
    return {
        "kind": kind,
        "batch_size": BATCH,
        "size": SIZE,
        "steps_per_second": {count: spread(found) for count, found in rates.items()},
        "times_one_process": {count: spread(found) for count, found in ratios.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two short rounds: to see that it works")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="picto", help="a diffusers folder in picto's place")
    parser.add_argument(
        "--counts", type=int, nargs="+", default=COUNTS, help="numbers of processes; the first counts 1"
    )
    given = parser.parse_args()
    rounds, steps, warmup = (2, 3, 1) if given.quick else (given.rounds, 12, 3)
    kinds: tuple[Kind, ...] = ("embedding", "hypernetwork")
    found = [measure(kind, given.model, given.counts, rounds, steps, warmup) for kind in kinds]
    results = {**machine.commit(), "machine": machine.describe(), "goal_of_two": GOAL, "processes": found}
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
