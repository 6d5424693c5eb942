"""A run's progress on stderr: a bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
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
    RunStarted,
    StepEnd,
    StepsDone,
)

LINE_EVERY_SECONDS = 15.0


@contextmanager
def progress(console: Console | None = None) -> Iterator[Callback]:
    """Give a watcher of the run: what it shows ends with the context."""
    console = console or Console(file=sys.stderr)
    if not console.is_terminal:
        yield Lines(console)
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


def numbers(event: StepsDone) -> str:
    """Loss over the window with its standard error, learning rate and epoch."""
    loss = f"loss {event.loss_mean:.4f}±{event.loss_error:.4f}"
    return f"{loss}  rate {event.learning_rate:.3g}  epoch {event.epoch}"


class Bar:
    """One bar for the preparation, one for the steps."""

    def __init__(self, shown: Progress) -> None:
        self.shown = shown
        self.stages: dict[str, TaskID] = {}

    def on_event(self, event: Event) -> None:
        match event:
            case ModelLoaded() | MemoryFitted():
                self.shown.console.print(event.description, highlight=False, markup=False, soft_wrap=True)
            case Progressed():
                self._move(event.stage, event.done, event.total)
            case RunStarted():
                self._forget("training")  # of an earlier run, whose speed would spoil the time left
                self._move("training", event.global_step, event.steps)
            case StepEnd():
                self._move("training", event.global_step, event.steps)
            case StepsDone():
                self.shown.update(self.stages["training"], numbers=numbers(event))
            case CheckpointSaved():
                self.shown.console.print(f"saved {event.path}", highlight=False, soft_wrap=True)
            case PreviewReady():
                count, folder = len(event.paths), event.paths[0].parent
                self.shown.console.print(f"{count} previews in {folder}", highlight=False, soft_wrap=True)

    def _forget(self, stage: str) -> None:
        if stage in self.stages:
            self.shown.remove_task(self.stages.pop(stage))

    def _move(self, stage: str, done: int, total: int) -> None:
        if stage not in self.stages:
            self.stages[stage] = self.shown.add_task(stage, total=total, completed=done, numbers="")
        self.shown.update(self.stages[stage], completed=done, total=total)


class Lines:
    """The same for a file: a line at most every 15 seconds, and what was saved."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.last_line = time.monotonic()
        self.last_step = (0, time.monotonic())

    def on_event(self, event: Event) -> None:
        match event:
            case Progressed() if self._due():
                self._print(f"{event.stage} {event.done}/{event.total}")
            case ModelLoaded() | MemoryFitted():
                self._print(event.description)
            case RunStarted():
                self.last_step = (event.global_step, time.monotonic())
                self._print(f"training from step {event.global_step} to {event.steps} on {event.samples} pictures")
            case StepsDone() if self._due() or event.global_step >= event.steps:
                self._print(f"step {event.global_step}/{event.steps}  {numbers(event)}{self._left(event)}")
            case CheckpointSaved():
                self._print(f"saved {event.path}")

    def _due(self) -> bool:
        return time.monotonic() - self.last_line >= LINE_EVERY_SECONDS

    def _left(self, event: StepsDone) -> str:
        start, started = self.last_step
        done, left = event.global_step - start, event.steps - event.global_step
        if done <= 0 or left <= 0:
            return ""
        return f"  {(time.monotonic() - started) / done * left:.0f} s left"

    def _print(self, text: str) -> None:
        self.last_line = time.monotonic()
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)
