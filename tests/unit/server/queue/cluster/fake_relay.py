"""Stands in for the relay of a job, which it does by itself: ``python -I -S fake_relay.py ADDRESS JOB_FOLDER``.

Of the job's settings, ``relay`` says what it notes before, and at the end when ``lost`` or ``no_room`` is among it: it
begins with nothing then. ``times`` says how often that is so. With ``dies``, a status, it ends so the first time.
Orders come as to a worker.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path

COMMAND = (sys.executable, "-I", "-S", __file__)


def main(folder: Path) -> None:
    settings = json.loads((folder / "job.json").read_text())["settings"]
    notes, times = settings.get("relay", {"node": "mars"}), settings.get("times", 10**6)
    began = len((folder / "notes").read_text()) if (folder / "notes").exists() else 0
    with (folder / "notes").open("a") as file:
        file.write(".")
    bad = {"lost", "no_room"} & notes.keys()
    if bad and began >= times:
        notes = {"node": "venus"}
        bad = set()
    (folder / "relay.json").write_text(json.dumps(notes))
    if bad or "status" in notes:
        sys.exit(75)
    if settings.get("dies") and not began:
        os._exit(settings["dies"]) if settings["dies"] > 0 else os.kill(os.getpid(), -settings["dies"])
    sys.argv = ["", str(folder)]
    runpy.run_path(str(Path(__file__).parents[2] / "fake_worker.py"), run_name="__main__")


if __name__ == "__main__":
    main(Path(sys.argv[-1]))
