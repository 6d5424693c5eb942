"""How long a run takes: the stages that it has besides its steps, and what is left of one that is under way.

Nothing here loads torch. Times are taken by a clock that never jumps.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tincture.events import Event, Progressed, RolledBack, RunPrepared, RunStarted, StepEnd, StepsDone

ENCODING, PROMPTS = "encoding pictures", "encoding prompts"
STARTING_TRACKERS = "starting trackers"
SAVING, VALIDATING, DRAWING = "saving", "validating", "drawing previews"
PHASES = ("loading", "encoding", "steps", "previews", "validation", "saving", "other")
_PHASE_OF = {
    **dict.fromkeys(("loading the model", "reading pictures", "fitting memory", "preparing the model"), "loading"),
    STARTING_TRACKERS: "loading",
    **dict.fromkeys((ENCODING, PROMPTS), "encoding"),
    DRAWING: "previews",
    VALIDATING: "validation",
    SAVING: "saving",
}
"""By stage; all others are ``other``."""

Timing = Literal["measure", "known", "none"]
"""Whether a plan measures how long the run will take, or tells it only where that is known, or leaves it out."""
USUAL_PREVIEWS = 4
"""Pictures of a preview where the settings name no prompts, if there are as many in the data."""
_LATEST = 32
"""Readings of the losses over which the time of a step is taken."""
_ODD = 3.0
"""What took so many times as long as usual, was stopped meanwhile, or warmed up; it does not count."""
_FORWARD = 1 / 3
"""Of a training step: the share of the prediction, the gradients taking about twice as long."""


def in_words(seconds: float | None) -> str:
    """``42 s``, ``3 min 05 s``, ``2 h 04 min``, ``3 d 02 h``; empty when it is not known."""
    if seconds is None or not 0 <= seconds < 10**9:
        return ""
    whole = round(seconds)
    for unit, inner, size, part in (("d", "h", 86400, 3600), ("h", "min", 3600, 60), ("min", "s", 60, 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part:02} {inner}"
    return f"{whole} s"


def about(seconds: float) -> str:
    """The same as people tell it who cannot know it exactly: ``42 s``, ``14 min``, ``1 h 40 min``, ``2 d 3 h``."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(5 * round(seconds / 300), 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def usual(seconds: Iterable[float]) -> float:
    """The mean without what is far longer than most."""
    values = list(seconds)
    most = statistics.median_low(values) * _ODD
    return statistics.fmean([value for value in values if value <= most] or values)


@dataclass(frozen=True)
class Agenda:
    """How often a run does what it does besides its steps.

    Args:
        settings: of the run, by the names of ``TrainSettings``; what is left out is not done.
        steps: the last step.
        samples: of the data set.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 0
    samples: int = 0

    def ahead(self, step: int) -> dict[str, int]:
        """By stage, how often it comes after ``step`` steps were made, and what followed the last of them."""
        names = ("preview_every", "validation_every", "save_every")
        previews, measurements, copies = (int(self.settings.get(name) or 0) for name in names)
        return {
            DRAWING: self._multiples_and_last(step, previews),
            VALIDATING: self._multiples_and_last(step, measurements),
            SAVING: self._multiples(step, copies) + 1,
        }

    def _multiples_and_last(self, step: int, every: int) -> int:
        """The same as ``_multiples``, and the last step."""
        after_last = bool(every and step < self.steps and self.steps % every)
        return self._multiples(step, every) + after_last

    def _multiples(self, step: int, every: int) -> int:
        """How many multiples of ``every`` are behind ``step``, up to the last step."""
        return max(0, self.steps // every - step // every) if every else 0

    @property
    def previews(self) -> int:
        """Pictures of one preview."""
        return len(self.settings.get("preview_prompts") or ()) or max(1, min(USUAL_PREVIEWS, self.samples))

    def guessed_preview(self, step_s: float) -> float:
        """Seconds that a preview takes, as far as those of a training step tell: per picture, one pass through the
        denoiser for each step of drawing, and two with guidance."""
        passes = int(self.settings.get("preview_steps") or 0)
        guided = 1 if self.settings.get("preview_guidance_scale") == 1 else 2
        return self.guessed_predictions(step_s, self.previews * passes * guided)

    def guessed_predictions(self, step_s: float, count: int) -> float:
        """Seconds that so many predictions without gradients take, likewise."""
        parts = (int(self.settings.get(name) or 1) for name in ("batch_size", "gradient_accumulation_steps"))
        return count * step_s * _FORWARD / math.prod(parts)


class TimeLeft:
    """A watcher that tells from the first step on how long a run has yet to go, with all that comes between the steps.

    The time of a step is taken between readings of the losses, for which the device has to be done; until the first
    reading, between steps. What it does besides its steps counts as long as it took before. May be asked from another
    thread than the run's.

    Args:
        clock: seconds since anything, which never go back.

    Attributes:
        step_s: seconds of a step; None before the first one.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.step_s: float | None = None
        self._agenda = Agenda()
        self._mark, self._aside = (clock(), 0), 0.0
        self._paces: deque[float] = deque(maxlen=_LATEST)
        self._begun: dict[str, float] = {}
        self._took: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_LATEST))
        self._estimate: tuple[float, float, float] | None = None
        self._watches_since, self._loop_since = clock(), math.nan
        self._spent: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        self._spent_before = 0.0

    def on_event(self, event: Event) -> None:
        match event:
            case RunPrepared():
                self._agenda = Agenda(event.settings)
            case RunStarted():
                self._agenda = Agenda(self._agenda.settings, event.steps, event.samples)
                self.step_s = self._estimate = None
                self._paces.clear()
                self._loop_since, self._spent_before = self._clock(), sum(self._spent.values())
                self._start_at(event.global_step)
            case Progressed():
                self._time(event)
            case StepsDone():
                self._read(event.global_step)
            case StepEnd():
                self._count(event.global_step)
            case RolledBack():
                self._start_at(event.global_step)
                self._update_estimate(event.global_step)

    def seconds(self) -> float | None:
        """What is left; None before the first step is done."""
        if self._estimate is None:
            return None
        known_at, left, least = self._estimate
        # What is under way, a step or what follows it, is not yet counted as done; however long it takes, the rest of
        # the run comes after it.
        return max(left - (self._clock() - known_at), least, 0.0)

    @property
    def is_settled(self) -> bool:
        """Whether the time of a step is that between readings of the losses."""
        return bool(self._paces)

    def took(self, stage: str) -> float | None:
        """Seconds of one occurrence of a stage, over the latest; None before it was done."""
        took = self._took.get(stage)
        return usual(took) if took else None

    def phases(self) -> dict[str, float]:
        """Seconds since it began to watch, by ``PHASES``: what is no stage is a step in the loop, and other before."""
        now, spent = self._clock(), dict(self._spent)
        if not math.isnan(self._loop_since):
            beside = sum(spent.values()) - self._spent_before
            spent["steps"] = max(0.0, now - self._loop_since - beside)
        spent["other"] += max(0.0, now - self._watches_since - sum(spent.values()))
        return {phase: round(seconds, 4) for phase, seconds in spent.items()}

    def _start_at(self, step: int) -> None:
        self._mark, self._aside = (self._clock(), step), 0.0

    def _time(self, event: Progressed) -> None:
        now = self._clock()
        if not (event.over or event.done or event.step):
            self._begun[event.stage] = now
        elif event.over and event.stage in self._begun:
            seconds = now - self._begun.pop(event.stage)
            self._took[event.stage].append(seconds)
            if not self._begun:  # else it is a part of another
                self._aside += seconds
                self._spent[_PHASE_OF.get(event.stage, "other")] += seconds

    def _read(self, step: int) -> None:
        if step > self._mark[1]:
            self._paces.append(self._pace(step))
            self._start_at(step)

    def _count(self, step: int) -> None:
        self._begun.clear()  # what failed was never over
        if self._paces:
            self.step_s = usual(self._paces)
        elif step > self._mark[1]:
            self.step_s = self._pace(step)
        self._update_estimate(step)

    def _update_estimate(self, step: int) -> None:
        if self.step_s is not None:
            left, least = (self._remaining(at, self.step_s) for at in (step, min(step + 1, self._agenda.steps)))
            self._estimate = self._clock(), left, least

    def _pace(self, step: int) -> float:
        began, first = self._mark
        return max(0.0, self._clock() - began - self._aside) / (step - first)

    def _remaining(self, step: int, step_s: float) -> float:
        """Seconds of all that comes after ``step``."""
        besides = sum(count * self._each(stage, step_s) for stage, count in self._agenda.ahead(step).items() if count)
        return (self._agenda.steps - step) * step_s + besides

    def _each(self, stage: str, step_s: float) -> float:
        took = self.took(stage)
        if took is not None:
            return took
        return self._agenda.guessed_preview(step_s) if stage == DRAWING else 0.0
