"""What trackers get of a run: numbers by name and step and previews, in the order of their steps and each once.

Names with a slash stand in groups, as TensorBoard and Weights & Biases show them.

Loss/train, Learn rate/train             of each step; the rate that was set
Effective learn rate/train               the rate by an optimizer that finds its own
Learn rate/KIND:NAME                     of an adapter that is trained together with the first
Gradient norm, Weight norm               L2 norms of each step, the gradient's before it is clipped
Vector norm mean, min, max               L2 norms of the vectors that stand for tokens
Vector norm                              the longest vector as a multiple of tokens, where the settings hold norms
Loss/validation                          and Loss/train on the grid of validation: of each measurement
Speed/pictures per second, seconds per step
Memory/process GiB, process peak GiB     resident memory of the process, and the most that it was
Memory/device GiB, device peak GiB       of a GPU, by torch
Seconds/PHASE                            what a run spent so far on each of its phases, see ``events.RunMeasured``
Previews/N                               the picture of the N-th prompt
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tincture.errors import foreign
from tincture.events import (
    Event,
    PreviewReady,
    RolledBack,
    RunEnded,
    RunMeasured,
    StepRecord,
    StepsDone,
    Validated,
)
from tincture.formats.pictures import open_picture

Picture = NDArray[np.uint8]
"""(height, width, 3)."""
GIB = 2**30


class Shown(NamedTuple):
    """A preview: its file, its pixels and its prompt."""

    path: Path
    pixels: Picture
    prompt: str


class Tracker(Protocol):
    """Takes what ``TrackerLog`` gives it."""

    name: str

    def log(self, global_step: int, source: str, numbers: Mapping[str, float]) -> None:
        """Numbers of a step; steps never fall.

        Args:
            source: the class of the event that they come from; each has its own numbers.
        """
        ...

    def log_previews(self, global_step: int, pictures: Mapping[str, Shown]) -> None:
        """Previews of a step by what they are called."""
        ...

    def go_back(self, global_step: int) -> None:
        """What follows comes again."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


class TrackerLog:
    """A watcher that hands a run's numbers and previews on to a tracker, once it is known that none of before follow.

    A tracker that fails is left out from then on, with a warning: no run ends for it.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker: Tracker | None = tracker
        self._waiting: list[tuple[int, Event | StepRecord]] = []

    def on_event(self, event: Event) -> None:
        match event:
            case StepsDone():
                self._waiting += [(record.global_step, record) for record in event.records]
                self._hand_on(event.global_step)
            case Validated() | PreviewReady():
                self._waiting.append((event.global_step, event))
            case RunMeasured():
                self._waiting = [pair for pair in self._waiting if not self._is_outdated(pair, event)]
                self._waiting.append((event.global_step, event))
            case RolledBack():
                self._waiting = [(step, each) for step, each in self._waiting if step <= event.global_step]
                with self._spared() as tracker:
                    tracker.go_back(event.global_step)
            case RunEnded():
                self.close()

    def close(self) -> None:
        """Ends it, also where the run failed; what still waits is handed on."""
        self._hand_on(math.inf)
        with self._spared() as tracker:
            tracker.close()
        self._tracker = None

    @staticmethod
    def _is_outdated(pair: tuple[int, Event | StepRecord], event: RunMeasured) -> bool:
        """A run that ends is measured once more at its last step."""
        return isinstance(pair[1], RunMeasured) and pair[0] == event.global_step

    def _hand_on(self, global_step: float) -> None:
        def is_ready(pair: tuple[int, Event | StepRecord]) -> bool:
            return pair[0] < global_step or (pair[0] == global_step and not isinstance(pair[1], RunMeasured))

        ready = sorted(filter(is_ready, self._waiting), key=lambda pair: pair[0])
        self._waiting = [pair for pair in self._waiting if not is_ready(pair)]
        with self._spared() as tracker:
            for step, what in ready:
                if isinstance(what, PreviewReady):
                    tracker.log_previews(step, shown_of(what))
                else:
                    tracker.log(step, type(what).__name__, numbers_of(what))

    @contextlib.contextmanager
    def _spared(self) -> Iterator[Tracker]:
        tracker = self._tracker
        try:
            yield tracker or _Nobody()
        except Exception as error:
            self._tracker = None
            warnings.warn(
                f"The tracker {tracker.name if tracker else ''} failed ({type(error).__name__}: {foreign(error)}); the "
                "run goes on without it.",
                stacklevel=2,
            )


class _Nobody:
    """In the place of a tracker that failed or is closed."""

    name = ""

    def log(self, global_step: int, source: str, numbers: Mapping[str, float]) -> None: ...

    def log_previews(self, global_step: int, pictures: Mapping[str, Shown]) -> None: ...

    def go_back(self, global_step: int) -> None: ...

    def close(self) -> None: ...


def numbers_of(what: Event | StepRecord) -> dict[str, float]:
    """What an event says in numbers, by the names above; those that are not known are left out."""
    match what:
        case StepRecord():
            effective = {} if what.effective_rate is None else {"Effective learn rate/train": what.effective_rate}
            further = {_named(name): value for name, value in what.further.items()}
            return {"Loss/train": what.loss, "Learn rate/train": what.learning_rate, **effective, **further}
        case Validated():
            return {"Loss/validation": what.loss, "Loss/train on the grid of validation": what.training_loss}
        case RunMeasured():
            return dict(_measured(what))
    return {}


def _named(name: str) -> str:
    """What a further number of a step is called: "learn_rate KIND:NAME" is "Learn rate/KIND:NAME"."""
    own, _, of = name.partition(" ")
    words = own.replace("_", " ").capitalize()
    return f"{words}/{of}" if of else words


def _measured(event: RunMeasured) -> Iterator[tuple[str, float]]:
    if event.step_s:
        yield "Speed/seconds per step", event.step_s
    if event.pictures_per_s:
        yield "Speed/pictures per second", event.pictures_per_s
    for name, size in event.memory.items():
        yield f"Memory/{name.replace('_', ' ')} GiB", size / GIB
    for phase, seconds in event.phases.items():
        yield f"Seconds/{phase}", seconds


def shown_of(event: PreviewReady) -> dict[str, Shown]:
    """Its pictures that can be read, by the names above."""
    prompts: Sequence[str] = event.prompts or [""] * len(event.paths)
    found = {}
    for number, (path, prompt) in enumerate(zip(event.paths, prompts, strict=False), start=1):
        with contextlib.suppress(OSError, ValueError, SyntaxError), open_picture(path) as picture:
            found[f"Previews/{number}"] = Shown(path, np.asarray(picture.convert("RGB")), prompt)
    return found
