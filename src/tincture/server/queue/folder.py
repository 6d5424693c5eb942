"""The folder of a job, ``jobs/ID/``, as those see it who follow the job.

job.json      what to do, written by the supervisor for every attempt
events.jsonl  what happened, a line each, written by the worker alone
log.txt       what the worker printed, for people
lock          held by the worker as long as it lives; has its process number

Of a job that a cluster does there are also:

relay.json    where it is done, and how its worker ended there; the lock is that of the server's own process for it
node-lock     held by the worker, on whatever machine of the cluster
"""

from __future__ import annotations

import codecs
import json
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tincture.errors import StorageError
from tincture.server.queue.history import EventRecord, History, Metric, Trace, Validation

MOST_BYTES = 4 * 2**20
"""Read at a time; who follows asks again."""
_TAIL = 64 * 2**10


class JobFolder:
    """Reads what a job wrote. Nothing here needs to be there yet, and what is half-written is left for later.

    An instance may be kept and used from any thread: it then reads only what is new.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._history = History()
        self._read_to = 0
        self._lock = threading.Lock()

    @property
    def task(self) -> Path:
        return self.path / "job.json"

    @property
    def event_file(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def log_file(self) -> Path:
        return self.path / "log.txt"

    @property
    def lock_file(self) -> Path:
        return self.path / "lock"

    @property
    def node_lock_file(self) -> Path:
        return self.path / "node-lock"

    @property
    def relay_file(self) -> Path:
        return self.path / "relay.json"

    def events(self, since: int = 0) -> list[EventRecord]:
        """The events with a number ``n`` above ``since``, oldest first; see ``worker`` for what there are."""
        size = _size(self.event_file)
        start = 0 if since <= 0 else max(0, size - _TAIL)
        while True:
            found = [event for event, _ in _lines(_read(self.event_file, start, size - start), whole=start == 0)]
            if start == 0 or (found and found[0]["n"] <= since + 1):
                return [event for event in found if event["n"] > since]
            start = max(0, size - 4 * (size - start))

    def read_from(self, offset: int, most: int = MOST_BYTES) -> tuple[list[EventRecord], int]:
        """The events behind byte ``offset`` and the offset to go on from; cheap if there is none.

        About ``most`` bytes are read, and at least one event. What is damaged at the end is not passed by: a worker
        that goes on with the file cuts it off.
        """
        while True:
            content = _read(self.event_file, offset, most)
            parsed = list(_lines(content))
            if parsed or len(content) < most:
                return [event for event, _ in parsed], offset + (parsed[-1][1] if parsed else 0)
            most *= 2  # a line that is longer

    def metrics(self, since_step: int = 0, *, every: int = 1, most: int | None = None) -> list[Metric]:
        """One entry per step after ``since_step``: global_step, epoch, epoch_step, loss, learning_rate.

        Of each ``every`` steps the last, and the latest of all; of these the first ``most``. A loss that is not
        finite is None. Where a run went on from an earlier step, what followed that step before is left out, as in the
        run's own log.
        """
        with self._caught_up() as history:
            return history.after(since_step, every, most)

    def validations(self) -> tuple[Validation, ...]:
        """What was measured on pictures that are not trained, by step."""
        with self._caught_up() as history:
            return history.trace().validations

    def trace(self) -> Trace:
        """What the job reported until now; empty for one that has not begun."""
        with self._caught_up() as history:
            return history.trace()

    def log(self, since: int = 0) -> tuple[str, int]:
        """What was printed from byte ``since`` on, a megabyte at most, and the byte to go on from."""
        content = _read(self.log_file, since, 2**20)
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        text = decoder.decode(content)
        waiting, _ = decoder.getstate()  # of a character that is cut in two
        return text, since + len(content) - len(waiting)

    def log_tail(self, most: int) -> str:
        """The log's last whole lines, ``most`` bytes at most; of a line that was written over, its last state."""
        size = _size(self.log_file)
        text, _ = self.log(max(0, size - most))
        whole = text if size <= most else text.partition("\n")[2]
        return re.sub(r"^[^\n]*\r(?!\n)", "", whole, flags=re.MULTILINE)

    def last_lines(self, count: int = 5) -> list[str]:
        """The last lines of the log that are not empty."""
        content = _read(self.log_file, max(0, _size(self.log_file) - 4096), 4096)
        return [line.strip() for line in content.decode(errors="replace").splitlines() if line.strip()][-count:]

    def previews(self) -> list[Path]:
        """Preview pictures that are there, oldest first."""
        with self._caught_up() as history:
            drawn = list(dict.fromkeys(path for _, paths in history.previews for path in paths))
        return [path for path in map(Path, drawn) if path.is_file()]

    def run_dir(self) -> str | None:
        """The run's folder that the job reported last."""
        with self._caught_up() as history:
            return history.run_dir

    def ended(self, attempt: int) -> EventRecord | None:
        """How that attempt ended, if it came to say so."""
        size = _size(self.event_file)
        start = max(0, size - _TAIL)
        for event, _ in _lines(_read(self.event_file, start, _TAIL), whole=start == 0):
            if event["type"] == "ended" and event.get("attempt") == attempt:
                return event
        return None

    def last(self) -> tuple[int, int]:
        """The number of the last event and the byte where its line ends; 0 and 0 when there is none."""
        size, reach = _size(self.event_file), _TAIL
        while True:
            start = max(0, size - reach)
            found = list(_lines(_read(self.event_file, start, size - start), whole=start == 0))
            if found:
                return found[-1][0]["n"], start + found[-1][1]
            if start == 0:
                return 0, 0
            reach *= 4

    def remove(self) -> None:
        """Deletes the folder with all that is in it; StorageError."""
        try:
            shutil.rmtree(self.path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(f"The folder {self.path} could not be deleted: {error.strerror or error}.") from error

    @contextmanager
    def _caught_up(self) -> Iterator[History]:
        """What all events say together, those that came since the last time among them."""
        with self._lock:
            while True:
                events, offset = self.read_from(self._read_to)
                for event in events:
                    with suppress(LookupError, TypeError, ValueError, OverflowError):  # spoiled, and JSON all the same
                        self._history.add(event)
                if offset == self._read_to:
                    break
                self._read_to = offset
            yield self._history


def _lines(content: bytes, whole: bool = True) -> Iterator[tuple[EventRecord, int]]:
    """The events in ``content``, each with the byte where its line ends.

    A last line without its end is left out, and so is a damaged one, as a power cut may leave it. Unless it is
    ``whole``, the content begins within a line.
    """
    end = 0
    for line in content.split(b"\n")[:-1]:
        end += len(line) + 1
        if not whole and end == len(line) + 1:
            continue
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and isinstance(event.get("n"), int) and isinstance(event.get("type"), str):
            yield event, end


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise StorageError(f"{path} could not be read: {error.strerror or error}.") from error


def _read(path: Path, offset: int, most: int) -> bytes:
    """At most ``most`` bytes behind ``offset``; none where there is no file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, offset))
            return file.read(most)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise StorageError(f"{path} could not be read: {error.strerror or error}.") from error
