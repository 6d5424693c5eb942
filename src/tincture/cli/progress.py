"""A run's progress on stderr: a bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from tincture.events import (
    Callback,
    CheckpointSaved,
    Event,
    MemoryFitted,
    ModelLoaded,
    PreviewReady,
    Progressed,
    RolledBack,
    RunEnded,
    RunMeasured,
    RunStarted,
    StepEnd,
    StepRejected,
    StepsDone,
    Validated,
)
from tincture.run.duration import TimeLeft, in_words
from tincture.run.lines import Lines, measured_words, numbers, sentence

_TRAINING = "training"


@contextmanager
def progress(console: Console | None = None, *, silent: bool = False) -> Iterator[Callback]:
    """Give a watcher of the run: what it shows ends with the context. No run ends since nothing can be shown.

    A `silent` one shows nothing at all.
    """
    if silent:
        yield _Unharmed(Lines(lambda text: None))
        return
    console = console or Console(file=sys.stderr)
    if not console.is_terminal:
        yield _Unharmed(Lines(functools.partial(_print, console)))
        return
    time_left = TimeLeft()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[numbers]}"),
        _Left(time_left),
    )
    shown = Progress(*columns, console=console)
    shown.start()
    try:
        yield _Unharmed(Bar(shown, time_left))
    finally:
        with suppress(OSError):
            shown.stop()


class _Unharmed:
    """A watcher that writes: where its terminal was closed, or its log's disk is full, it writes nothing."""

    def __init__(self, watcher: Callback) -> None:
        self._watcher = watcher

    def on_event(self, event: Event) -> None:
        with suppress(OSError):
            self._watcher.on_event(event)


class Bar:
    """One bar for the steps, and one for what the run does besides them, for as long as it does that."""

    def __init__(self, shown: Progress, time_left: TimeLeft) -> None:
        self.shown, self.time_left = shown, time_left
        self.tasks: dict[str, TaskID] = {}
        self._measured: RunMeasured | None = None

    def on_event(self, event: Event) -> None:
        self.time_left.on_event(event)
        match event:
            case (
                ModelLoaded()
                | MemoryFitted()
                | StepRejected()
                | RolledBack()
                | Validated()
                | CheckpointSaved()
                | PreviewReady()
            ):
                _print(self.shown.console, sentence(event))
            case Progressed() if event.over:
                self._forget(event.stage)
            case Progressed():
                self._move(event.stage, event.done, event.total, event.description)
            case RunStarted():
                self._forget(_TRAINING)  # of an earlier run
                self._step(event.global_step, event.steps)
            case StepEnd():
                self._step(event.global_step, event.steps)
            case RunMeasured():
                self._measured = event
            case RunEnded() if self._measured is not None:
                _print(self.shown.console, measured_words(dataclasses.asdict(self._measured)))
            case StepsDone():
                self.shown.update(self.tasks[_TRAINING], numbers=numbers(event))

    def _step(self, done: int, total: int) -> None:
        self._move(_TRAINING, done, total, f"{_TRAINING} {done}/{total}")

    def _forget(self, name: str) -> None:
        if name in self.tasks:
            self.shown.remove_task(self.tasks.pop(name))

    def _move(self, name: str, done: int, total: int, description: str) -> None:
        countable = total if total > 1 or name == _TRAINING else None  # a bar that moves to and fro
        if name not in self.tasks:
            self.tasks[name] = self.shown.add_task(description, total=countable, completed=done, numbers="")
        self.shown.update(self.tasks[name], completed=done, total=countable, description=description)


class _Left(ProgressColumn):
    """How long the run has yet to go, behind the bar of the steps."""

    def __init__(self, time_left: TimeLeft) -> None:
        super().__init__()
        self.time_left = time_left

    def render(self, task: Task) -> Text:
        left = self.time_left.seconds() if task.description.startswith(_TRAINING) and not task.finished else None
        return Text(f"{in_words(left)} left" if left is not None else "")


def _print(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
