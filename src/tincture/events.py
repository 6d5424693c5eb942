"""What a run tells those who watch it. The trainer knows no files, pages or progress bars: it emits these.

A watcher is any object with ``on_event(event)``; it picks the events it cares for by their class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Event:
    """Something that happened in a run."""


@dataclass(frozen=True)
class ModelLoaded(Event):
    """The base model is there; ``description`` says in one line what it is.

    ``model`` is the ``DiffusionModel`` itself, frozen, not yet on the device of the run where that spares memory;
    ``embeddings`` gives the ``EmbeddingDatabase`` of the workspace, sorted by what the model can use.
    """

    description: str
    model: object = field(default=None, repr=False, compare=False)
    embeddings: Callable[[], object] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class MemoryFitted(Event):
    """Settings were ``chosen`` so that the run fits: it takes ``peak`` bytes at most of the ``available`` ones."""

    chosen: Mapping[str, Any]
    peak: int
    available: int

    @property
    def description(self) -> str:
        """The same in one line."""
        values = {True: "yes", False: "no"}
        listed = ", ".join(
            f"{name.replace('_', ' ')} {values.get(value, value)}" for name, value in self.chosen.items()
        )
        return f"memory: about {self.peak / 2**30:.2f} of {self.available / 2**30:.2f} GiB, by {listed}"


@dataclass(frozen=True)
class RunPrepared(Event):
    """The run's folder is there; ``settings`` are those of the run, with nothing left open."""

    run_dir: Path
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Progressed(Event):
    """What a run does now besides its steps: it has ``done`` of ``total`` (pictures, say) in ``stage``.

    A stage begins with 0 done, and is over when all are. Where nothing can be counted, ``total`` is 1. ``step`` of
    ``steps`` tells how far that is which is done next, such as denoising steps of the pictures at hand; 0 of 0 where
    nobody can tell. ``Stage`` emits these.
    """

    stage: str
    done: int
    total: int
    step: int = 0
    steps: int = 0

    @property
    def over(self) -> bool:
        """Whether what comes next is something else."""
        return self.done >= self.total

    @property
    def description(self) -> str:
        """The same in a few words, such as ``encoding pictures 3 of 12``."""
        counted = f" {self.done} of {self.total}" if self.total > 1 else ""
        within = f", step {self.step} of {self.steps}" if self.steps and not self.over else ""
        return f"{self.stage}{counted}{within}"


@dataclass(frozen=True)
class RunStarted(Event):
    """The first step is next. ``global_step`` is where the run begins, ``steps`` where it will end."""

    global_step: int
    steps: int
    samples: int
    micro_batches_per_epoch: int


@dataclass(frozen=True)
class StepEnd(Event):
    """One optimizer step is done; ``global_step`` counts it. Emitted at every step; nothing is read from the device."""

    global_step: int
    steps: int


@dataclass(frozen=True)
class StepRejected(Event):
    """A step left the weights as they are; ``global_step`` is the number that it would have had.

    ``again``: it is made once more, and counts when it succeeds; else it is skipped and counts. ``times``: how often
    that happened in this run.
    """

    global_step: int
    reason: str
    again: bool
    times: int

    @property
    def description(self) -> str:
        """The same in one line."""
        becomes = "made again" if self.again else "skipped"
        return f"step {self.global_step} is {becomes}: {self.reason} (no. {self.times} of this run)"


@dataclass(frozen=True)
class RolledBack(Event):
    """The run went back to the state after ``global_step``: whatever was seen of later steps does not count.

    ``rate_factor``: what the scheduled learning rate is multiplied by from here on.
    """

    global_step: int
    from_step: int
    reason: str
    rate_factor: float
    times: int

    @property
    def description(self) -> str:
        """The same in one line."""
        return (
            f"back to step {self.global_step}, with {self.rate_factor:g} times the learning rate, from step "
            f"{self.from_step}: {self.reason} (no. {self.times} of this run)"
        )


RATE_OF = "learn_rate "
"""What the name of a rate among a step's further numbers begins with; the adapter stands behind it."""
VECTOR_NORM = "vector_norm"
GRADIENT_NORM, WEIGHT_NORM = "gradient_norm", "weight_norm"
VECTOR_NORMS = ("vector_norm_mean", "vector_norm_min", "vector_norm_max")
FURTHER_NUMBERS = (RATE_OF, VECTOR_NORM, GRADIENT_NORM, WEIGHT_NORM, *VECTOR_NORMS)
"""What the names of a step's further numbers begin with."""


@dataclass(frozen=True)
class StepRecord:
    """One step as the log has it. ``epoch`` and ``epoch_step`` count from 0.

    ``effective_rate`` is the rate by an optimizer that finds its own; None where it is ``learning_rate``.
    ``further`` are more numbers by what logs call them, in every step of a run the same: ``learn_rate KIND:NAME`` of
    each adapter that is trained together with the first; ``vector_norm``, the longest vector's as a multiple of the
    mean norm of tokens, where the settings hold norms; and, where norms are logged, ``gradient_norm`` before clipping,
    ``weight_norm`` of all trained weights after the step, and ``vector_norm_mean``, ``_min`` and ``_max`` of vectors
    that stand for tokens, each followed by `` KIND:NAME`` for an adapter that is trained together with the first.
    """

    global_step: int
    epoch: int
    epoch_step: int
    loss: float
    learning_rate: float
    effective_rate: float | None = None
    further: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StepsDone(Event):
    """The losses of the latest steps, read from the device in one go.

    ``loss_mean`` and ``loss_error`` (standard error) are over a window of three times the data set;
    ``recent_mean`` and ``recent_error`` over the last 32 steps.
    """

    records: tuple[StepRecord, ...]
    steps: int
    loss_mean: float
    loss_error: float
    recent_mean: float
    recent_error: float

    @property
    def global_step(self) -> int:
        return self.records[-1].global_step

    @property
    def learning_rate(self) -> float:
        return self.records[-1].learning_rate

    @property
    def effective_rate(self) -> float | None:
        return self.records[-1].effective_rate

    @property
    def further(self) -> Mapping[str, float]:
        return self.records[-1].further

    @property
    def epoch(self) -> int:
        return self.records[-1].epoch


@dataclass(frozen=True)
class RunMeasured(Event):
    """What a run takes, as far as it went; the numbers are of this process.

    Attributes:
        step_s: seconds of a step, of late; None before that is known.
        pictures_per_s: that are trained in a second of steps, of late, those of regularisation left out; None likewise.
        memory: bytes: ``process`` (resident), ``process_peak`` (the most that it was since the process began), and on a
            GPU ``device`` and ``device_peak``, as torch counts what it has given out. What is not known is left out.
        phases: seconds so far of ``loading``, ``encoding``, ``steps``, ``previews``, ``validation``, ``saving`` and
            ``other``; together they are the time since the run began to load.
    """

    global_step: int
    step_s: float | None
    pictures_per_s: float | None
    memory: Mapping[str, int]
    phases: Mapping[str, float]


@dataclass(frozen=True)
class Validated(Event):
    """The losses on fixed noise after ``global_step``: of pictures that are not trained, and of some that are.

    ``loss`` and ``error`` (standard error) are of the pictures for validation, those of ``training`` of trained ones.
    ``best_step`` is the step whose ``loss`` is the lowest so far, ``best_loss``; None where none is finite.
    """

    global_step: int
    steps: int
    loss: float
    error: float
    training_loss: float
    training_error: float
    best_step: int | None
    best_loss: float

    @property
    def is_best(self) -> bool:
        """Whether there was none better."""
        return self.best_step == self.global_step


@dataclass(frozen=True)
class CheckpointSaved(Event):
    """A file that holds the adapter as it is after ``global_step``."""

    global_step: int
    path: Path


@dataclass(frozen=True)
class PreviewReady(Event):
    """Preview pictures made with the adapter as it is after ``global_step``, and the prompt of each."""

    global_step: int
    paths: tuple[Path, ...]
    prompts: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunEnded(Event):
    """No step follows.

    ``interrupted``: the run was asked to stop before its last step. ``ending``: why it ended by itself before its last
    step, a sentence; empty otherwise.
    """

    global_step: int
    interrupted: bool
    seconds: float
    ending: str = ""


class Callback(Protocol):
    """Anything that watches a run."""

    def on_event(self, event: Event) -> None: ...


Emit = Callable[[Event], object]


def emitter(callbacks: Iterable[Callback]) -> Emit:
    """What hands an event to each of ``callbacks``, in their order."""

    def emit(event: Event) -> None:
        for callback in callbacks:
            callback.on_event(event)

    return emit


class Stage:
    """A part of a run as a context, which tells that it begins, how far it is, and, unless it failed, that it is over.

    Args:
        emit: gets the events.
        name: what is being done, such as ``saving``.
        total: how many things that are; 1 where they cannot be counted.
    """

    def __init__(self, emit: Emit, name: str, total: int = 1) -> None:
        self._emit, self._latest = emit, Progressed(name, 0, total)

    def __enter__(self) -> Stage:
        self._emit(self._latest)
        return self

    def advance(self, done: int | None = None, step: int = 0, steps: int = 0) -> None:
        """``done`` are finished (None: as many as before), and ``step`` of ``steps`` of those that come next."""
        latest = self._latest
        done = latest.done if done is None else done
        self._latest = Progressed(latest.stage, done, latest.total, step, steps)
        self._emit(self._latest)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and not self._latest.over:
            self.advance(self._latest.total)
