"""What a worker reports to those who follow its job: lines in ``events.jsonl``, written by a thread of their own.

Every line, an event record, has its number ``n`` (1, 2, ...) and what ``tincture.run.event_records`` says.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from tincture.events import Event, ModelLoaded
from tincture.formats.temporary_file import sync
from tincture.run.duration import TimeLeft
from tincture.run.event_records import GAP_S, EventRecord, Happened, Moment, finite, joined, records_of
from tincture.run.lines import Lines
from tincture.server.queue.folder import JobFolder

END_TRIES, END_PAUSE_S = 30, 1.0
"""How often, and every how many seconds, a full disk is asked again to take how it ended."""
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
            self._waiting.append(json.dumps({"n": self._number, **finite(record)}, allow_nan=False).encode() + b"\n")
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
        self._happened: deque[Happened] = deque()
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
        now = Moment(time.time(), self._time_left.step_s, None if left is None else round(left, 1))
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
        all_of_it = joined(happened)
        records = [{"time": round(at.time, 3), **record} for at, event in all_of_it for record in records_of(at, event)]
        if records:
            self._file.write(records, durably=any(each["type"] in ("prepared", "ended") for each in records))
        for _, event in all_of_it:
            if isinstance(event, Event):
                self._lines.on_event(event)
            else:
                _print(_own_sentence(event))


def _own_sentence(record: EventRecord) -> str:
    """What the worker itself reports, for people."""
    if record["type"] == "remark":
        return str(record["text"])
    if record["state"] == "failed":
        return f"failed: {record['error']}"
    return ": ".join(text for text in (record["state"], record.get("result", {}).get("ending")) if text)


def _print(line: str) -> None:
    """Into the log, for people; its disk may be full."""
    with contextlib.suppress(OSError):
        print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
