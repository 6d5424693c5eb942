"""A run's progress on stderr: a bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from tincture.events import (
    Callback,
    CheckpointSaved,
    Event,
    MemoryFitted,
    ModelLoaded,
    PreviewReady,
    Progressed,
    RolledBack,
    RunStarted,
    StepEnd,
    StepRejected,
    StepsDone,
)
from tincture.run.lines import Lines, numbers, sentence


@contextmanager
def progress(console: Console | None = None) -> Iterator[Callback]:
    """Give a watcher of the run: what it shows ends with the context."""
    console = console or Console(file=sys.stderr)
    if not console.is_terminal:
        yield Lines(functools.partial(_print, console))
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[numbers]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as shown:
        yield Bar(shown)


class Bar:
    """One bar for the preparation, one for the steps."""

    def __init__(self, shown: Progress) -> None:
        self.shown = shown
        self.stages: dict[str, TaskID] = {}

    def on_event(self, event: Event) -> None:
        match event:
            case ModelLoaded() | MemoryFitted() | StepRejected() | RolledBack() | CheckpointSaved() | PreviewReady():
                _print(self.shown.console, sentence(event))
            case Progressed():
                self._move(event.stage, event.done, event.total)
            case RunStarted():
                self._forget("training")  # of an earlier run, whose speed would spoil the time left
                self._move("training", event.global_step, event.steps)
            case StepEnd():
                self._move("training", event.global_step, event.steps)
            case StepsDone():
                self.shown.update(self.stages["training"], numbers=numbers(event))

    def _forget(self, stage: str) -> None:
        if stage in self.stages:
            self.shown.remove_task(self.stages.pop(stage))

    def _move(self, stage: str, done: int, total: int) -> None:
        if stage not in self.stages:
            self.stages[stage] = self.shown.add_task(stage, total=total, completed=done, numbers="")
        self.shown.update(self.stages[stage], completed=done, total=total)


def _print(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
