"""Sweeps for tests: on the tiny model, with runs that are done in this process, or not at all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.runs import Bench
from tincture.errors import TinctureError
from tincture.events import Callback
from tincture.sweeps.executor import Ended
from tincture.sweeps.search import Search
from tincture.sweeps.sweep_folder import SweepFolder, make_sweep
from tincture.sweeps.trial import perform


def given(bench: Bench, kind: str = "embedding", **more: Any) -> dict[str, Any]:
    """What a sweep's file says: a run of the bench, and what varies."""
    keys = {key: more.pop(key) for key in list(more) if key not in KEYS}
    run = bench.settings(kind, **keys).to_dict()
    usual = bench.settings(kind).__class__.from_dict({"kind": kind, "name": run["name"], "data": "d"}).to_dict()
    needed = ("kind", "name", "data", "model")
    return {"run": {key: value for key, value in run.items() if key in needed or usual[key] != value}, **more}


KEYS = ("name", "grid", "points", "random", "halving", "seeds", "metric", "oracle", "create")


def made(bench: Bench, name: str = "try", kind: str = "embedding", **more: Any) -> SweepFolder:
    return make_sweep(given(bench, kind, **more), bench.workspace, name)


class Inline:
    """An executor that does each run when it is waited for.

    Args:
        watchers: more watchers of every run.
    """

    def __init__(self, sweep: SweepFolder, slots: int = 1, watchers: Sequence[Callback] = ()) -> None:
        self.sweep, self.slots, self.watchers = sweep, slots, watchers
        self.asked: list[tuple[str, int | None]] = []
        self.stopping = threading.Event()
        self._waiting: list[str] = []

    def submit(self, name: str, until: int | None) -> None:
        assert len(self._waiting) < self.slots
        self.asked.append((name, until))
        self.sweep.trial(name).ask(until)
        self._waiting.append(name)

    def wait(self, seconds: float) -> list[Ended]:
        name = self._waiting.pop(0)
        folder = self.sweep.trial(name)
        try:
            perform(folder, self.watchers, self.stopping)
        except TinctureError as error:
            folder.note_failure(str(error))
        return [Ended(name)]

    def stop(self) -> None:
        self.stopping.set()


class Pretended:
    """An executor whose runs compute nothing: ``losses`` gives the loss of a run by its values and step.

    Attributes:
        asked: every run that was asked for, and until when.
    """

    def __init__(self, sweep: SweepFolder, losses: Callable[[Mapping[str, Any], int], Any], slots: int = 2) -> None:
        self.sweep, self.losses, self.slots = sweep, losses, slots
        self.asked: list[tuple[str, int | None]] = []
        self._waiting: list[tuple[str, int | None]] = []

    def submit(self, name: str, until: int | None) -> None:
        assert len(self._waiting) < self.slots
        self.asked.append((name, until))
        self._waiting.append((name, until))

    def wait(self, seconds: float) -> list[Ended]:
        name, until = self._waiting.pop(0)
        trial = next(each for each in self.sweep.trials() if each.name == name)
        step = until or trial.train_settings().steps
        loss = self.losses(trial.values, step)
        if isinstance(loss, str):
            self.sweep.trial(name).note_failure(loss)
        elif loss is not None:
            shown = {"global_step": step, "train_loss": loss, "interrupted": until is not None, "seconds": 1.0}
            self.sweep.trial(name).note_progress({"global_step": step, "steps": step})
            self.sweep.trial(name).note_result(until, shown)
        return [Ended(name, "Its process ended by signal 9.")]

    def stop(self) -> None:
        pass


def search(sweep: SweepFolder, executor: Any, stop: threading.Event | None = None) -> bool:
    return Search(sweep, executor, lambda running: None, stop or threading.Event()).run()
