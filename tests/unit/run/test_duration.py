from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.test_progress import steps_done
from tincture.events import Progressed, RolledBack, RunEnded, RunPrepared, RunStarted, Stage, StepEnd
from tincture.run.duration import DRAWING, SAVING, VALIDATING, Agenda, TimeLeft, in_words

SETTINGS: dict[str, Any] = {"preview_every": 20, "save_every": 30, "preview_prompts": ("a", "b"), "preview_steps": 10}


class Run:
    """A run by a clock of its own, in the order of a real one: each step, then what follows it, then ``StepEnd``.

    Attributes:
        estimates: after each step, the time, and what was told to be left.
    """

    def __init__(self, settings: Mapping[str, Any], steps: int, *, step_s: float = 2.0, log_every: int = 10) -> None:
        self.now, self.settings, self.steps, self.step_s, self.log_every = 1000.0, settings, steps, step_s, log_every
        self.watcher = TimeLeft(lambda: self.now)
        self.estimates: dict[int, tuple[float, float | None]] = {}
        self.pauses: dict[int, float] = {}
        self.emit = self.watcher.on_event

    def go(self, start: int = 0) -> Run:
        self.emit(RunPrepared(Path("run"), self.settings))
        self.spend(SAVING, 1.0)
        if not start:
            self.spend(DRAWING, 8.0)
        self.emit(RunStarted(start, self.steps, 5, 5))
        for step in range(start + 1, self.steps + 1):
            self.now += self.step_s + self.pauses.get(step, 0.0)
            if step % self.log_every == 0:
                self.emit(steps_done(step, self.steps))
            copies, previews = (self.settings.get(name) for name in ("save_every", "preview_every"))
            if copies and step % copies == 0:
                self.spend(SAVING, 1.0)
            if previews and (step % previews == 0 or step == self.steps):
                self.spend(DRAWING, 8.0)
            self.emit(StepEnd(step, self.steps))
            self.estimates[step] = self.now, self.watcher.seconds()
        self.spend(SAVING, 1.0)
        self.emit(RunEnded(self.steps, False, 0.0))
        return self

    def spend(self, stage: str, seconds: float) -> None:
        with Stage(self.emit, stage):
            self.now += seconds

    def errors(self) -> list[float]:
        """Of each estimate: how far it is from what then came."""
        return [abs(left - (self.now - at)) for at, left in self.estimates.values() if left is not None]


@pytest.mark.parametrize("log_every", [1, 10, 1000])
@pytest.mark.parametrize(("steps", "settings"), [(100, SETTINGS), (90, SETTINGS), (47, SETTINGS), (50, {})])
def test_the_time_left_is_known_from_the_first_step_on_with_all_that_comes_between(
    steps: int, settings: Mapping[str, Any], log_every: int
) -> None:
    errors = Run(settings, steps, log_every=log_every).go().errors()
    assert len(errors) == steps
    assert max(errors) < 1e-6


def test_a_preview_that_was_not_measured_yet_is_guessed_from_the_steps() -> None:
    run = Run({**SETTINGS, "save_every": 0, "preview_guidance_scale": None, "batch_size": 2}, 40)
    run.go(start=10)
    _, left = run.estimates[11]
    # two pictures, ten steps each, with guidance two passes; a pass of one picture is a third of half a step
    assert left == pytest.approx(29 * 2.0 + 2 * (2 * 10 * 2 * 2.0 / 3 / 2) + 1.0)
    assert max(run.errors()[10:]) < 1e-6  # since the first one, which took 8 s
    unguided = Agenda({**SETTINGS, "preview_guidance_scale": 1, "gradient_accumulation_steps": 4}, 40, 5)
    assert unguided.guessed_preview(2.0) == pytest.approx(2 * 10 * 2.0 / 3 / 4)
    assert Agenda({"preview_steps": 1, "preview_guidance_scale": 1}, 9, 3).guessed_preview(3.0) == 3.0  # three captions


def test_a_pause_does_not_count_for_what_comes() -> None:
    run = Run({}, 200)
    run.pauses[45] = 3600.0
    run.go()
    assert run.estimates[40][1] == pytest.approx(160 * 2.0 + 1.0)
    assert run.estimates[50][1] == pytest.approx(150 * 2.0 + 1.0)


def test_while_a_step_or_a_preview_is_under_way_the_time_goes_on_but_never_below_the_rest() -> None:
    run = Run({}, 100).go(start=90)
    watcher, now = TimeLeft(lambda: run.now), run.now
    for event in (RunPrepared(Path("run"), {}), RunStarted(0, 10, 5, 5)):
        watcher.on_event(event)
    assert watcher.seconds() is None
    run.now += 4.0
    watcher.on_event(StepEnd(1, 10))
    lefts = []
    for run.now in (now + 4.0, now + 5.0, now + 8.0, now + 500.0):
        lefts.append(watcher.seconds())
    assert lefts == [36.0, 35.0, 32.0, 32.0]


def test_a_run_that_goes_back_is_longer_again() -> None:
    run = Run({}, 100).go()
    run.emit(RunStarted(0, 100, 5, 5))
    for step in (1, 2, 3, 4):
        run.now += 2.0
        run.emit(StepEnd(step, 100))
    run.now += 1.0
    run.emit(RolledBack(2, 5, "the loss is nan", 0.5, 1))
    assert run.watcher.seconds() == pytest.approx(98 * 2.0 + 1.0)
    run.now += 2.0
    run.emit(StepEnd(3, 100))
    assert run.watcher.seconds() == pytest.approx(97 * 2.0 + 1.0)
    assert run.watcher.step_s == pytest.approx(2.0)


def test_what_failed_is_not_measured() -> None:
    run = Run({}, 3)
    with pytest.raises(OSError), Stage(run.emit, SAVING):
        run.now += 50.0
        raise OSError
    run.go()
    assert run.watcher.took(SAVING) == 1.0 and run.watcher.took(DRAWING) is not None
    assert max(run.errors()) < 1e-6


@pytest.mark.parametrize("every", [0, 1, 3, 5, 7, 20, 100])
@pytest.mark.parametrize("steps", [1, 20, 21])
def test_what_is_ahead_is_what_a_run_does(steps: int, every: int) -> None:
    """Against the rules as they are written for a run: previews and validations come after the last step too."""
    agenda = Agenda({"preview_every": every, "save_every": every, "validation_every": every}, steps, 5)
    for start in range(steps + 1):
        later = range(start + 1, steps + 1)
        drawn = [step for step in later if every and (step % every == 0 or step == steps)]
        saved = [step for step in later if every and step % every == 0]
        assert agenda.ahead(start) == {DRAWING: len(drawn), VALIDATING: len(drawn), SAVING: len(saved) + 1}


def test_durations_in_words() -> None:
    given = [None, -1.0, float("nan"), 0.4, 42, 185, 7440, 266400]
    assert [in_words(seconds) for seconds in given] == [
        "",
        "",
        "",
        "0 s",
        "42 s",
        "3 min 05 s",
        "2 h 04 min",
        "3 d 02 h",
    ]


def test_a_stage_tells_that_it_begins_how_far_it_is_and_that_it_is_over() -> None:
    told: list[Any] = []
    with Stage(told.append, "drawing previews", 4) as stage:
        stage.advance(step=1, steps=20)
        stage.advance(2)
        stage.advance(step=20, steps=20)
        stage.advance(4)
    with Stage(told.append, "saving"):
        pass
    with Stage(told.append, "reading pictures", 0):
        pass
    assert [(event.description, event.over) for event in told] == [
        ("drawing previews 0 of 4", False),
        ("drawing previews 0 of 4, step 1 of 20", False),
        ("drawing previews 2 of 4", False),
        ("drawing previews 2 of 4, step 20 of 20", False),
        ("drawing previews 4 of 4", True),
        ("saving", False),
        ("saving", True),
        ("reading pictures", True),
    ]
    assert Progressed("a", 1, 1) == Progressed("a", 1, 1, 0, 0)
