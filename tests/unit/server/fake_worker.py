"""A worker that starts at once and does what its job's settings say: ``python -I -S fake_worker.py JOB_FOLDER``.

``act`` is one of: done, fail, steps (tells some steps, then waits for an order, and ends as stopped), deaf (heeds no
order), leave (stops by itself the first time), exit (with ``status``), signal (gets ``number``), mute (ends without a
word).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-I", "-S", __file__)


class Fake:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.task: dict[str, Any] = json.loads((folder / "job.json").read_text())
        self.events = folder / "events.jsonl"

    def tell(self, kind: str, **fields: Any) -> None:
        number = len(self.events.read_bytes().splitlines()) if self.events.exists() else 0
        with self.events.open("a") as file:
            file.write(json.dumps({"n": number + 1, "time": 0.0, "type": kind, **fields}) + "\n")

    def end(self, state: str, **fields: Any) -> None:
        self.tell("ended", attempt=self.task["attempt"], state=state, **fields)

    def act(self) -> None:
        settings = self.task["settings"]
        with (self.folder.parent / "began").open("a") as file:
            file.write(f"{self.folder.name} {self.task['device']}\n")
        print("began", flush=True)
        getattr(self, settings["act"])(settings)

    def done(self, settings: dict[str, Any]) -> None:
        self.end("done", result={"global_step": 5, "run_dir": self.task["run_dir"]})

    def fail(self, settings: dict[str, Any]) -> None:
        self.end("failed", error="There are no pictures.", error_type="DataError")

    def steps(self, settings: dict[str, Any]) -> None:
        self.tell("stage", stage="latents", done=2, total=7)
        self.tell("prepared", run_dir=str(self.folder / "run"))
        self.tell("started", global_step=0, steps=9, samples=5, micro_batches_per_epoch=5)
        means = {"loss_mean": 0.25, "loss_error": 0.1, "recent_mean": 0.2, "recent_error": 0.1}
        self.tell("steps", records=[[1, 0, 0, 0.5, 0.01], [2, 0, 1, None, 0.02]], steps=9, eta_s=7.0, **means)
        self.tell("progress", global_step=3, steps=9)
        order = sys.stdin.readline().strip() or "nobody"
        result = {"global_step": 3, "order": order, "interrupted": True}
        self.end("stopped", result=result)

    def deaf(self, settings: dict[str, Any]) -> None:
        (self.folder / "deaf").touch()
        while True:
            os.read(0, 100) or __import__("time").sleep(1000)

    def exit(self, settings: dict[str, Any]) -> None:
        print("the last word", flush=True)
        sys.exit(settings["status"])

    def signal(self, settings: dict[str, Any]) -> None:
        print("no memory left", flush=True)
        os.kill(os.getpid(), settings["number"])

    def leave(self, settings: dict[str, Any]) -> None:
        self.end("done" if self.task["attempt"] > 1 else "stopped", result={})

    def mute(self, settings: dict[str, Any]) -> None:
        pass


if __name__ == "__main__":
    Fake(Path(sys.argv[1])).act()
