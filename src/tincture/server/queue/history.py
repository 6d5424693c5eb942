"""What a job reported so far, put together from its event records: for the API, for the page, for the supervisor."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_METRICS = ("global_step", "epoch", "epoch_step", "loss", "learning_rate", "effective_rate")

EventRecord = dict[str, Any]
"""An event as a line of JSON in a job's folder has it: see ``event_file``."""
Metric = dict[str, Any]


@dataclass(frozen=True)
class Validation:
    """What was measured at a step, as ``events.Validated`` has it; a number that is not finite is None."""

    global_step: int
    loss: float | None
    error: float | None
    training_loss: float | None
    training_error: float | None
    best_step: int | None
    best_loss: float | None


@dataclass(frozen=True)
class Trace:
    """What a job reported until now.

    Attributes:
        global_step, loss, learning_rate: one entry per step; a loss that was not finite is NaN.
        effective_rate: one per step too; NaN where it is ``learning_rate``.
        further: by name, one per step too, NaN where it is not known: see ``events.StepRecord``.
        epoch: of the last step, from 0; None before there is one.
        speed: steps a second, of late; None until it is known.
        previews: by step, ascending: the pictures of that step, one per prompt.
        prompts: of the pictures, in their order; workers of earlier versions did not report them.
        model: what the model is, in one line.
        remarks: sentences of the run on its way.
        loss_mean, loss_error: over the window, None until it is known.
        validations: by their steps, ascending.
        saved: files of the adapter that were written, with the step that each of them holds.
    """

    global_step: Sequence[float]
    loss: Sequence[float]
    learning_rate: Sequence[float]
    effective_rate: Sequence[float] = ()
    further: Mapping[str, Sequence[float]] = field(default_factory=dict)
    epoch: int | None = None
    speed: float | None = None
    previews: Mapping[int, tuple[Path, ...]] = field(default_factory=dict)
    prompts: tuple[str, ...] = ()
    model: str = ""
    remarks: tuple[str, ...] = ()
    loss_mean: float | None = None
    loss_error: float | None = None
    validations: tuple[Validation, ...] = ()
    saved: Mapping[Path, int] = field(default_factory=dict)


_MEASURED = tuple(field.name for field in dataclasses.fields(Validation))


class History:
    """Grows by event records. Losses lie in columns, since a long run has hundreds of thousands.

    Attributes:
        run_dir: the run's folder that was reported last.
        previews: steps and the pictures' paths, as they were reported; after a resume, a step may come again.
    """

    def __init__(self) -> None:
        self.run_dir: str | None = None
        self.previews: list[tuple[int, tuple[str, ...]]] = []
        self._columns = tuple(array("d") for _ in _METRICS)
        self._further: dict[str, array[float]] = {}
        self._latest: dict[str, Any] = {}
        self._remarks: list[str] = []
        self._validations: list[Validation] = []
        self._saved: dict[str, int] = {}

    def add(self, record: EventRecord) -> None:
        """Takes the next record; types that are not known are passed over."""
        match record["type"]:
            case "prepared":
                self.run_dir = record["run_dir"]
            case "model":
                self._latest["model"] = str(record["text"])
            case "remark" | "memory":
                self._remarks.append(str(record["text"]))
            case "started":
                self._latest.pop("speed", None)
                self._go_back(record["global_step"])
            case "rolled_back":
                self._remarks.append(str(record["text"]))
                self._go_back(record["global_step"])
                # Those of a run that goes on stay, since they are there until it draws them again.
                self.previews = [each for each in self.previews if each[0] <= record["global_step"]]
            case "progress":
                self._latest["speed"] = 1 / record["step_s"] if record.get("step_s") else None
            case "steps":
                further = record.get("further", {})
                for place, step in enumerate(record["records"]):
                    self._add_step(step, {name: values[place] for name, values in further.items()})
                self._latest |= {key: record.get(key) for key in ("loss_mean", "loss_error")}
            case "validated":
                # One that begins anew measures before it says that it started.
                self._validations = [each for each in self._validations if each.global_step < record["global_step"]]
                self._validations.append(Validation(**{name: record[name] for name in _MEASURED}))
            case "saved":
                self._saved[str(record["path"])] = int(record["global_step"])
            case "preview":
                self.previews.append((int(record["global_step"]), tuple(record["paths"])))
                self._latest["prompts"] = tuple(map(str, record.get("prompts", ())))

    def after(self, step: int, every: int, most: int | None) -> list[Metric]:
        """See ``JobFolder.metrics``."""
        steps = self._columns[0]
        rows = range(bisect.bisect_right(steps, step), len(steps))
        chosen = (row for row in rows if steps[row] % every == 0 or row == rows[-1])
        return [self._metric(row) for row in itertools.islice(chosen, most)]

    def trace(self) -> Trace:
        """A copy of it all: what is handed out stays as it is."""
        steps, epochs, _, losses, rates, effective = self._columns
        return Trace(
            *(steps[:], losses[:], rates[:], effective[:]),
            further={name: column[:] for name, column in self._further.items()},
            epoch=int(epochs[-1]) if epochs else None,
            previews={step: tuple(map(Path, paths)) for step, paths in sorted(dict(self.previews).items())},
            remarks=tuple(self._remarks),
            validations=tuple(self._validations),
            saved={Path(path): step for path, step in self._saved.items()},
            **self._latest,
        )

    def _metric(self, row: int) -> Metric:
        further = {name: column[row] for name, column in self._further.items() if not math.isnan(column[row])}
        return {**_metric([column[row] for column in self._columns]), **({"further": further} if further else {})}

    def _add_step(self, step: Sequence[float | None], further: Mapping[str, float | None]) -> None:
        values = [math.nan if value is None else float(value) for value in step]
        values += [math.nan] * (len(values) == len(self._columns) - 1)  # the rate is the one that was set
        if len(values) != len(self._columns):
            raise ValueError("a step has a number for each column")
        self._forget_after(values[0] - 1)
        for column, value in zip(self._columns, values, strict=True):
            column.append(value)
        before = len(self._columns[0]) - 1
        for name in further.keys() - self._further.keys():
            self._further[name] = array("d", [math.nan] * before)
        for name, column in self._further.items():
            found = further.get(name)
            column.append(math.nan if found is None else found)

    def _go_back(self, step: int) -> None:
        """What follows ``step`` comes again; what was measured at it is known before a run goes on."""
        self._forget_after(step)
        self._validations = [each for each in self._validations if each.global_step <= step]
        self._saved = {path: saved for path, saved in self._saved.items() if saved <= step}

    def _forget_after(self, step: float) -> None:
        """A run that goes on may do its last steps again."""
        steps = self._columns[0]
        if steps and steps[-1] > step:
            left = bisect.bisect_right(steps, step)
            for column in (*self._columns, *self._further.values()):
                del column[left:]


def _metric(row: Sequence[float]) -> Metric:
    *whole, loss, rate, effective = row
    values = (*map(int, whole), None if math.isnan(loss) else loss, rate, effective)
    metric = dict(zip(_METRICS, values, strict=True))
    return {name: value for name, value in metric.items() if name != "effective_rate" or not math.isnan(effective)}
