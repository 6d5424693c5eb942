"""What jobs told so far, kept in memory for those that watch: each event is read once, however many watch."""

from __future__ import annotations

import bisect
import math
import re
import threading
from array import array
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tincture.server.job_folder import JobFolder

MOST_JOBS = 16
"""Jobs whose traces are kept; the one that was asked for longest ago leaves first."""
RECENT_S = 30.0


@dataclass(frozen=True)
class Trace:
    """What a job told until now.

    Attributes:
        global_step, loss, learning_rate: one entry per step, (n,); a loss that was not finite is NaN.
        epoch: of the last step, from 0; None before there is one.
        speed: steps a second, of late; None until it is known.
        previews: by step, ascending: the pictures of that step, one per prompt.
        model: what the model is, in one line.
        remarks: sentences that the run told on its way.
        loss_mean, loss_error: over the window, None until it is known.
    """

    global_step: NDArray[np.float64]
    loss: NDArray[np.float64]
    learning_rate: NDArray[np.float64]
    epoch: int | None = None
    speed: float | None = None
    previews: Mapping[int, tuple[Path, ...]] = field(default_factory=dict)
    model: str = ""
    remarks: tuple[str, ...] = ()
    loss_mean: float | None = None
    loss_error: float | None = None


class Traces:
    """Reads on in the folders of jobs as they are asked for; may be called from any thread.

    Args:
        folder: of a job by its id.
    """

    def __init__(self, folder: Callable[[str], JobFolder]) -> None:
        self._folder = folder
        self._readers: OrderedDict[str, _Reader] = OrderedDict()
        self._lock = threading.Lock()

    def trace(self, job_id: str) -> Trace:
        """What the job told until now; empty for one that has not begun."""
        with self._lock:
            reader = self._readers.pop(job_id, None) or _Reader()
            self._readers[job_id] = reader
            while len(self._readers) > MOST_JOBS:
                self._readers.popitem(last=False)
            reader.catch_up(self._folder(job_id))
            return reader.trace()


def log_tail(folder: JobFolder, most: int) -> str:
    """The last whole lines of a job's log, ``most`` bytes at most; of a line that was written over, its last state."""
    try:
        size = folder.log_file.stat().st_size
    except OSError:
        return ""
    text, _ = folder.log(max(0, size - most))
    whole = text if size <= most else text.partition("\n")[2]
    return re.sub(r"^[^\n]*\r(?!\n)", "", whole, flags=re.MULTILINE)


class _Reader:
    def __init__(self) -> None:
        self.offset = 0
        self.steps, self.losses, self.rates = array("d"), array("d"), array("d")
        self.told: dict[str, Any] = {}
        self.previews: dict[int, tuple[Path, ...]] = {}
        self.remarks: list[str] = []
        self.pace: deque[tuple[float, int]] = deque()

    def catch_up(self, folder: JobFolder) -> None:
        while True:
            events, offset = folder.read_from(self.offset)
            for event in events:
                self.take(event)
            if offset == self.offset:
                return
            self.offset = offset

    def take(self, event: Mapping[str, Any]) -> None:
        kind = event.get("type")
        if kind == "steps":
            for record in event["records"]:
                self._record(*record)
            self.told |= {key: event.get(key) for key in ("loss_mean", "loss_error")}
        elif kind == "started":
            self.pace.clear()
            self._forget_after(int(event["global_step"]))
        elif kind == "progress":
            self._pace(float(event["time"]), int(event["global_step"]))
        elif kind == "preview":
            self.previews[int(event["global_step"])] = tuple(Path(path) for path in event["paths"])
        elif kind == "model":
            self.told["model"] = str(event["text"])
        elif kind in ("remark", "memory"):
            self.remarks.append(str(event["text"]))

    def _record(self, step: float, epoch: int, _: int, loss: float | None, rate: float | None) -> None:
        self._forget_after(step - 1)
        self.steps.append(step)
        self.losses.append(math.nan if loss is None else loss)
        self.rates.append(math.nan if rate is None else rate)
        self.told["epoch"] = epoch

    def _forget_after(self, step: float) -> None:
        """A run that goes on may do its last steps again."""
        kept = bisect.bisect_right(self.steps, step)
        for values in (self.steps, self.losses, self.rates):
            del values[kept:]

    def _pace(self, now: float, step: int) -> None:
        self.pace.append((now, step))
        while len(self.pace) > 2 and now - self.pace[0][0] > RECENT_S:
            self.pace.popleft()

    def trace(self) -> Trace:
        speed = None
        if len(self.pace) > 1:
            (start, first), (end, last) = self.pace[0], self.pace[-1]
            speed = (last - first) / (end - start) if end > start and last > first else None
        steps, losses, rates = (np.array(values, dtype=np.float64) for values in (self.steps, self.losses, self.rates))
        previews = dict(sorted(self.previews.items()))
        return Trace(steps, losses, rates, speed=speed, previews=previews, remarks=tuple(self.remarks), **self.told)
