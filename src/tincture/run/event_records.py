"""What happens in a run as records for programs: what a server's workers write of their jobs, and ``--events``.

A record is a JSON object on a line of its own, with ``time`` (seconds since 1970, UTC) and ``type``:

model      text
memory     text
stage      stage, done, total, step, steps, eta_s
prepared   run_dir
started    global_step, steps, samples, micro_batches_per_epoch
progress   global_step, steps, step_s, eta_s
steps      records [[global_step, epoch, epoch_step, loss, learning_rate], ...], steps, loss_mean, loss_error,
           recent_mean, recent_error, eta_s; a sixth number is the rate by an optimizer that finds its own;
           further {name: [one of each record]}: see ``events.StepRecord``
measured   global_step, step_s, pictures_per_s, memory, phases: see ``events.RunMeasured``
saved      global_step, path
validated  global_step, steps, loss, error, training_loss, training_error, best_step, best_loss
preview    global_step, paths, prompts
rolled_back  global_step, text: what was written of later steps does not count
remark     text
ended      state ("done", "stopped", "failed"), result or error and error_type; a worker's, its attempt too

``stage`` and ``progress`` come five times a second at most. A stage is over when ``done`` is ``total``. ``step_s`` are
seconds of a step, ``eta_s`` those that are left. Numbers that are not finite are null, and those that are not known.
docs/tracking.md says it for users.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tincture.events import (
    CheckpointSaved,
    Event,
    MemoryFitted,
    ModelLoaded,
    PreviewReady,
    Progressed,
    RolledBack,
    RunMeasured,
    RunPrepared,
    RunStarted,
    StepEnd,
    StepRecord,
    StepRejected,
    StepsDone,
    Validated,
)
from tincture.run.duration import TimeLeft

EventRecord = dict[str, Any]
GAP_S = 0.2
"""Seconds between two records of what changes often."""
RECORDS = 500
"""Steps in a record."""


class Moment(NamedTuple):
    """When something happened, in seconds since 1970, and what was known then of the time of a step and that left."""

    time: float
    step_s: float | None
    eta_s: float | None


Happened = tuple[Moment, Event | EventRecord]


def records_of(at: Moment, event: Event | EventRecord) -> Iterator[EventRecord]:
    """An event as it is written, without its time: one record, several, or none."""
    left = {"eta_s": at.eta_s}
    match event:
        case StepsDone():
            yield from ({**part, **left} for part in _steps(event))
        case StepEnd():
            numbers = {"global_step": event.global_step, "steps": event.steps, "step_s": at.step_s}
            yield {"type": "progress", **numbers, **left}
        case Progressed():
            yield {"type": "stage", **dataclasses.asdict(event), **left}
        case Event():
            if record := _plain(event):
                yield record
        case _:
            yield event


def joined(happened: Sequence[Happened]) -> list[Happened]:
    """The same, with the last of several numbers of one kind, and the losses of several readings in one."""
    found: list[Happened] = []
    seen: set[object] = set()
    records: tuple[Any, ...] = ()
    for _, event in happened:
        records += event.records if isinstance(event, StepsDone) else ()
    for at, event in reversed(happened):
        kind = _kind(event)
        if kind is not None and kind in seen:
            continue
        seen.add(kind)
        if isinstance(event, StepsDone):
            event = StepsDone(records, *(getattr(event, name) for name in ("steps", *_MEANS)))
        found.append((at, event))
    return found[::-1]


def _kind(event: Event | EventRecord) -> object:
    """Of events of one kind that come together, the last one says it all; None: each is written."""
    match event:
        case StepEnd() | StepsDone() | RunMeasured():
            return type(event)
        case Progressed():
            return event.stage
    return None


_MEANS = ("loss_mean", "loss_error", "recent_mean", "recent_error")


def _steps(event: StepsDone) -> Iterator[EventRecord]:
    """One or more records: a run that is seldom logged has many steps at a time."""
    means = {"steps": event.steps, **{name: getattr(event, name) for name in _MEANS}}
    for first in range(0, len(event.records), RECORDS):
        part = event.records[first : first + RECORDS]
        rows = [_row(each) for each in part]
        further = {name: [each.further.get(name) for each in part] for name in part[0].further}
        yield {"type": "steps", "records": rows, **({"further": further} if further else {}), **means}


def _row(record: StepRecord) -> list[float]:
    """Its numbers; that of an effective rate stands there only where it is another one."""
    numbers = [record.global_step, record.epoch, record.epoch_step, record.loss, record.learning_rate]
    return numbers if record.effective_rate is None else [*numbers, record.effective_rate]


def _plain(event: Event) -> EventRecord | None:
    match event:
        case StepRejected():
            return {"type": "remark", "text": event.description}
        case RolledBack():
            return {"type": "rolled_back", "global_step": event.global_step, "text": event.description}
        case ModelLoaded():
            return {"type": "model", "text": event.description}
        case MemoryFitted():
            return {"type": "memory", "text": event.description}
        case RunPrepared():
            return {"type": "prepared", "run_dir": str(event.run_dir)}
        case RunStarted():
            numbers = ("global_step", "steps", "samples", "micro_batches_per_epoch")
            return {"type": "started", **{name: getattr(event, name) for name in numbers}}
        case RunMeasured():
            return {"type": "measured", **dataclasses.asdict(event)}
        case CheckpointSaved():
            return {"type": "saved", "global_step": event.global_step, "path": str(event.path)}
        case Validated():
            return {"type": "validated", **dataclasses.asdict(event)}
        case PreviewReady():
            paths, prompts = [str(path) for path in event.paths], list(event.prompts)
            return {"type": "preview", "global_step": event.global_step, "paths": paths, "prompts": prompts}
    return None


def finite(value: Any) -> Any:
    """The same value with None for every number that JSON has not."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value


class EventLines:
    """A watcher of a run that writes a line of JSON for each record, as it happens.

    Args:
        write: called with each line, its end among it.
        clock: seconds since anything, which never go back.
    """

    def __init__(self, write: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._write, self._clock = write, clock
        self._time_left = TimeLeft(clock)
        self._written_at: dict[type[Event], float] = {}

    def on_event(self, event: Event) -> None:
        self._time_left.on_event(event)
        under_way = isinstance(event, Progressed) and not event.over and bool(event.done or event.step)
        often = under_way or isinstance(event, StepEnd)
        now = self._clock()
        if often and now - self._written_at.get(type(event), -math.inf) < GAP_S:
            return
        self._written_at[type(event)] = now
        left = self._time_left.seconds()
        at = Moment(time.time(), self._time_left.step_s, None if left is None else round(left, 1))
        for record in records_of(at, event):
            self.add(record, at.time)

    def add(self, record: EventRecord, at: float | None = None) -> None:
        """Writes a record of what is no event; ``at``: seconds since 1970, None: now."""
        stamped = {"time": round(time.time() if at is None else at, 3), **finite(record)}
        self._write(json.dumps(stamped, ensure_ascii=False, allow_nan=False) + "\n")
