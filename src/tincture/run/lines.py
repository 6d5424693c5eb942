"""What happens in a run as lines of text: for a log file, and for whoever reads one."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping

from tincture.events import (
    RATE_OF,
    VECTOR_NORM,
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
    StepRejected,
    StepsDone,
    Validated,
)
from tincture.run.duration import TimeLeft, in_words

EVERY_S = 15.0
"""Seconds between two lines of what changes often."""


def sentence(event: Event) -> str:
    """The event for a person; empty for one that is not worth a line."""
    match event:
        case ModelLoaded() | MemoryFitted() | Progressed() | StepRejected() | RolledBack():
            return event.description
        case RunStarted():
            return f"training from step {event.global_step} to {event.steps} on {event.samples} pictures"
        case StepsDone():
            return f"step {event.global_step}/{event.steps}  {numbers(event)}"
        case Validated():
            return f"validation at step {event.global_step}: {validation_numbers(event)}"
        case CheckpointSaved():
            return f"saved {event.path}"
        case PreviewReady():
            return f"{len(event.paths)} previews in {event.paths[0].parent}"
    return ""


def validation_numbers(event: Validated) -> str:
    """Both losses with their standard errors, and where the best one was."""
    trained = f"{event.training_loss:.4f}±{event.training_error:.4f} on trained pictures"
    best = "best so far" if event.is_best else f"best {event.best_loss:.4f} at step {event.best_step}"
    return f"loss {event.loss:.4f}±{event.error:.4f}, {trained}; {best}"


def numbers(event: StepsDone) -> str:
    """Loss over the window with its standard error, learning rate and epoch."""
    loss = f"loss {event.loss_mean:.4f}±{event.loss_error:.4f}"
    effective = "" if event.effective_rate is None else f", in effect {event.effective_rate:.3g}"
    others = "".join(
        f", {name.removeprefix(RATE_OF)} {rate:.3g}" for name, rate in event.further.items() if name.startswith(RATE_OF)
    )
    norm = f"  norm {event.further[VECTOR_NORM]:.3g}" if VECTOR_NORM in event.further else ""
    return f"{loss}  rate {event.learning_rate:.3g}{effective}{others}{norm}  epoch {event.epoch}"


def measured_words(measured: Mapping[str, object]) -> str:
    """What ``RunResult.measured`` says, for a person; empty where nothing was measured."""
    return "; ".join(part for part in _measured_parts(measured) if part)


def _measured_parts(measured: Mapping[str, object]) -> Iterator[str]:
    speed, memory, phases = (measured.get(name) for name in ("pictures_per_s", "memory", "phases"))
    if isinstance(speed, float):
        yield f"{speed:.3g} pictures a second"
    if isinstance(memory, Mapping):
        peaks = {"process_peak": "", "device_peak": " on the device"}
        listed = [f"{memory[name] / 2**30:.2f} GiB{where}" for name, where in peaks.items() if name in memory]
        if listed:
            yield f"at most {' and '.join(listed)}"
    if isinstance(phases, Mapping):
        yield ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in phases.items() if seconds >= 0.05)


class Lines:
    """A watcher of a run that writes a line for what happens; of what changes often, one in 15 seconds.

    Args:
        write: called with each line.
        time_left: watches the same run already; None: one of its own is made.
        clock: seconds since anything, which never go back.
    """

    def __init__(
        self,
        write: Callable[[str], object],
        time_left: TimeLeft | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write, self._clock = write, clock
        self._time_left, self._watches = time_left or TimeLeft(clock), time_left is None
        self._written_at = clock()
        self._measured: RunMeasured | None = None

    def on_event(self, event: Event) -> None:
        if self._watches:
            self._time_left.on_event(event)
        match event:
            case RunMeasured():
                self._measured = event
                return
            case RunEnded() if self._measured is not None:
                self._write(measured_words(dataclasses.asdict(self._measured)))
                return
            case Progressed() if event.over or not self._is_due():
                return
            case StepsDone() if not self._is_due() and event.global_step < event.steps:
                return
        if text := sentence(event):
            self._written_at = self._clock()
            left = self._time_left.seconds() if isinstance(event, StepsDone | Progressed) else None
            speed = self._measured.pictures_per_s if isinstance(event, StepsDone) and self._measured else None
            text += f"  {speed:.3g} pictures/s" if speed else ""
            self._write(f"{text}  {in_words(left)} left" if left and left >= 0.5 else text)

    def _is_due(self) -> bool:
        return self._clock() - self._written_at >= EVERY_S
