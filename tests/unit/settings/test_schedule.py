"""Schedules that move, repeat and end at a share of the steps, against a second evaluation of the same words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tincture.errors import UsageError
from tincture.settings.fields import specs_of
from tincture.settings.schedule import Schedule
from tincture.settings.train import TrainSettings

SOUND = {"kind": "embedding", "name": "cat", "data": "pictures"}
PARTNERS = {
    "prior_weight": {"prior_data": "others"},
    "min_snr_gamma": {"timestep_weighting": "min_snr"},
    "guidance_scale": {"negative_prompt": "blurry"},
}
"""What a setting needs beside it to count for anything."""
SCHEDULES = [name for name, spec in specs_of(TrainSettings).items() if spec.schedule]


@dataclass(frozen=True)
class Written:
    """A segment as the test writes it."""

    first: float
    goal: float | None
    shape: str
    cycles: int
    end: int | Fraction | None  # a fraction is one of the run's steps

    @property
    def text(self) -> str:
        cycles = f"*{self.cycles}" if self.cycles > 1 else ""
        value = repr(self.first) if self.goal is None else f"{self.first!r} -> {self.goal!r} {self.shape}{cycles}"
        if self.end is None:
            return value
        return f"{value}:{self.end if isinstance(self.end, int) else f'{float(self.end * 100):g}%'}"

    def ends(self, steps: int) -> int:
        if self.end is None:
            return steps
        return self.end if isinstance(self.end, int) else math.ceil(self.end * steps)


def slowly(segments: list[Written], steps: int, step: int) -> float:
    """The value of a step, sought from the beginning and without any cleverness."""
    begin = 0
    for segment in segments:
        end = segment.ends(steps)
        if step < end:
            if segment.goal is None:
                return segment.first
            x = float(Fraction((step - begin) * segment.cycles, end - begin) % 1)
            f = {"": x, "linear": x, "cosine": 0.5 - 0.5 * math.cos(x * math.pi), "constant": 0.0}[segment.shape]
            return segment.first * (1 - f) + segment.goal * f
        begin = end
    raise AssertionError("the schedule is over")


values = st.one_of(st.just(0.0), st.floats(1e-9, 10))


@st.composite
def written(draw: st.DrawFn, steps: int = 200) -> list[Written]:
    ends: list[int | Fraction | None] = [*draw(st.lists(st.integers(1, 150), unique=True, max_size=5).map(sorted))]
    if draw(st.booleans()):  # shares instead, of a hundred steps or more each at least one
        ends = [Fraction(end, 200) for end in ends if isinstance(end, int)]
    made = []
    for end in [*ends, None]:
        shape = draw(st.sampled_from(["", "linear", "cosine", "constant"]))
        cycles = draw(st.integers(1, 5)) if shape in ("linear", "cosine") else 1
        made.append(Written(draw(values), draw(st.none() | values), shape, cycles, end))
    return [Written(s.first, s.goal, s.shape if s.goal is not None else "", s.cycles, s.end) for s in made]


@given(segments=written(), steps=st.integers(200, 400))
def test_every_step_has_the_value_that_the_words_say(segments: list[Written], steps: int) -> None:
    schedule = Schedule.parse(", ".join(segment.text for segment in segments), steps)
    assert schedule.end_step == steps
    for step in range(steps):
        assert schedule.at(step) == pytest.approx(slowly(segments, steps, step), rel=1e-9, abs=1e-12)
    assert all(schedule.at(step) >= 0 for step in range(steps))


@given(st.text(alphabet="0123456789.:,->%*e linearcost", max_size=40), st.integers(1, 50))
def test_any_text_is_a_schedule_or_a_sentence(text: str, steps: int) -> None:
    try:
        schedule = Schedule.parse(text, steps)
    except UsageError as error:
        assert "0.005" in str(error)
        return
    ends = [phase.end for phase in schedule.phases]
    assert ends == sorted(set(ends)) and ends[-1] <= steps
    assert [phase.begin for phase in schedule.phases] == [0, *ends[:-1]]
    found = [schedule.at(step) for step in range(steps)]
    assert all(0 <= value <= schedule.largest * (1 + 1e-12) for value in found)
    assert len(schedule.curve(20)) == min(20, schedule.end_step)


def test_a_segment_is_the_formula() -> None:
    schedule = Schedule.parse("0 -> 0.005:100, 0.005 -> 1e-5 cosine:1000", 1000)
    for n in range(100):
        assert schedule.at(n) == 0 + (0.005 - 0) * (n / 100)
    for n in range(100, 1000):
        assert schedule.at(n) == 0.005 + (1e-5 - 0.005) * ((1 - math.cos(math.pi * ((n - 100) / 900))) / 2)


def test_a_segment_that_the_run_cuts_off_moves_as_it_would_have() -> None:
    whole, cut = Schedule.parse("1 -> 0 cosine:1000", 1000), Schedule.parse("1 -> 0 cosine:1000", 300)
    assert cut.end_step == 300
    assert [cut.at(step) for step in range(300)] == [whole.at(step) for step in range(300)]


def test_a_shape_begins_anew_as_often_as_it_says() -> None:
    schedule = Schedule.parse("0.005 -> 1e-5 cosine*4:1000", 1000)
    once = Schedule.parse("0.005 -> 1e-5 cosine:250", 250)
    assert [schedule.at(step) for step in range(1000)] == [once.at(step % 250) for step in range(1000)]


def test_a_constant_shape_holds_the_first_value() -> None:
    schedule = Schedule.parse("0.1 -> 0.5 constant:4, 0.3 constant:6", 10)
    assert [schedule.at(step) for step in range(6)] == [0.1] * 4 + [0.3] * 2
    assert schedule.end_step == 6


@pytest.mark.parametrize(
    ("text", "steps", "ends"),
    [
        ("0.1:10%, 0.2", 1000, [100, 1000]),
        ("0.1:10%", 1000, [100]),
        ("0.1:2.5 %, 0.2:50%", 1000, [25, 500]),
        ("0.1:33%, 0.2", 10, [4, 10]),  # rounded up
        ("0.1:1%, 0.2:2%, 0.3", 20, [1, 20]),  # no step is left for the second
        ("0.1:30, 0.2:100%", 60, [30, 60]),
        ("0.1:100%, 0.2", 50, [50]),
    ],
)
def test_ends_in_percent_are_of_the_runs_steps(text: str, steps: int, ends: list[int]) -> None:
    assert [phase.end for phase in Schedule.parse(text, steps).phases] == ends


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("0.1, 0.1 -> :3", r"segment 2 \('0.1 -> :3'\) stands behind a rate that already holds to the end"),
        ("0.1:5, 0.1 -> :30", r"segment 2 \('0.1 -> :30'\) has '' where a rate is needed"),
        ("-> 0.1", r"segment 1 .* has '' where a rate is needed"),
        ("a -> 1", r"has 'a' where a rate is needed"),
        ("0 -> 1 -> 2:9", r"has 2 arrows"),
        ("0.1 linear:4", r"is linear, but has no arrow"),
        ("0 -> 1 sine:4", r"has 'sine' where a shape may stand; known are linear, cosine, constant"),
        ("0 -> 1 cosine*0", r"has 'cosine\*0'; only linear and cosine repeat"),
        ("0 -> 1 cosine*:9", r"has 'cosine\*'; only linear and cosine repeat"),
        ("0 -> 1 constant*2", r"has 'constant\*2'; only linear and cosine repeat"),
        ("0 -> 1 cosine linear", r"has 'cosine linear' where a shape may stand"),
        ("0 -> -1", r"negative or not a finite number"),
        ("0 -> nan:9", r"negative or not a finite number"),
        ("0.1:101%", r"ends at 101% of the run's steps; at most 100% is allowed"),
        ("0.1:50%, 0.2:40%", r"segment 2 \('0.2:40%'\) ends at step 40, but must end after step 50"),
        ("0.1:60, 0.2:50%", r"segment 2 \('0.2:50%'\) ends at step 50, but must end after step 60"),
        ("0.1:0%", r"ends at step 0, but must end after step 0"),
        ("0.1:%", r"has '%' where a whole number of steps, or -1, is needed"),
        ("0.1:1e3%", r"has '1e3%' where"),
        ("0.1:-5%", r"has '-5%' where"),
    ],
)
def test_what_is_malformed_is_refused_with_its_segment(text: str, fault: str) -> None:
    with pytest.raises(UsageError, match=fault) as error:
        Schedule.parse(text, 100)
    assert repr(text) in str(error.value)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_setting_that_is_a_schedule_takes_one_and_refuses_what_is_none(name: str) -> None:
    text = "0.1 -> 0.5 cosine*2:10%, 0.5 -> 0.25"
    sound = {**SOUND, **PARTNERS.get(name, {})}
    assert getattr(TrainSettings.from_dict({**sound, name: text}), name) == text
    assert getattr(TrainSettings.from_dict({**sound, name: 0.5}), name) == "0.5"
    with pytest.raises(UsageError, match=rf"{name}: In the schedule '0\.1:x' segment 1"):
        TrainSettings.from_dict({**sound, name: "0.1:x"})


def test_rates_thresholds_and_decays_are_schedules() -> None:
    assert {"learning_rate", "clip_grad_value", "ema"} <= set(SCHEDULES)


@pytest.mark.parametrize("text", ["0.9 -> 1:10, 0.99", "0.9:10, 0.9 -> 1.5", "0.9:2000, 1"])
def test_a_decay_stays_below_1_on_its_way_too(text: str) -> None:
    with pytest.raises(UsageError, match="a decay must be below 1"):
        TrainSettings.from_dict({**SOUND, "ema": text})


def test_what_is_told_of_a_schedule() -> None:
    schedule = Schedule.parse("0 -> 0.004:10%, 0.004 -> 1e-5 cosine*2:90%, 1e-5", 200)
    assert schedule.in_words() == (
        "0 -> 0.004 until step 20; then 0.004 -> 1e-05 cosine*2 until step 180; then 1e-05 until step 200"
    )
    assert schedule.curve(10) == "▁█▇▄▁█▆▂▁▁"
    assert schedule.changes and not Schedule.parse("0.1 -> 0.1:5, 0.1 -> 3 constant", 10).changes


@pytest.mark.parametrize("text", ["0.5→0.1", "0.5 - > 0.1", "0.5 => 0.1", "0.5 — 0.1:50%"])
def test_an_arrow_that_is_none_is_answered_with_how_it_is_written(text: str) -> None:
    with pytest.raises(UsageError, match=r"segment 1 .*Example: .* or '0 -> 0\.005:10%"):
        Schedule.parse(text, 100)
