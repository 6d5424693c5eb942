"""How what a run, the queue and a sweep take grows with what they are given: little against much, in one go.

    python bench/growth.py                        all of it, into bench/results; about 20 minutes on two cores
    python bench/growth.py --parts vectors jobs   some of it
    python bench/growth.py --quick                small sizes: to see that it works

Runs are on picto, with one thread; nothing is saved or drawn. Each size has a process of its own, so that its peak
memory is its own, and sizes take turns over the rounds. ``start_s`` is from the call to the end of the first step.
"""

from __future__ import annotations

import argparse
import datetime
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from bench import machine  # noqa: E402
from bench.material import NAME, make_workspace  # noqa: E402
from bench.measure import spread  # noqa: E402
from PIL import Image  # noqa: E402

from tincture import recipe  # noqa: E402
from tincture.data.batches import BatchPlan  # noqa: E402
from tincture.events import Event, StepEnd, StepRecord, StepsDone  # noqa: E402
from tincture.run.event_records import Moment, records_of  # noqa: E402
from tincture.server.page.runs import view  # noqa: E402
from tincture.server.queue.event_file import EventFile  # noqa: E402
from tincture.server.queue.folder import JobFolder  # noqa: E402
from tincture.server.queue.jobs import Job, JobState  # noqa: E402
from tincture.server.queue.store import JobStore  # noqa: E402
from tincture.settings.train import TrainSettings  # noqa: E402
from tincture.sweeps.sweep_folder import make_sweep  # noqa: E402
from tincture.sweeps.sweep_report import write_reports  # noqa: E402
from tincture.training.metrics import CsvLog  # noqa: E402
from tincture.workspace import Workspace  # noqa: E402

RESULTS = ROOT / "bench" / "results"
WARMUP, STEPS, BATCH = 5, 40, 2
READ_AT_ONCE = 50
"""Steps whose losses a run reads together."""
Numbers = dict[str, float]


class Pace:
    """When the first step of a run ended, and how long those behind the warm-up took."""

    def __init__(self) -> None:
        self.began = self.first = self.warm = self.last = time.perf_counter()

    def on_event(self, event: Event) -> None:
        if isinstance(event, StepEnd):
            self.last = time.perf_counter()
            self.first = self.last if event.global_step == 1 else self.first
            self.warm = self.last if event.global_step == WARMUP else self.warm

    def numbers(self) -> Numbers:
        return {"start_s": self.first - self.began, "steps_per_s": STEPS / (self.last - self.warm)}


def train(workspace: Workspace, kind: str, **settings: Any) -> Numbers:
    """What a run of ``STEPS`` steps behind the warm-up takes."""
    pace, usual = Pace(), {"data": str(workspace.root / "data"), "batch_size": BATCH, "threads": 1, "device": "cpu"}
    quiet = {"save_every": 0, "preview_every": 0, "template": f"{kind}-bench", "precision": "fp32"}
    given = {"kind": kind, "name": NAME, "model": "picto", "steps": WARMUP + STEPS, **usual, **quiet, **settings}
    recipe.train(TrainSettings.from_dict(given), workspace, [pace])
    return pace.numbers()


# --- one process each: what the size is given to, and what came of it ------------------------------------------------


def pictures(size: int, root: Path) -> Numbers:
    """Data sets of that many pictures, whose latents a run before kept; the plan measures no times."""
    workspace, rng = make_workspace(root / "workspace", BATCH), np.random.default_rng(0)
    for number in range(size):
        colours = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(colours).resize((64, 64), Image.Resampling.BILINEAR)
        picture.save(workspace.root / "data" / f"made-{number:06}.png", compress_level=1)
    recipe.create_embedding(NAME, workspace=workspace, model="picto")
    kept = {"cache_dir": str(root / "latents")}
    train(workspace, "embedding", steps=1, **kept)
    recipe.create_embedding(NAME, workspace=workspace, model="picto", overwrite=True)
    began = time.perf_counter()
    settings = TrainSettings.from_dict(
        {"kind": "embedding", "name": NAME, "model": "picto", "data": str(workspace.root / "data"), **kept}
    )
    recipe.plan(settings, workspace, timing="none")
    return {"plan_s": time.perf_counter() - began, **train(workspace, "embedding", **kept)}


def vectors(size: int, root: Path) -> Numbers:
    """Embeddings of that many vectors."""
    workspace = make_workspace(root / "workspace", 8)
    recipe.create_embedding(NAME, workspace=workspace, model="picto", num_vectors=size)
    return train(workspace, "embedding")


def stacked(size: int, root: Path) -> Numbers:
    """That many hypernetworks one upon the other: the lowest is trained, the others are fixed."""
    workspace = make_workspace(root / "workspace", 8)
    for name in (NAME, *(f"fixed{number}" for number in range(1, size))):
        recipe.create_hypernetwork(name, workspace=workspace, model="picto", activation_func="relu")
    fixed = [f"hypernetwork:fixed{number}:0.1" for number in range(1, size)]
    return train(workspace, "hypernetwork", fixed_adapters=fixed)


def steps(size: int, root: Path) -> Numbers:
    """Records of a run of that many steps: written, read by the page, and drawn; the batches of its last steps."""
    folder, at = JobFolder(root), Moment(0.0, 0.1, 60.0)
    log, events = CsvLog(root / "log.csv", 0), EventFile(folder.event_file)
    for first in range(1, size + 1, READ_AT_ONCE):
        records = [StepRecord(at, at // 100, at % 100, 0.1, 0.005) for at in range(first, first + READ_AT_ONCE)]
        done = StepsDone(tuple(records), size, 0.1, 0.01, 0.1, 0.01)
        log.on_event(done)
        events.write({"time": 0.0, **record} for record in records_of(at, done))
    events.close()
    numbers = {"log_mib": _mib(root / "log.csv"), "events_mib": _mib(folder.event_file)}
    trace = timed(numbers, "read_first_s", folder.trace)
    timed(numbers, "read_again_s", folder.trace)
    drawn = timed(numbers, "draw_s", lambda: view.charts(trace, 0.6))
    plan = BatchPlan([(64, 64)] * 20, BATCH, seed=0)
    timed(numbers, "batches_s", lambda: [plan.step(step) for step in range(size, size + 1000)])
    return {**numbers, "drawn_kib": len(drawn) / 2**10}


def jobs(size: int, root: Path) -> Numbers:
    """A queue with that many jobs that ended."""
    numbers: Numbers = {}
    store, settings = JobStore(root / "queue.sqlite"), TrainSettings(kind="embedding", name=NAME, data="data").to_dict()
    for number in range(size):
        ended: dict[str, Any] = {"state": JobState.DONE, "created_at": float(number), "ended_at": float(number)}
        store.add(Job(id=f"{number:08}-job", kind="train", name=f"{NAME}{number}", settings=settings, **ended))
    listed = timed(numbers, "list_20_s", lambda: store.list(limit=20))
    timed(numbers, "search_s", lambda: store.list(limit=20, search=f"{NAME}{size // 2}"))
    timed(numbers, "counts_s", store.counts)
    timed(numbers, "claim_s", lambda: store.claim("cpu"))
    timed(numbers, "cards_s", lambda: view.cards(listed, ""))
    store.close()
    timed(numbers, "open_s", lambda: JobStore(root / "queue.sqlite").close())
    return numbers


def sweep(size: int, root: Path) -> Numbers:
    """A sweep of that many points, all of them done, each with a log of 1,000 steps and no previews."""
    workspace, numbers = make_workspace(root / "workspace", 4), Numbers()
    rates = [f"{0.001 * (1 + number):g}" for number in range(size)]
    run = {"kind": "embedding", "name": NAME, "model": "picto", "data": str(workspace.root / "data"), "steps": 1000}
    made = timed(
        numbers,
        "check_s",
        lambda: make_sweep(
            {"run": run, "create": {"num_vectors": 1}, "grid": {"learning_rate": rates}}, workspace, "growth"
        ),
    )
    for number, trial in enumerate(made.trials()):
        run_dir = root / "runs" / trial.name
        run_dir.mkdir(parents=True)
        records = tuple(StepRecord(step, 0, step, 1 / step + number, 0.005) for step in range(1, 1001))
        CsvLog(run_dir / "textual_inversion_loss.csv", 0).on_event(StepsDone(records, 1000, 0.1, 0.01, 0.1, 0.01))
        (run_dir / "run.json").write_text(json.dumps({"settings": {"kind": "embedding"}}))
        done = {"global_step": 1000, "train_loss": 0.1 + number, "run_dir": str(run_dir), "seconds": 10.0}
        made.trial(trial.name).note_result(None, done)
    written = timed(numbers, "report_s", lambda: write_reports(made))
    return {**numbers, "report_mib": _mib(written["html"])}


def timed(numbers: Numbers, name: str, work: Callable[[], Any]) -> Any:
    """What ``work`` returns; its seconds are noted."""
    began = time.perf_counter()
    done = work()
    numbers[name] = time.perf_counter() - began
    return done


def _mib(path: Path) -> float:
    return path.stat().st_size / 2**20


# --- all sizes, by turns ---------------------------------------------------------------------------------------------

PARTS: Mapping[str, tuple[Callable[[int, Path], Numbers], tuple[int, ...], tuple[int, ...], int]] = {
    "pictures": (pictures, (5, 500, 10_000, 50_000), (5, 50), 1),
    "vectors": (vectors, (1, 8, 75), (1, 75), 3),
    "stacked": (stacked, (1, 2, 4, 8), (1, 2), 3),
    "steps": (steps, (100, 10_000, 1_000_000), (100, 1000), 1),
    "jobs": (jobs, (10, 100, 1000), (10, 20), 3),
    "sweep": (sweep, (5, 50), (2, 4), 3),
}
"""What is measured, at which sizes, at which with --quick, and in how many rounds."""


def measure(part: str, quick: bool) -> dict[str, Any]:
    """By size, the spread of each number over the rounds."""
    _, usual, small, rounds = PARTS[part]
    sizes = small if quick else usual
    found: dict[int, list[Numbers]] = {size: [] for size in sizes}
    for _ in range(1 if quick else rounds):
        for size in sizes:
            found[size].append(alone(part, size))
    return {
        str(size): {name: spread([one[name] for one in numbers]) for name in numbers[0]}
        for size, numbers in found.items()
    }


def alone(part: str, size: int) -> Numbers:
    """The numbers of one size, measured in a process of its own."""
    command = [sys.executable, __file__, "--one", part, str(size)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def one(part: str, size: int) -> Numbers:
    """The numbers of one size, and the most memory that this process had."""
    with tempfile.TemporaryDirectory(prefix="tincture-growth-") as folder:
        numbers = PARTS[part][0](size, Path(folder))
    return {**numbers, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10}


def tables(results: Mapping[str, Any]) -> str:
    """As Markdown: medians, and the spread where there were several rounds."""
    lines = []
    for part, sizes in results["parts"].items():
        names = list(next(iter(sizes.values())))
        lines += ["", f"| {part} | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
        lines += [f"| {int(size):,} | {' | '.join(map(_cell, found.values()))} |" for size, found in sizes.items()]
    return "\n".join(lines)


def _cell(found: Mapping[str, float]) -> str:
    return f"{found['median']:.3g}" + (
        "" if found["min"] == found["max"] else f" ({found['min']:.3g} to {found['max']:.3g})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="small sizes: to see that it works")
    parser.add_argument("--out", type=Path, help="the results file")
    parser.add_argument("--one", nargs=2, metavar=("PART", "SIZE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one[0], int(given.one[1]))))
        return
    head = {"date": datetime.date.today().isoformat(), **machine.commit(), "machine": machine.describe()}
    results = {**head, "parts": {part: measure(part, given.quick) for part in given.parts}}
    if not given.quick or given.out:
        path = given.out or RESULTS / f"{head['date']}-growth.json"
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(tables(results))


if __name__ == "__main__":
    main()
