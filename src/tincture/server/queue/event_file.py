"""What a worker reports to those who follow its job: lines in ``events.jsonl``, written by a thread of their own.

Every line, an event record, is a JSON object with its number ``n`` (1, 2, ...), ``time`` (seconds since 1970) and
``type``:

model      text
memory     text
stage      stage, done, total, step, steps, eta_s
prepared   run_dir
started    global_step, steps, samples, micro_batches_per_epoch
progress   global_step, steps, step_s, eta_s
steps      records [[global_step, epoch, epoch_step, loss, learning_rate], ...], steps, loss_mean, loss_error,
           recent_mean, recent_error, eta_s; a sixth number is the rate by an optimizer that finds its own;
           further {name: [one of each record]}: see ``events.StepRecord``
saved      global_step, path
validated  global_step, steps, loss, error, training_loss, training_error, best_step, best_loss
preview    global_step, paths, prompts
remark     text
ended      attempt, state ("done", "stopped", "failed"), result or error and error_type

``stage`` and ``progress`` come five times a second at most. A stage is over when ``done`` is ``total``. ``step_s`` are
seconds of a step, ``eta_s`` those that are left. Numbers that are not finite are null, and those that are not known.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tincture.events import (
    CheckpointSaved,
    Event,
    MemoryFitted,
    ModelLoaded,
    PreviewReady,
    Progressed,
    RolledBack,
    RunPrepared,
    RunStarted,
    StepEnd,
    StepRecord,
    StepRejected,
    StepsDone,
    Validated,
)
from tincture.formats.temporary_file import sync
from tincture.run.duration import TimeLeft
from tincture.run.lines import Lines
from tincture.server.queue.folder import JobFolder
from tincture.server.queue.history import EventRecord

GAP_S = 0.2
"""Seconds between two writings: what happened is visible that long afterwards at most."""
END_TRIES, END_PAUSE_S = 30, 1.0
"""How often, and every how many seconds, a full disk is asked again to take how it ended."""
RECORDS = 500
"""Steps in a line."""
MOST_WAITING = 10_000
"""Lines that wait for room on the disk; of more, the latest."""


class EventFile:
    """Appends to the events of a job, behind those of earlier attempts; what a power cut left half-written goes."""

    def __init__(self, path: Path) -> None:
        self._number, self._end = JobFolder(path.parent).last()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.ftruncate(self._file, self._end)
        self._waiting: deque[bytes] = deque(maxlen=MOST_WAITING)

    def write(self, records: Iterable[EventRecord], *, durably: bool = False) -> None:
        """Writes records, each with its ``time`` and ``type``. A full disk makes them wait for the next time.

        Args:
            records: what to write.
            durably: wait until it is on the disk.
        """
        for record in records:
            self._number += 1
            self._waiting.append(json.dumps({"n": self._number, **_finite(record)}, allow_nan=False).encode() + b"\n")
        content = b"".join(self._waiting)
        try:
            written = os.pwrite(self._file, content, self._end)
            if written < len(content):
                raise OSError("the disk is full")
            if durably:
                sync(self._file)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._end)  # nobody reads half a line as a whole one
            return
        self._end += len(content)
        self._waiting.clear()

    @property
    def held_back(self) -> bool:
        """Whether the disk has not taken everything yet."""
        return bool(self._waiting)

    def close(self) -> None:
        os.close(self._file)


class Reporter:
    """A watcher of a run. The run's thread only puts values into memory; another one makes lines of them."""

    def __init__(self, folder: JobFolder, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = EventFile(folder.event_file)
        self._happened: deque[_Happened] = deque()
        self._woken, self._closing = threading.Event(), threading.Event()
        self._time_left = TimeLeft(clock)
        self._lines = Lines(_print, self._time_left)
        self._thread = threading.Thread(target=self._write_always, name="events", daemon=True)
        self._thread.start()

    def on_event(self, event: Event) -> None:
        """Notes an event; takes microseconds."""
        self._time_left.on_event(event)
        # The model itself is not held.
        self._put(ModelLoaded(event.description) if isinstance(event, ModelLoaded) else event)

    def remark(self, text: str) -> None:
        """Notes a sentence about what is odd."""
        self._put({"type": "remark", "text": text})

    def end(self, ended: EventRecord) -> None:
        """Writes what is left, and at last how it ended, for which it waits a while if the disk is full."""
        self._closing.set()
        self._woken.set()
        self._thread.join()
        self._put({"type": "ended", **ended})
        self._write()
        for _ in range(END_TRIES):
            if not self._file.held_back:
                break
            time.sleep(END_PAUSE_S)
            self._file.write([], durably=True)
        self._file.close()

    def _put(self, event: Event | EventRecord) -> None:
        left = self._time_left.seconds()
        now = _Moment(time.time(), self._time_left.step_s, None if left is None else round(left, 1))
        self._happened.append((now, event))
        if not self._woken.is_set():
            self._woken.set()

    def _write_always(self) -> None:
        while not self._closing.is_set():
            self._woken.wait()
            self._woken.clear()
            try:
                self._write()
            except Exception:
                with contextlib.suppress(OSError):
                    traceback.print_exc()  # into the log: a training does not end for want of a line
            self._closing.wait(GAP_S)
        self._write()

    def _write(self) -> None:
        happened = [self._happened.popleft() for _ in range(len(self._happened))]
        joined = _joined(happened)
        records = [{"time": round(at.time, 3), **record} for at, event in joined for record in _records(at, event)]
        if records:
            self._file.write(records, durably=any(each["type"] in ("prepared", "ended") for each in records))
        for _, event in joined:
            if isinstance(event, Event):
                self._lines.on_event(event)
            else:
                _print(_own_sentence(event))


class _Moment(NamedTuple):
    """When something happened, in seconds since 1970, and what was known then of the time of a step and that left."""

    time: float
    step_s: float | None
    eta_s: float | None


_Happened = tuple[_Moment, Event | EventRecord]


def _records(at: _Moment, event: Event | EventRecord) -> Iterator[EventRecord]:
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


def _joined(happened: Sequence[_Happened]) -> list[_Happened]:
    """The same, with the last of several numbers of one kind, and the losses of several readings in one."""
    joined: list[_Happened] = []
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
        joined.append((at, event))
    return joined[::-1]


def _kind(event: Event | EventRecord) -> object:
    """Of events of one kind that come together, the last one says it all; None: each is written."""
    match event:
        case StepEnd() | StepsDone():
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
        case CheckpointSaved():
            return {"type": "saved", "global_step": event.global_step, "path": str(event.path)}
        case Validated():
            return {"type": "validated", **dataclasses.asdict(event)}
        case PreviewReady():
            paths, prompts = [str(path) for path in event.paths], list(event.prompts)
            return {"type": "preview", "global_step": event.global_step, "paths": paths, "prompts": prompts}
    return None


def _own_sentence(record: EventRecord) -> str:
    """What the worker itself reports, for people."""
    if record["type"] == "remark":
        return str(record["text"])
    if record["state"] == "failed":
        return f"failed: {record['error']}"
    return ": ".join(text for text in (record["state"], record.get("result", {}).get("ending")) if text)


def _finite(value: Any) -> Any:
    """The same value with None for every number that JSON has not."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value


def _print(line: str) -> None:
    """Into the log, for people; its disk may be full."""
    with contextlib.suppress(OSError):
        print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
