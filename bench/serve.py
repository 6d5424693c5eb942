"""What following costs a training, and how late those who follow see it; see docs/performance.md.

python bench/serve.py          into bench/results
python bench/serve.py --quick  fewer rounds: to see that it works

Two comparisons, each between things that take turns in one run: within one training, steps with and without the
worker's reporter; and whole trainings, by ``recipe.train`` in a process of its own and by a job of the queue. Delays
are from the end of a step to the moment when another process reads it from the job's events, and from the queue.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench import machine  # noqa: E402
from bench.material import NAME, create_adapter, make_workspace  # noqa: E402
from bench.measure import Kind, spread  # noqa: E402

from tincture import recipe  # noqa: E402
from tincture.events import Event, StepEnd, StepsDone  # noqa: E402
from tincture.server.queue.event_file import Reporter  # noqa: E402
from tincture.server.queue.folder import JobFolder  # noqa: E402
from tincture.server.queue.jobs import FINISHED, Job, JobState  # noqa: E402
from tincture.server.queue.store import JobStore  # noqa: E402
from tincture.server.queue.supervisor import Supervisor  # noqa: E402
from tincture.server.queue.worker_process import DeviceWorkers  # noqa: E402
from tincture.settings.train import TrainSettings  # noqa: E402
from tincture.workspace import Workspace  # noqa: E402

RESULTS = ROOT / "bench" / "results"
PICTURES, WARMUP = 16, 16
EVERY_S = 0.005
"""Seconds between two looks of the one who follows."""
KIND: Kind = "hypernetwork"


def settings(workspace: Workspace, model: str, steps: int) -> TrainSettings:
    """A run in which nothing is saved or previewed in between."""
    return TrainSettings(
        kind=KIND,
        name=NAME,
        model=model,
        data=str(workspace.root / "data"),
        template=f"{KIND}-bench",
        steps=steps,
        device="cpu",
        save_every=0,
        preview_every=0,
    )


class Turns:
    """A callback that passes the events of every second round on to a reporter, and times all rounds.

    Attributes:
        seconds: per step, of the rounds without (0) and with (1) it.
        ended: by step, when it ended, in seconds since 1970; of the rounds with it.
    """

    def __init__(self, reporter: Reporter, steps: int) -> None:
        self.reporter, self.steps = reporter, steps
        self.seconds: tuple[list[float], list[float]] = ([], [])
        self.ended: dict[int, float] = {}
        self._began = 0.0

    def on_event(self, event: Event) -> None:
        if not isinstance(event, StepEnd | StepsDone):
            return
        done = event.global_step - WARMUP
        told = done > 0 and (done - 1) // self.steps % 2 == 1
        if told and isinstance(event, StepEnd):
            self.ended[event.global_step] = time.time()
        if told:
            self.reporter.on_event(event)
        if isinstance(event, StepsDone):
            return
        if done > 0 and done % self.steps == 0:
            self.seconds[told].append((time.perf_counter() - self._began) / self.steps)
        if done >= 0 and done % self.steps == 0:
            self._began = time.perf_counter()


def train_in_turns(workspace: Workspace, model: str, rounds: int, steps: int, folder: Path) -> dict[str, Any]:
    """One training whose steps are told in every second round; for a process of its own."""
    create_adapter(workspace, KIND, model)
    reporter = Reporter(JobFolder(folder))
    turns = Turns(reporter, steps)
    recipe.train(settings(workspace, model, WARMUP + 2 * rounds * steps), workspace, [turns])
    reporter.end({"attempt": 1, "state": "done", "result": {}})
    return {"seconds": turns.seconds, "ended": turns.ended}


def train_directly(workspace: Workspace, model: str, steps: int) -> dict[str, Any]:
    """One training by the library alone, with the time at which each step ended; for a process of its own."""
    ended: dict[int, float] = {}

    class Note:
        def on_event(self, event: Event) -> None:
            if isinstance(event, StepEnd):
                ended[event.global_step] = time.time()

    create_adapter(workspace, KIND, model)
    recipe.train(settings(workspace, model, steps), workspace, [Note()])
    return {"ended": ended}


def in_process(function: str, *arguments: Any, while_it_runs: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """What one of the functions above returns, called in a process of its own."""
    given = [str(argument) for argument in arguments]
    command = [sys.executable, __file__, "--call", function, *given]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            while_it_runs()
            time.sleep(EVERY_S)
        assert process.stdout
        if process.returncode:
            raise RuntimeError(f"{function} failed")
        found: dict[str, Any] = json.loads(process.stdout.read().splitlines()[-1])
        return found


def measure_reporter(workspace: Workspace, model: str, rounds: int, steps: int, folder: Path) -> dict[str, Any]:
    """Steps with and without the reporter, in turn; how late another process sees those that are told."""
    folder.mkdir()
    following, offset = JobFolder(folder), 0
    seen: list[tuple[float, int]] = []

    def look() -> None:
        nonlocal offset
        events, offset = following.read_from(offset)
        seen.extend((time.time(), event["global_step"]) for event in events if event["type"] == "progress")

    found = in_process("train_in_turns", workspace.root, model, rounds, steps, folder, while_it_runs=look)
    look()
    without, told = found["seconds"]
    delays = [next(at for at, step in seen if step >= int(number)) - ended for number, ended in found["ended"].items()]
    return {
        "seconds_per_step": {"without": spread(without), "with": spread(told)},
        "ratio": spread([one / other for one, other in zip(told, without, strict=True)]),
        "delay_s": {**spread(delays), "95 %": sorted(delays)[int(0.95 * (len(delays) - 1))], "steps": len(delays)},
        "all_rounds": {"without": without, "with": told},
    }


def measure_jobs(workspace: Workspace, model: str, rounds: int, steps: int) -> dict[str, Any]:
    """Whole trainings, directly and as jobs, in turn; how late the queue's row of a job tells its steps."""
    results: list[dict[str, float]] = []
    delays: list[float] = []
    for number in range(rounds):
        create_adapter(workspace, KIND, model)
        events, late = run_job(workspace, model, steps, workspace.root / f"state{number}")
        progress = [event for event in events if event["type"] == "progress" and event["global_step"] >= WARMUP]
        first, last = progress[0], progress[-1]
        ended = in_process("train_directly", workspace.root, model, steps)["ended"]
        span = last["global_step"] - first["global_step"]
        direct = (ended[str(last["global_step"])] - ended[str(first["global_step"])]) / span
        results.append({"job": (last["time"] - first["time"]) / span, "directly": direct})
        delays += late
    return {
        "seconds_per_step": {name: spread([each[name] for each in results]) for name in ("directly", "job")},
        "ratio": spread([each["job"] / each["directly"] for each in results]),
        "delay_s": {**spread(delays), "steps": len(delays)},
        "all_rounds": results,
    }


def run_job(workspace: Workspace, model: str, steps: int, state: Path) -> tuple[Sequence[dict[str, Any]], list[float]]:
    """The events of a training that the queue runs, and how late each of its ``progress`` stands in the queue."""
    store = JobStore(state / "jobs.sqlite3")
    store.add(Job(id="one", kind="train", name=NAME, settings=settings(workspace, model, steps).to_dict()))
    supervisor = Supervisor(store, state / "jobs", workspace, DeviceWorkers(workspace.root, ["cpu"]))
    seen: list[tuple[float, int]] = []
    supervisor.start()
    with contextlib.closing(supervisor):
        while (job := store.get("one")).state not in FINISHED:
            if job.steps and (not seen or job.global_step > seen[-1][1]):
                seen.append((time.time(), job.global_step))
            time.sleep(EVERY_S)
    if job.state is not JobState.DONE:
        raise RuntimeError(f"The job failed: {job.error}")
    events = supervisor.folder("one").events()
    told = [(event["time"], event["global_step"]) for event in events if event["type"] == "progress"]
    late = [next((at for at, step in seen if step >= number), None) for _, number in told]
    return events, [at - when for at, (when, _) in zip(late, told, strict=True) if at is not None]


def tables(results: dict[str, Any]) -> str:
    """As Markdown: median (least to greatest)."""

    def row(name: str, found: dict[str, float], unit: str) -> str:
        return f"| {name} | {found['median']:.4g} ({found['min']:.4g} to {found['max']:.4g}) {unit} |"

    reporter, jobs = results["reporter"], results["jobs"]
    lines = [
        f"{results['date']}, commit {str(results['commit'])[:10]}{' with changes' if results['changed'] else ''}, "
        f"{results['machine']['cpu']}, {results['machine']['cores']} cores, {results['machine']['threads']} threads, "
        f"load before the start {results['machine']['load_before']}.\n",
        "| What | median (least to greatest) |\n| --- | --- |",
        row("A step of one training, nobody told", reporter["seconds_per_step"]["without"], "s"),
        row("A step of the same, told by the worker's reporter", reporter["seconds_per_step"]["with"], "s"),
        row("Ratio, round by round", reporter["ratio"], ""),
        row("A step of a training by recipe.train", jobs["seconds_per_step"]["directly"], "s"),
        row("A step of a job", jobs["seconds_per_step"]["job"], "s"),
        row("Ratio, training by training", jobs["ratio"], ""),
        row("From the end of a step to its event in another process", reporter["delay_s"], "s"),
        row("From the end of a step to the job's row in the queue", jobs["delay_s"], "s"),
    ]
    return "\n".join(lines)


def call(function: str, arguments: Sequence[str]) -> dict[str, Any]:
    """One of the functions above, in this process."""
    workspace, model, *numbers = arguments
    if function == "train_directly":
        return train_directly(Workspace(Path(workspace)), model, int(numbers[0]))
    rounds, steps, folder = numbers
    return train_in_turns(Workspace(Path(workspace)), model, int(rounds), int(steps), Path(folder))


def measure(root: Path, model: str, quick: bool, trainings: int) -> dict[str, Any]:
    """Everything that a results file holds."""
    head = {"date": datetime.date.today().isoformat(), **machine.commit(), "machine": machine.describe()}
    workspace = make_workspace(root / "workspace", PICTURES)
    rounds, steps = (3, 10) if quick else (25, 40)
    reporter = measure_reporter(workspace, model, rounds, steps, root / "job")
    rounds, steps = (1, 60) if quick else (trainings, 400)
    return {
        **head,
        "model": Path(model).name,
        "reporter": reporter,
        "jobs": measure_jobs(workspace, model, rounds, steps),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few short rounds: to see that it works")
    parser.add_argument("--trainings", type=int, default=7, help="directly and as jobs, so many of each (default 7)")
    parser.add_argument("--model", default="picto", help="a diffusers folder in picto's place")
    parser.add_argument("--out", type=Path, help="the results file")
    parser.add_argument("--call", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.call:
        print(json.dumps(call(args.call[0], args.call[1:])))
        return
    with tempfile.TemporaryDirectory(prefix="tincture-bench-") as root:
        results = measure(Path(root), args.model, args.quick, args.trainings)
    path = args.out or RESULTS / f"{results['date']}-serve.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(tables(results))


if __name__ == "__main__":
    main()
