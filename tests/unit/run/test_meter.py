"""Seconds by phase add up to the time that went by, and memory is counted in bytes."""

from __future__ import annotations

import pytest
import torch

from tincture.events import Event, Progressed, RunEnded, RunMeasured, RunStarted, StepEnd
from tincture.run import meter
from tincture.run.duration import DRAWING, ENCODING, PROMPTS, SAVING, VALIDATING, TimeLeft
from tincture.run.lines import measured_words


class Watch:
    """A run whose seconds a test counts."""

    def __init__(self) -> None:
        self.now = 100.0
        self.time_left = TimeLeft(lambda: self.now)
        self.heard: list[RunMeasured] = []
        self.meter = meter.Meter(self.time_left, 8, torch.device("cpu"), lambda event: self.on(event))

    def on(self, event: Event) -> None:
        if isinstance(event, RunMeasured):
            self.heard.append(event)

    def stage(self, name: str, seconds: float) -> None:
        self.time_left.on_event(Progressed(name, 0, 1))
        self.now += seconds
        self.time_left.on_event(Progressed(name, 1, 1))

    def event(self, event: Event) -> None:
        self.time_left.on_event(event)
        self.meter.on_event(event)


def test_seconds_by_phase_add_up() -> None:
    watch = Watch()
    watch.stage("loading the model", 3)
    watch.now += 1
    watch.stage("reading pictures", 2)
    watch.stage("something new", 0.5)
    watch.stage(ENCODING, 4)
    watch.event(RunStarted(0, 4, 5, 5))
    for step in (1, 2):
        watch.now += 0.25
        watch.event(StepEnd(step, 4))
    watch.stage(PROMPTS, 0.125)
    watch.stage(DRAWING, 6)
    watch.stage(VALIDATING, 7)
    watch.event(RunEnded(2, True, 1.0))
    watch.stage(SAVING, 2)
    phases = watch.meter.measured(2).phases
    assert phases == {
        "loading": 5.0,
        "encoding": 4.125,
        "steps": 0.5,
        "previews": 6.0,
        "validation": 7.0,
        "saving": 2.0,
        "other": 1.5,
    }
    assert sum(phases.values()) == watch.now - 100
    assert [event.global_step for event in watch.heard] == [2]
    assert watch.heard[0].pictures_per_s == pytest.approx(8 / 0.25) and watch.heard[0].phases["saving"] == 0


def test_before_the_first_step_no_speed_is_known() -> None:
    measured = Watch().meter.measured(0)
    assert measured.step_s is None and measured.pictures_per_s is None


def test_memory_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    found = meter.memory_in_use(torch.device("cpu"))
    assert found.keys() == {"process", "process_peak"} and 2**20 < found["process"] <= found["process_peak"]
    monkeypatch.setattr(meter, "_STATUS", meter._STATUS / "absent")
    assert meter.memory_in_use(torch.device("cpu"))["process_peak"] == pytest.approx(found["process_peak"], rel=0.2)


def test_what_was_measured_is_a_sentence() -> None:
    phases = {"loading": 1.25, "steps": 90.0, "saving": 0.01}
    memory = {"process": 1, "process_peak": 3 * 2**29, "device_peak": 2**31}
    words = measured_words({"pictures_per_s": 12.345, "memory": memory, "phases": phases})
    assert words == ("12.3 pictures a second; at most 1.50 GiB and 2.00 GiB on the device; loading 1.2 s, steps 90.0 s")
    assert measured_words({}) == measured_words({"memory": {}, "phases": {}}) == ""
