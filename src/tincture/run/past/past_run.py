"""What the folder of a run says of it: how it stands, how far it came, its losses, its previews.

Many are read at once, and some have millions of steps: of a large log, a few places are read.
"""

from __future__ import annotations

import functools
import json
import math
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from tincture.formats.file_lock import FileLock
from tincture.kinds.registry import find_kind, kind_names
from tincture.run.folder import RECORD, RUN_LOCK, VALIDATION_LOG

State = Literal["running", "done", "ended early", "stopped", "broken off"]
STATES: tuple[str, ...] = get_args(State)
MOST_COMPARED = 12
"""Runs that are compared at once."""
LAST_STEPS = 100
"""So many at most are the loss's mean taken over."""
_DEEPEST = 3
"""Folders of runs lie two below the logs, and these in the workspace."""
_WHOLE = 2**17
"""Bytes of a log that is read whole; of a longer one, a block at each of some places."""
_BLOCK = 2**12
_PREVIEW = re.compile(r".*-(\d{1,15})-(\d{1,6})", re.ASCII | re.DOTALL)


@dataclass(frozen=True)
class PastRun:
    """One run, read when it is asked for.

    Attributes:
        folder: the run's.
        id: DATE/NAME as far as it lies in the logs that were looked through, else the folder's path.
        record: what ``run.json`` says; ``settings`` is a mapping in it.
    """

    folder: Path
    id: str
    record: Mapping[str, Any]

    @property
    def settings(self) -> Mapping[str, Any]:
        """Fields of ``TrainSettings``."""
        found: Mapping[str, Any] = self.record["settings"]
        return found

    @property
    def name(self) -> str:
        """Of the adapter; empty where the record does not say it."""
        return str(self.settings.get("name") or "")

    @property
    def kind(self) -> str:
        """Of the adapter."""
        return str(self.settings.get("kind") or "")

    @property
    def model(self) -> str:
        """The base model's name, without the place where it lay."""
        return str(self.record.get("model_name") or Path(str(self.settings.get("model") or "")).name)

    @property
    def steps(self) -> int:
        """The step that it was to end at."""
        steps = self.settings.get("steps")
        return steps if isinstance(steps, int) else 0

    @functools.cached_property
    def state(self) -> State:
        """``broken off`` is one that neither ended nor goes on: it failed, or was killed."""
        ended = self.record.get("ended")
        if isinstance(ended, Mapping):
            return "stopped" if ended.get("interrupted") else "ended early" if ended.get("ending") else "done"
        lock = FileLock(self.folder / RUN_LOCK)
        if lock.path.exists() and not lock.take():
            return "running"
        lock.free()
        return "broken off"

    @functools.cached_property
    def written_at(self) -> float:
        """When the run last wrote its record or a state; seconds since 1970."""
        return written_at(self.folder)

    @functools.cached_property
    def global_step(self) -> int:
        """The last step that it is known to have made."""
        ended = self.record.get("ended")
        noted = ended.get("global_step") if isinstance(ended, Mapping) else None
        if isinstance(noted, int):
            return noted
        return max([0, *map(int, self._sampled[0][-1:]), *state_steps(self.folder)])

    @functools.cached_property
    def loss(self) -> float | None:
        """The mean over the last ``LAST_STEPS`` steps; None where none is written down."""
        finite = [loss for loss in self._sampled[1][-LAST_STEPS:] if math.isfinite(loss)]
        return sum(finite) / len(finite) if finite else None

    @functools.cached_property
    def best(self) -> tuple[int, float] | None:
        """The step whose validation loss is the lowest, and that; None without."""
        steps, losses = self.validations()
        found = [(loss, int(step)) for step, loss in zip(steps, losses, strict=True) if math.isfinite(loss)]
        return (min(found)[1], min(found)[0]) if found else None

    def curve(self, points: int) -> list[float]:
        """Means of the loss over ``points`` stretches of the run, fewer where it has fewer steps; none is left out."""
        steps, losses = self._sampled
        finite = [(step, loss) for step, loss in zip(steps, losses, strict=True) if math.isfinite(loss)]
        if not finite:
            return []
        first, last = finite[0][0], finite[-1][0]
        count = min(points, len(finite))
        width = (last - first + 1) / count
        stretches: list[list[float]] = [[] for _ in range(count)]
        for step, loss in finite:
            stretches[min(count - 1, int((step - first) / width))].append(loss)
        return [sum(stretch) / len(stretch) for stretch in stretches if stretch]

    def losses(self) -> dict[str, array[float]]:
        """``step``, ``loss`` and ``learn_rate`` of every step that its log has, in order; empty without a log."""
        return losses_in(self.folder, self.kind)

    def validations(self) -> tuple[array[float], array[float]]:
        """Steps and losses of what was measured on pictures that are not trained."""
        return validations_in(self.folder)

    @functools.cached_property
    def previews(self) -> dict[int, list[Path]]:
        """By step, ascending: pictures NAME-STEP-NUMBER.png in the order of their prompts."""
        return previews_in(self.folder / "images")

    @functools.cached_property
    def _sampled(self) -> tuple[array[float], array[float]]:
        steps, losses = _columns(_sample(_log(self.folder, self.kind)), (0, 3))
        return steps, losses


def read_run(folder: Path, logs: Path | None = None) -> PastRun | None:
    """The run in ``folder``; None where it holds none, or its record cannot be read."""
    record = read_loosely(folder)
    if record is None:
        return None
    within = logs is not None and folder.is_relative_to(logs)
    return PastRun(folder, folder.relative_to(logs).as_posix() if logs and within else str(folder), record)


def runs_in(logs: Path) -> list[PastRun]:
    """All runs below ``logs``, those that were written to last first."""
    found = (read_run(folder, logs) for folder in run_folders(logs))
    return [run for run in found if run is not None]


def run_folders(place: Path) -> Iterator[Path]:
    """Folders of runs inside another, those that were written to last first."""
    try:
        records = [record for depth in range(1, _DEEPEST + 1) for record in place.glob("*/" * depth + RECORD)]
    except OSError:
        return
    yield from sorted((record.parent for record in records), key=written_at, reverse=True)


def read_loosely(folder: Path) -> dict[str, Any] | None:
    """What ``run.json`` says, whatever became of its checksum; None where it does not hold settings."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("settings"), dict) else None


def written_at(folder: Path) -> float:
    """When a run last wrote its record or a state, seconds since 1970; 0 where it was deleted."""
    times = []
    for path in (folder / RECORD, *folder.glob("state/step-*.pt")):
        try:
            times.append(path.stat().st_mtime)
        except OSError:
            continue
    return max(times, default=0.0)


def state_steps(folder: Path) -> list[int]:
    """Steps of the states that a run could go on from."""
    names = (state.stem.removeprefix("step-") for state in folder.glob("state/step-*.pt"))
    return [int(step) for step in names if step.isdigit()]


def losses_in(folder: Path, kind: str) -> dict[str, array[float]]:
    """See ``PastRun.losses``."""
    names = ("step", "loss", "learn_rate")
    return dict(zip(names, _columns(_read(_log(folder, kind)), (0, 3, 4)), strict=True))


def validations_in(folder: Path) -> tuple[array[float], array[float]]:
    """See ``PastRun.validations``."""
    steps, losses = _columns(_read(folder / VALIDATION_LOG), (0, 1))
    return steps, losses


def previews_in(images: Path) -> dict[int, list[Path]]:
    """See ``PastRun.previews``."""
    by_step: dict[int, list[tuple[int, Path]]] = {}
    for path in images.glob("*.png") if images.is_dir() else ():
        if named := _PREVIEW.fullmatch(path.stem):
            by_step.setdefault(int(named[1]), []).append((int(named[2]), path))
    return {step: [path for _, path in sorted(found)] for step, found in sorted(by_step.items())}


def sparkline(values: Sequence[float], marks: str = "▁▂▃▄▅▆▇█") -> str:
    """One mark for each value, the highest for the largest."""
    if not values:
        return ""
    low, high = min(values), max(values)
    scale = (len(marks) - 1) / (high - low) if high > low else 0.0
    return "".join(marks[round((value - low) * scale)] for value in values)


def summary(run: PastRun, points: int = 0) -> dict[str, Any]:
    """A run as lists and programs have it; ``points``: of its ``curve``."""
    best = run.best
    return {
        "id": run.id,
        "folder": str(run.folder),
        "kind": run.kind,
        "name": run.name,
        "model": run.model,
        "data": run.settings.get("data"),
        "state": run.state,
        "global_step": run.global_step,
        "steps": run.steps,
        "loss": run.loss,
        "best_step": best[0] if best else None,
        "best_loss": best[1] if best else None,
        "written_at": run.written_at,
        **({"curve": run.curve(points)} if points else {}),
    }


def _log(folder: Path, kind: str) -> Path:
    return folder / (find_kind(kind).losses if kind in kind_names() else "loss.csv")


def _read(log: Path) -> Iterable[bytes]:
    try:
        with log.open("rb") as file:
            yield from file
    except OSError:
        return


def _sample(log: Path) -> Iterator[bytes]:
    """Lines of a log: all of them, or of a long one those at some places, and its last ones."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            if size <= _WHOLE:
                file.seek(0)
                yield from file
                return
            for place in range(0, size - 4 * _BLOCK, max(_BLOCK, (size - 4 * _BLOCK) // 24)):
                file.seek(place)
                yield from file.read(_BLOCK).split(b"\n")[1:-1]
            file.seek(size - 4 * _BLOCK)
            yield from file.read().split(b"\n")[1:]
    except OSError:
        return


def _columns(lines: Iterable[bytes], places: Sequence[int]) -> list[array[float]]:
    """Numbers of some columns, without the head and lines that are spoiled; the first column is a step, and rises."""
    columns = [array("d") for _ in places]
    last = -1.0
    for line in lines:
        cells = line.split(b",")
        try:
            numbers = [float(cells[place]) for place in places]
        except (ValueError, IndexError):
            continue
        if last < numbers[0] < math.inf:
            last = numbers[0]
            for column, number in zip(columns, numbers, strict=True):
                column.append(number)
    return columns
