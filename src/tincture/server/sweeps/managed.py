"""The sweeps of a server: made, watched, stopped and gone on with. All methods may be called from any thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tincture.errors import BusyError, FileFormatError, TinctureError, UsageError
from tincture.formats.files import write_text
from tincture.server.errors import ConflictError, NotFoundError
from tincture.server.queue.queue import JobQueue
from tincture.server.requests.places import Places
from tincture.server.sweeps.queued import QueuedRuns
from tincture.sweeps.points import learns
from tincture.sweeps.search import Search
from tincture.sweeps.standings import Row, rows_of
from tincture.sweeps.sweep_faults import ModelOf
from tincture.sweeps.sweep_folder import RECORD, SweepFolder, find_sweep, list_sweeps, make_sweep
from tincture.sweeps.sweep_report import described, report_html, write_reports
from tincture.workspace import clean_name

GOES_ON = "server.txt"
"""In a sweep's folder while a server works at it, with who asked: it goes on when the server starts again."""
MOST_LISTED = 200
MOST_AT_ONCE = 16
WAITING = 2
"""Runs of a sweep in the queue for each device: one that goes on, and one that waits, so that others get their turn."""

logger = logging.getLogger(__name__)


@dataclass
class _Work:
    thread: threading.Thread
    stop: threading.Event = field(default_factory=threading.Event)
    error: str = ""


class Sweeps:
    """Sweeps whose runs are jobs of the queue.

    Args:
        queue: of the server.
        places: which paths requests may name, and the workspace.
        devices: how many jobs of trainings go on at a time.
        default_model: gives the model of a sweep that names none, by the file of its adapter.
    """

    def __init__(self, queue: JobQueue, places: Places, devices: int, default_model: ModelOf) -> None:
        self._queue, self._places, self._devices, self._default_model = queue, places, devices, default_model
        self._workspace = places.workspace
        self._closing, self._lock = threading.Event(), threading.Lock()
        self._works: dict[str, _Work] = {}

    def start(self) -> None:
        """Lets sweeps go on at which a server worked when it ended."""
        for sweep in list_sweeps(self._workspace):
            marker = sweep.path / GOES_ON
            if marker.exists():
                self._begin(sweep, marker.read_text(encoding="utf-8").strip() or "api")

    def close(self) -> None:
        """Ends the work at all sweeps; their jobs are the queue's, and they go on at the next start."""
        self._closing.set()
        for work in list(self._works.values()):
            work.stop.set()
            work.thread.join()

    def create(self, given: Mapping[str, Any], source: str = "api") -> dict[str, Any]:
        """Makes a sweep and begins it; see ``sweep_file`` for what may be given.

        Raises:
            UsageError: something in it is not allowed, all in one message.
            ConflictError: there is a sweep of this name, or too many go on.
        """
        name = clean_name(str(given.get("name") or "sweep"))
        if (self._workspace.sweeps / name / RECORD).exists():
            raise ConflictError(f"There is a sweep {name!r} already; go on with it, or give this one another `name`.")
        self._refuse_many()
        sweep = make_sweep(
            given,
            self._workspace,
            name,
            place=self._places.train_settings,
            cwd=self._workspace.root,
            model_of=self._default_model,
        )
        self._begin(sweep, source)
        return self.shown(name)

    def listed(self) -> list[dict[str, Any]]:
        """Name, state, metric, counts and best run of each, the latest first."""
        return [self._summary(sweep) for sweep in list_sweeps(self._workspace)[:MOST_LISTED]]

    def names(self) -> list[str]:
        """The names of all, the latest first."""
        found = [(record.stat().st_mtime, record.parent.name) for record in self._workspace.sweeps.glob(f"*/{RECORD}")]
        return [name for _, name in sorted(found, reverse=True)[:MOST_LISTED]]

    def shown(self, name: str) -> dict[str, Any]:
        """The same of one, with its table; NotFoundError."""
        return self._described(self.find(name))

    def find(self, name: str) -> SweepFolder:
        """The folder of the sweep; NotFoundError."""
        try:
            return find_sweep(self._workspace, name)
        except (UsageError, FileFormatError) as error:
            raise NotFoundError(error.sentence) from None

    def stop(self, name: str) -> dict[str, Any]:
        """Lets its runs save and end, and begins no other; ConflictError where nothing works at it."""
        sweep = self.find(name)
        work = self._works.get(sweep.name)
        if work is None or not work.thread.is_alive():
            raise ConflictError(f"Nothing works at the sweep {sweep.name!r} here.")
        (sweep.path / GOES_ON).unlink(missing_ok=True)
        work.stop.set()
        return self._described(sweep)

    def resume(self, name: str, *, retry: bool = False, source: str = "api") -> dict[str, Any]:
        """Goes on with it; ``retry``: with runs that failed, too.

        Raises:
            NotFoundError: there is none of this name.
            ConflictError: something works at it, or it was begun elsewhere.
        """
        sweep = self.find(name)
        if sweep.cwd != self._workspace.root:
            raise ConflictError(
                f"The sweep {sweep.name!r} was begun by tincture sweep in {sweep.cwd}; go on with it there."
            )
        if self._is_live(sweep):
            raise ConflictError(f"Something works at the sweep {sweep.name!r} already.")
        self._refuse_many()
        for trial in sweep.trials() if retry else ():
            sweep.trial(trial.name).forget_failure()
        self._begin(sweep, source)
        return self._described(sweep)

    def report(self, name: str) -> str:
        """Its report as HTML, as it stands now; NotFoundError."""
        sweep = self.find(name)
        return report_html(sweep, self._rows(sweep))

    def _begin(self, sweep: SweepFolder, source: str) -> None:
        with self._lock:
            before = self._works.get(sweep.name)
            if before and before.thread.is_alive():
                raise ConflictError(f"Something works at the sweep {sweep.name!r} already.")
            write_text(sweep.path / GOES_ON, source + "\n")
            thread = threading.Thread(target=self._work, args=[sweep, source], name=f"sweep {sweep.name}", daemon=True)
            self._works[sweep.name] = _Work(thread)
            thread.start()

    def _work(self, sweep: SweepFolder, source: str) -> None:
        work = self._works[sweep.name]
        slots = self._devices if learns(sweep.source) else WAITING * self._devices
        runs = QueuedRuns(sweep, self._queue, slots, self._closing, source)
        try:
            with sweep.held():
                whole = Search(sweep, runs, lambda running: None, work.stop).run()
                write_reports(sweep, rows_of(sweep, ()))
            if whole:
                (sweep.path / GOES_ON).unlink(missing_ok=True)
        except TinctureError as error:
            work.error = str(error)
            if not isinstance(error, BusyError):
                logger.exception("The sweep %s could not go on", sweep.name)
        except Exception as error:
            work.error = f"An error that was not foreseen ({type(error).__name__}); the server's log says more."
            logger.exception("The sweep %s could not go on", sweep.name)

    def _described(self, sweep: SweepFolder) -> dict[str, Any]:
        found = described(sweep, self._rows(sweep))
        return {**found, "state": self._state(sweep, found["states"]), "error": self._error(sweep)}

    def _rows(self, sweep: SweepFolder) -> list[Row]:
        return rows_of(sweep, live=self._is_live(sweep))

    def _is_live(self, sweep: SweepFolder) -> bool:
        """Whether something works at it, here or elsewhere."""
        work = self._works.get(sweep.name)
        return (work is not None and work.thread.is_alive()) or sweep.is_held()

    def _summary(self, sweep: SweepFolder) -> dict[str, Any]:
        found = self._described(sweep)
        return {key: value for key, value in found.items() if key not in ("columns", "runs")}

    def _state(self, sweep: SweepFolder, states: Mapping[str, int]) -> str:
        if self._is_live(sweep):
            work = self._works.get(sweep.name)
            return "stopping" if work and work.stop.is_set() and not self._closing.is_set() else "running"
        return "stopped" if states.get("waiting") or states.get("running") else "done"

    def _error(self, sweep: SweepFolder) -> str:
        work = self._works.get(sweep.name)
        return work.error if work else ""

    def _refuse_many(self) -> None:
        if sum(work.thread.is_alive() for work in self._works.values()) >= MOST_AT_ONCE:
            raise ConflictError(f"{MOST_AT_ONCE} sweeps go on already; try again when one of them is done.")
