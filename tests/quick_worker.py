"""Stands in for the worker of jobs: tells what a training tells and draws previews, but computes nothing.

    python quick_worker.py PACE JOB_FOLDER

PACE is the seconds that a step takes. The setting ``author`` says how the job ends: ``fails``, or ``dies`` without a
word; ``draws`` previews after step 2 until it is stopped; else it is done after ``steps``. It stops after a step when
standard input says so or ends, and can go on then.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from PIL import Image

from tincture.formats.files import write_text
from tincture.run.preview_request import take_request
from tincture.server.queue.event_file import EventFile


def main(pace_s: float, folder: Path) -> int:
    task = json.loads((folder / "job.json").read_text())
    settings, stop = task["settings"], threading.Event()
    threading.Thread(target=_listen, args=[stop], daemon=True).start()
    events = EventFile(folder / "events.jsonl")
    own = Path(task["root"]) / "textual_inversion" / "2026-11-21" / folder.name  # where previews are given out from
    trial = _run_of_sweep(task)
    run_dir = trial / "run" if trial else Path(task["run_dir"] or own)
    (run_dir / "images").mkdir(parents=True, exist_ok=True)
    done = int((run_dir / "state.txt").read_text()) if (run_dir / "state.txt").exists() else 0
    steps = settings.get("steps", 3)
    until = json.loads((trial / "task.json").read_text())["until"] if trial else None
    print("nothing is trained here", flush=True)
    if settings.get("author") == "dies":
        os._exit(9)
    about = {"global_step": done, "steps": steps, "samples": 4, "micro_batches_per_epoch": 4}
    _tell(events, {"type": "prepared", "run_dir": str(run_dir)}, {"type": "started", **about})
    while done < (until or steps) and not stop.is_set():
        done += 1
        (run_dir / "state.txt").write_text(str(done))
        record = [done, (done - 1) // 4, (done - 1) % 4, 1 / done, 0.005]
        told: dict[str, Any] = {"type": "steps", "records": [record], "steps": steps, "loss_mean": 1 / done}
        told |= {"loss_error": 0.01, "recent_mean": 1 / done, "recent_error": 0.01, "eta_s": (steps - done) * pace_s}
        _tell(events, {"type": "progress", "global_step": done, "steps": steps}, told)
        if settings.get("author") == "draws" and done == 2:
            at = {"stage": "drawing previews", "done": 1, "total": 4, "step": 3, "steps": 20}
            _tell(events, {"type": "stage", **at, "eta_s": 75.0})
            stop.wait()
        asked = take_request(run_dir)
        if asked or (settings.get("preview_every") and done % settings["preview_every"] == 0):
            _tell(events, _preview(run_dir / "images", settings, done))
        time.sleep(pace_s)
    ended = _ended(settings, run_dir, done, stop.is_set() and done < steps)
    if ended["state"] != "failed" and settings.get("kind") == "embedding":
        path = Path(task["root"]) / "embeddings" / f"{settings['name']}.pt"
        write_text(path, f"trained {done} steps")  # at once, as a training does: another request may look for it
        ended["result"]["adapter_path"] = str(path)
        _tell(events, {"type": "saved", "global_step": done, "path": str(path)})
    if trial:
        _note_in_sweep(trial, settings, done, until, steps)
    _tell(events, {"type": "ended", "attempt": task["attempt"], **ended})
    return {"done": 0, "stopped": 130}.get(ended["state"], 1)


def _run_of_sweep(task: dict[str, Any]) -> Path | None:
    """The folder of the run of a sweep that the job is."""
    name, _, run = task.get("sweep", "").partition("/")
    return Path(task["root"]) / "sweeps" / name / "trials" / run if name else None


def _note_in_sweep(trial: Path, settings: dict[str, Any], done: int, until: int | None, steps: int) -> None:
    """What a run of a sweep leaves in its folder; its loss is its rate."""
    with (trial / "jobs").open("a") as file:
        file.write(f"{done}\n")
    (trial / "progress.json").write_text(json.dumps({"global_step": done, "steps": steps}))
    if settings.get("author") != "fails" and done >= (until or steps):
        shown = {"global_step": done, "train_loss": float(settings["learning_rate"]), "interrupted": done < steps}
        (trial / f"result-{until if until and done < steps else 'end'}.json").write_text(json.dumps(shown))


def _ended(settings: dict[str, Any], run_dir: Path, done: int, stopped: bool) -> dict[str, Any]:
    if settings.get("author") == "fails":
        return {"state": "failed", "error": "The data is odd.", "error_type": "DataError"}
    if "destination" in settings:
        folder = Path(settings["destination"])
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / "crop.png")
        return {"state": "done", "result": {"destination": str(folder), "seconds": 0.1}}
    result = {"adapter_path": f"{settings.get('name')}.pt", "run_dir": str(run_dir), "global_step": done, "loss": 0.1}
    return {"state": "stopped" if stopped else "done", "result": {**result, "interrupted": stopped, "seconds": 0.1}}


def _preview(folder: Path, settings: dict[str, Any], step: int) -> dict[str, Any]:
    name = settings["name"]
    prompts = settings.get("preview_prompts") or [f"a photo of {name}", f"a picture of {name}"]
    paths = [folder / f"{name}-{step}-{index}.png" for index in range(len(prompts))]
    for path in (*paths, folder / "contact-sheet.png"):
        Image.new("RGB", (8, 8), (step % 256, 0, 0)).save(path)
    return {"type": "preview", "global_step": step, "paths": [str(path) for path in paths], "prompts": prompts}


def _tell(events: EventFile, *told: dict[str, Any]) -> None:
    events.write([{"time": time.time(), **event} for event in told])


def _listen(stop: threading.Event) -> None:
    while line := os.read(0, 4096):
        if b"stop" in line or b"finish" in line:
            break
    stop.set()


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), Path(sys.argv[2])))
