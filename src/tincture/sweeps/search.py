"""The course of a sweep: rung by rung, whatever is not done yet is given to an executor, until all is done.

Nothing is kept here that the sweep's folder does not hold: who calls ``Search.run`` again goes on where it stood.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable, Sequence
from typing import Any

from tincture.sweeps.executor import Ended, Executor
from tincture.sweeps.points import Trial, learns, options_of, trials_of
from tincture.sweeps.ranges import ask
from tincture.sweeps.standings import climbing, rows_of, rungs_of, value_of
from tincture.sweeps.sweep_file import METRICS
from tincture.sweeps.sweep_folder import SweepFolder

POLL_S = 0.5
MOST_ATTEMPTS = 3
"""Times that a run is begun whose process ends without a word and without a step of progress."""


class Search:
    """A sweep that goes on.

    Args:
        sweep: it must be held by the caller.
        executor: who does the runs.
        watch: called with the names of runs that are at work whenever something may have changed.
        stop: once set, runs are asked to save, and no other one begins.
    """

    def __init__(
        self,
        sweep: SweepFolder,
        executor: Executor,
        watch: Callable[[Sequence[str]], object],
        stop: threading.Event,
    ) -> None:
        self._sweep, self._executor, self._watch, self._stop = sweep, executor, watch, stop
        self._running: dict[str, int | None] = {}
        self._attempts: dict[str, tuple[int, int]] = {}  # by run: the step that it was at, and how often
        self._over: set[tuple[str, int | None]] = set()  # what was read once: results do not go away

    def run(self) -> bool:
        """Blocks until all is done; False where it was stopped before."""
        for rung in rungs_of(self._sweep.source):
            self._bring_to(rung)
            if self._stop.is_set():
                return False
        return True

    def _bring_to(self, rung: int | None) -> None:
        climbers = climbing(self._sweep, self._sweep.trials(), rung)
        while not (self._stop.is_set() and not self._running):
            waiting = [] if self._stop.is_set() else self._waiting(climbers, rung)
            for name in waiting[: self._executor.slots - len(self._running)]:
                self._running[name] = rung
                self._executor.submit(name, rung)
            if not self._running:
                break
            self._watch(list(self._running))
            for ended in self._executor.wait(POLL_S):
                self._note(ended, self._running.pop(ended.name))
            if self._stop.is_set():
                self._executor.stop()
        self._watch([])

    def _waiting(self, climbers: list[Trial], rung: int | None) -> list[str]:
        """Runs that are neither at the rung nor at work, in order; where points are chosen as it goes, one of those."""
        names = [trial.name for trial in climbers if trial.name not in self._running]
        names = [name for name in names if not self._is_over(name, rung)]
        if not names and learns(self._sweep.source) and len(self._running) < self._executor.slots:
            chosen = self._choose()
            climbers += chosen
            names = [trial.name for trial in chosen]
        return names

    def _is_over(self, name: str, rung: int | None) -> bool:
        folder = self._sweep.trial(name)
        if (name, rung) not in self._over and (folder.result(rung) or folder.failure()):
            self._over.add((name, rung))
        return (name, rung) in self._over

    def _note(self, ended: Ended, rung: int | None) -> None:
        """A run that has neither come to its rung nor failed was killed, and goes on, unless that leads nowhere."""
        folder = self._sweep.trial(ended.name)
        if folder.result(rung) or folder.failure() or self._stop.is_set():
            return
        step = int(folder.progress().get("global_step") or 0)
        before, times = self._attempts.get(ended.name, (-1, 0))
        times = 1 if step > before else times + 1
        self._attempts[ended.name] = step, times
        if times >= MOST_ATTEMPTS:
            folder.note_failure(ended.words or "It ended without saying why.")

    def _choose(self) -> list[Trial]:
        """The next point by what is known of those before; none once there are enough."""
        source, drawn = self._sweep.source, self._sweep.drawn()
        random: dict[str, Any] = source["random"]
        if len(drawn) >= random["trials"]:
            return []
        rows = rows_of(self._sweep, self._running)
        metric = self._sweep.metric
        values: list[float | None] = []
        for number in range(1, len(drawn) + 1):
            own = [value_of(row.result, metric) for row in rows if row.trial.point == number]
            sound = [value for value in own if value is not None]
            values.append(statistics.fmean(sound) if sound and len(sound) == len(own) else None)
        point = ask(
            random["ranges"],
            random.get("seed", 0),
            options_of(source),
            drawn,
            values,
            more_is_better=METRICS[metric] > 0,
        )
        if point is None:
            return []
        self._sweep.note_drawn([*drawn, point])
        return trials_of(source, [point], first=len(drawn) + 1)
