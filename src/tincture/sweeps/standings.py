"""How the runs of a sweep stand, and which go on at a rung: read from what they wrote, so the same at each reading."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tincture.sweeps.points import Trial, varied
from tincture.sweeps.sweep_file import METRICS, Fields
from tincture.sweeps.sweep_folder import SweepFolder

DONE, FAILED, STOPPED, RUNNING, WAITING = "done", "failed", "stopped", "running", "waiting"


@dataclass(frozen=True)
class Row:
    """One run in the table.

    Attributes:
        trial: the run.
        state: ``done``, ``failed``, ``stopped`` at a rung, ``running`` or ``waiting``.
        result: what came of it so far, see ``trial.perform``; empty before its first rung.
        progress: how far it is, see ``TrialFolder.progress``.
        error: the sentence with which it failed.
    """

    trial: Trial
    state: str
    result: Fields = field(default_factory=dict)
    progress: Fields = field(default_factory=dict)
    error: str = ""

    @property
    def global_step(self) -> int:
        return max(int(self.result.get("global_step") or 0), int(self.progress.get("global_step") or 0))


def value_of(result: Mapping[str, Any], metric: str) -> float | None:
    """Its value of the metric; None where there is none that is finite."""
    value = result.get(metric)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def rungs_of(source: Mapping[str, Any]) -> list[int | None]:
    """The steps at which runs are compared, and None for their end."""
    return [*source.get("halving", {}).get("rungs", []), None]


def climbing(sweep: SweepFolder, trials: Sequence[Trial], until: int | None) -> list[Trial]:
    """Runs that are to be brought to a rung (None: the end): those that none before it has stopped.

    All results of earlier rungs that are to be there must be there.
    """
    source, left = sweep.source, list(trials)
    for rung in rungs_of(source):
        if rung == until:
            break
        left = _better_part(sweep, left, rung)
    return left


def _better_part(sweep: SweepFolder, trials: Sequence[Trial], rung: int | None) -> list[Trial]:
    """Of the points that came to a rung, the best part, all their runs; a point is ranked by the mean of its seeds."""
    factor = float(sweep.source["halving"].get("factor", 2))
    results = {trial.name: sweep.trial(trial.name).result(rung) for trial in trials}
    metric = sweep.metric
    by_point: dict[int, list[float | None]] = {}
    for trial in trials:
        by_point.setdefault(trial.point, []).append(value_of(results[trial.name] or {}, metric))
    means = {
        point: statistics.fmean(value for value in values if value is not None) * -METRICS[metric]
        for point, values in by_point.items()
        if all(value is not None for value in values)
    }
    best = sorted(means, key=lambda point: (means[point], point))[: max(1, math.ceil(len(by_point) / factor))]
    return [trial for trial in trials if trial.point in best]


def rows_of(sweep: SweepFolder, running: Iterable[str] | None = None, *, live: bool | None = None) -> list[Row]:
    """All runs in order.

    Args:
        running: names of those at which something works; None: those that are further than their latest result may be.
        live: whether something works at the sweep; None: it is found out.
    """
    trials, found = sweep.trials(), []
    live = (sweep.is_held() if running is None else True) if live is None else live
    ended = _stopped(sweep, trials)
    for trial in trials:
        folder = sweep.trial(trial.name)
        result, progress, error = folder.latest() or {}, folder.progress(), folder.failure()
        begun = bool(progress) and live and int(progress.get("global_step") or 0) > int(result.get("global_step") or -1)
        begun = begun if running is None else trial.name in running
        state = FAILED if error else DONE if result and folder.result(None) else ""
        state = state or (STOPPED if trial.name in ended else RUNNING if begun else WAITING)
        found.append(Row(trial, state, result, progress, error))
    return found


def _stopped(sweep: SweepFolder, trials: Sequence[Trial]) -> set[str]:
    """Names of those that a rung has stopped."""
    left, stopped = list(trials), set()
    for rung in rungs_of(sweep.source)[:-1]:
        if not all(sweep.trial(trial.name).result(rung) or sweep.trial(trial.name).failure() for trial in left):
            break
        staying = _better_part(sweep, left, rung)
        stopped |= {trial.name for trial in left} - {trial.name for trial in staying}
        left = staying
    return stopped


def best_of(rows: Sequence[Row], metric: str) -> Row | None:
    """The run with the best value of the metric among those that are done; among all, where none is.

    Of equal ones, what else the oracle says decides, then the losses.
    """

    def rank(row: Row) -> tuple[Any, ...]:
        losses = [value_of(row.result, name) for name in ("validation_loss", "train_loss")]
        shares = [-(value_of(row.result, name) or 0.0) for name in ("editability", "content")]
        return (*shares, *(math.inf if loss is None else loss for loss in losses), row.trial.name)

    for states in ((DONE,), (DONE, STOPPED, RUNNING, WAITING)):
        valued = [
            (value, row) for row in rows if row.state in states and (value := value_of(row.result, metric)) is not None
        ]
        if valued:
            return min(valued, key=lambda pair: (pair[0] * -METRICS[metric], *rank(pair[1])))[1]
    return None


# --- the table -------------------------------------------------------------------------------------------------------

JUDGED = ("fidelity", "editability", "style", "content")


def columns_of(sweep: SweepFolder, rows: Sequence[Row]) -> list[str]:
    """Keys of a row of the table, in order: what varies stands behind the run's name."""
    judged = [name for name in JUDGED if any(name in row.result for row in rows)]
    several = ["seed"] if any(row.trial.seed is not None for row in rows) and "seed" not in varied(sweep.source) else []
    losses = ["train_loss", "validation_loss"]
    return ["run", *varied(sweep.source), *several, "state", "step", *losses, *judged, "seconds", "file", "message"]


def cells_of(row: Row) -> Fields:
    """All that the table may have of a run."""
    result = row.result
    return {
        **row.trial.values,
        **({"seed": row.trial.seed} if row.trial.seed is not None else {}),
        "run": row.trial.name,
        "state": row.state,
        "step": row.global_step,
        **{name: result.get(name) for name in ("train_loss", "validation_loss", *JUDGED)},
        "seconds": result.get("seconds", row.progress.get("seconds")),
        "file": result.get("adapter_path", ""),
        "message": row.error or result.get("ending", ""),
    }
