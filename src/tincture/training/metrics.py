"""Loss statistics and logs: a window of losses, the reference's CSV, TensorBoard."""

from __future__ import annotations

import csv
import io
import math
import re
import statistics
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tincture.errors import StorageError, UsageError
from tincture.events import FURTHER_NUMBERS, Event, RolledBack, StepRecord, StepsDone, Validated
from tincture.formats.files import write_text
from tincture.training.tracker_log import Shown, TrackerLog

CSV_COLUMNS = ("step", "epoch", "epoch_step", "loss", "learn_rate")
EFFECTIVE_COLUMNS = (*CSV_COLUMNS, "effective_rate")
"""Of a run whose optimizer finds its own rate."""
VALIDATION_COLUMNS = ("step", "validation_loss", "validation_error", "training_loss", "training_error", "best_step")
RECENT = 32
_NUMBER = re.compile(r"([+-]?[0-9]{1,40}(\.[0-9]{1,40})?(e[+-]?[0-9]{1,4})?|[+-]?inf|nan)?", re.ASCII)


class LossWindow:
    """The latest losses and their mean with standard error.

    Args:
        samples: pictures in the data set; the window is three times as long.
    """

    def __init__(self, samples: int) -> None:
        # The last 32 are told apart too, so the memory is never shorter than that.
        self.length = max(1, 3 * samples)
        self._losses: deque[float] = deque(maxlen=max(self.length, RECENT))

    def append(self, loss: float) -> None:
        self._losses.append(loss)

    def state(self) -> list[float]:
        return list(self._losses)

    def restore(self, losses: Iterable[float]) -> None:
        """Puts back what :meth:`state` gave."""
        self._losses.clear()
        self._losses.extend(losses)

    def window(self) -> tuple[float, float]:
        """Mean and standard error over three times the data set."""
        return mean_and_error(list(self._losses)[-self.length :])

    def recent(self) -> tuple[float, float]:
        """Mean and standard error over the last 32."""
        return mean_and_error(list(self._losses)[-RECENT:])


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Mean and standard error of the mean; the error of fewer than two values is 0."""
    if not values:
        return math.nan, math.nan
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, 0.0
    return mean, statistics.stdev(values, mean) / math.sqrt(len(values))


class _RowLog:
    """A CSV that begins with ``rows`` and grows; there is nothing else in it, whatever was there before.

    Lines beyond the step to which the run goes back are dropped: they belong to steps that are made again.
    """

    def __init__(self, path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> None:
        self.path, self.columns = path, columns
        self._begin(rows)

    def on_event(self, event: Event) -> None:
        if isinstance(event, RolledBack):
            self._begin(rows_until(self.path, self.columns, event.global_step))

    def _begin(self, rows: Iterable[Mapping[str, str]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path, text.getvalue())

    def append(self, lines: str) -> None:
        """Adds whole lines; StorageError."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(lines)
        except OSError as error:
            raise StorageError(f"The loss log {self.path} could not be written: {error.strerror or error}.") from error


class CsvLog(_RowLog):
    """One line per step in the webui's columns: step, epoch, epoch_step, loss (7 digits), learn_rate.

    With an optimizer that finds its own rate a column ``effective_rate`` follows, then those of ``further``, unless the
    log was begun with others, which then stay empty where they are not known. Lines beyond ``global_step`` are dropped
    at the start, and when the run goes back: they belong to steps that are made again.

    Args:
        further: what the further numbers of each step are called.
    """

    def __init__(self, path: Path, global_step: int, *, finds_rate: bool = False, further: Sequence[str] = ()) -> None:
        usual = EFFECTIVE_COLUMNS if finds_rate else CSV_COLUMNS
        columns = (*usual, *further)
        # Another resume may have logged more, or less.
        known = (CSV_COLUMNS, usual, *_own_columns(path, usual), columns)
        columns = next((each for each in known if rows_until(path, each, global_step)), columns)
        self._further = columns[len(usual) :]
        super().__init__(path, columns, rows_until(path, columns, global_step))

    def on_event(self, event: Event) -> None:
        super().on_event(event)
        if isinstance(event, StepsDone):
            self.append("".join(f"{','.join(self._cells(record))}\n" for record in event.records))

    def _cells(self, record: StepRecord) -> list[str]:
        effective = "" if record.effective_rate is None else f"{record.effective_rate:g}"
        cells = [record.global_step, record.epoch, record.epoch_step, f"{record.loss:.7f}", f"{record.learning_rate:g}"]
        if self.columns[len(CSV_COLUMNS) :][:1] == EFFECTIVE_COLUMNS[-1:]:
            cells.append(effective)
        further = [f"{record.further[name]:g}" if name in record.further else "" for name in self._further]
        return [*map(str, cells), *further]


class ValidationLog(_RowLog):
    """One line per measurement, its losses with 7 digits; ``best_step`` is the best one so far.

    Args:
        measured: what a run that goes on has measured; its states know, so that the file need not be sound.
    """

    def __init__(self, path: Path, measured: Iterable[Validated] = ()) -> None:
        rows = (dict(zip(VALIDATION_COLUMNS, _cells(each), strict=True)) for each in measured)
        super().__init__(path, VALIDATION_COLUMNS, rows)

    def on_event(self, event: Event) -> None:
        super().on_event(event)
        if isinstance(event, Validated):
            self.append(",".join(_cells(event)) + "\n")


def _own_columns(path: Path, usual: Sequence[str]) -> list[tuple[str, ...]]:
    """Those that the head of a log names, unless it is spoiled."""
    try:
        with path.open("rb") as file:
            head = file.readline(4096).decode("utf-8", "replace")
    except OSError:
        return []
    columns = tuple(head.rstrip("\r\n").split(","))
    further = columns[len(usual) :]
    sound = columns == (*usual, *further) and all(name.startswith(FURTHER_NUMBERS) for name in further)
    return [columns] if sound and len(set(columns)) == len(columns) else []


def _cells(event: Validated) -> list[str]:
    losses = (event.loss, event.error, event.training_loss, event.training_error)
    best = "" if event.best_step is None else str(event.best_step)
    return [str(event.global_step), *(f"{loss:.7f}" for loss in losses), best]


def rows_until(path: Path, columns: Sequence[str], global_step: int) -> list[dict[str, str]]:
    """The whole lines of a log of such columns up to a step."""
    return [row for row in read_csv(path, columns) if int(row["step"]) <= global_step]


def read_csv(path: Path, columns: Sequence[str] = CSV_COLUMNS) -> list[dict[str, str]]:
    """The whole lines of a loss log; a missing file has none, and what a crash cut off or spoiled is left out.

    Args:
        path: the log.
        columns: that it has, whatever became of its head.
    """
    try:
        # A line that breaks off in a number looks whole: only the end of the line tells.
        lines = path.read_bytes().decode("utf-8", "replace").split("\n")[1:-1]
    except FileNotFoundError:
        return []
    cells = (line.rstrip("\r").split(",") for line in lines)
    rows = (dict(zip(columns, row, strict=True)) for row in cells if len(row) == len(columns))
    return [row for row in rows if _is_whole(row)]


def _is_whole(row: Mapping[str, str]) -> bool:
    step = row.get("step", "")
    return step.isascii() and step.isdecimal() and all(_NUMBER.fullmatch(cell) for cell in row.values())


class TensorBoardLog(TrackerLog):
    """Writes a run's numbers and previews for TensorBoard, by the names of ``tracker_log``; two are the webui's.

    Raises:
        UsageError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, global_step: int) -> None:
        super().__init__(_TensorBoard(folder, global_step))


class _TensorBoard:
    """The tracker: files of events in ``folder``."""

    name = "tensorboard"

    def __init__(self, folder: Path, global_step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UsageError(
                "TensorBoard logs were asked for, but it is not installed: pip install 'tincture[tensorboard]'."
            ) from error
        self._folder, self._writer_class = str(folder), SummaryWriter
        self._prompts: dict[str, str] = {}
        self._writer: Any = self._open(global_step)

    def _open(self, global_step: int) -> Any:
        writer: Any = self._writer_class
        # purge_step makes TensorBoard forget the steps that are made again.
        return writer(self._folder, purge_step=global_step + 1)

    def log(self, global_step: int, source: str, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, global_step)

    def log_previews(self, global_step: int, pictures: Mapping[str, Shown]) -> None:
        for name, shown in pictures.items():
            self._writer.add_image(name, shown.pixels, global_step, dataformats="HWC")
            if self._prompts.get(name) != shown.prompt:
                self._prompts[name] = shown.prompt
                self._writer.add_text(name, shown.prompt, global_step)

    def go_back(self, global_step: int) -> None:
        self._writer.close()
        self._writer = self._open(global_step)

    def close(self) -> None:
        self._writer.close()
