"""What happens in a run as lines of text: for a log file, and for whoever reads one."""

from __future__ import annotations

import time
from collections.abc import Callable

from tincture.events import (
    CheckpointSaved,
    Event,
    MemoryFitted,
    ModelLoaded,
    PreviewReady,
    Progressed,
    RolledBack,
    RunStarted,
    StepRejected,
    StepsDone,
)

EVERY_S = 15.0
"""Seconds between two lines of what changes often."""


def sentence(event: Event) -> str:
    """The event for a person; empty for one that is not worth a line."""
    match event:
        case ModelLoaded() | MemoryFitted() | StepRejected() | RolledBack():
            return event.description
        case Progressed():
            return f"{event.stage} {event.done}/{event.total}"
        case RunStarted():
            return f"training from step {event.global_step} to {event.steps} on {event.samples} pictures"
        case StepsDone():
            return f"step {event.global_step}/{event.steps}  {numbers(event)}"
        case CheckpointSaved():
            return f"saved {event.path}"
        case PreviewReady():
            return f"{len(event.paths)} previews in {event.paths[0].parent}"
    return ""


def numbers(event: StepsDone) -> str:
    """Loss over the window with its standard error, learning rate and epoch."""
    loss = f"loss {event.loss_mean:.4f}±{event.loss_error:.4f}"
    return f"{loss}  rate {event.learning_rate:.3g}  epoch {event.epoch}"


class Lines:
    """A watcher of a run that writes a line for what happens; of what changes often, one in 15 seconds.

    Args:
        write: called with each line.
    """

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._written_at = time.monotonic()
        self._began = (0, time.monotonic())

    def on_event(self, event: Event) -> None:
        match event:
            case Progressed() if not self._is_due():
                return
            case StepsDone() if not self._is_due() and event.global_step < event.steps:
                return
            case RunStarted():
                self._began = (event.global_step, time.monotonic())
        if text := sentence(event):
            self._written_at = time.monotonic()
            self._write(f"{text}{self._left(event)}")

    def _is_due(self) -> bool:
        return time.monotonic() - self._written_at >= EVERY_S

    def _left(self, event: Event) -> str:
        if not isinstance(event, StepsDone):
            return ""
        start, started = self._began
        done, left = event.global_step - start, event.steps - event.global_step
        if done <= 0 or left <= 0:
            return ""
        return f"  {(time.monotonic() - started) / done * left:.0f} s left"
