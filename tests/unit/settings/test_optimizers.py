"""Rates and arguments of optimizers, as people type them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tincture.errors import UsageError
from tincture.settings.optimizers import LIBRARY, REFUSED, argument_text, parse_arguments, usual_rate
from tincture.settings.train import TrainSettings

SOUND = {"kind": "embedding", "name": "cat", "data": "pictures"}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("betas=(0.9,0.99) d_coef=2", {"betas": (0.9, 0.99), "d_coef": 2}),
        ("betas=[0.9, 0.99], eps=1e-6,", {"betas": (0.9, 0.99), "eps": 1e-6}),
        ("a=true b=None c='x y=1' d=-.5", {"a": True, "b": None, "c": "x y=1", "d": -0.5}),
        (" momentum = 0.9   nesterov = True ", {"momentum": 0.9, "nesterov": True}),
        ("", {}),
    ],
)
def test_arguments_are_literals_by_name(text: str, values: dict[str, Any]) -> None:
    assert parse_arguments(text) == values


@pytest.mark.parametrize(
    "text",
    [
        "0.9",
        "a",
        "a=b",
        "a=f(1)",
        "a=1 a=2",
        "**{}",
        "*[1]",
        "a=(1",
        "a='",
        "a=1;b",
        "a=1)",
        "=3",
        "a={'x':1}",
        "a=9**9",
        "a=__import__('os').getpid()",
        "a=1\n)+f(",
        "(" * 900,
        "a=" + "[" * 400,
        "a=lambda: 1",
        "a=b'x'",
        "a=1j",
        "a=f'{1}'",
        "a=1e999",
        "a=(1, -1e999)",
    ],
)
def test_all_else_is_refused_and_nothing_is_computed(text: str) -> None:
    with pytest.raises(UsageError, match="must"):
        parse_arguments(text)
    with pytest.raises(UsageError, match="optimizer_args is"):
        TrainSettings.from_dict({**SOUND, "optimizer_args": text})


@given(st.text(alphabet="abe=()[],.'\" 0123456789-TrueNon\n#*{}:", max_size=40))
def test_any_text_is_arguments_or_a_sentence(text: str) -> None:
    try:
        found = parse_arguments(text)
    except UsageError:
        return
    assert parse_arguments(argument_text(found)) == found


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer": "AdamWScheduleFree", "ema": "0.9"}, "AdamWScheduleFree averages the weights itself"),
        ({"optimizer": "sgdschedulefree", "norm_limit": "2"}, "averages, which a limit after each step does not hold"),
        ({"optimizer_args": "lr=1"}, "lr cannot stand there: learning_rate is instead"),
        ({"optimizer_args": "params=1"}, "params cannot stand there"),
        ({"optimizer_args": "maximize=True"}, "maximize cannot stand there: a run makes the loss smaller"),
        ({"optimizer_args": "weight_decay=0.1", "weight_decay": 0.2}, "weight_decay is given too; give one of them"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        TrainSettings.from_dict({**SOUND, **changes})


def test_contradictions_are_told_together() -> None:
    wrong = {"optimizer_args": "lr=1", "optimizer": "ScheduleFreeSGD", "ema": "0.9", "learning_rate": "x"}
    with pytest.raises(UsageError) as error:
        TrainSettings.from_dict({**SOUND, **wrong})
    for words in ("3 settings are not allowed", "lr cannot stand", "averages the weights itself", "learning_rate: "):
        assert words in str(error.value)


def test_what_is_named_twice_is_named() -> None:
    with pytest.raises(UsageError, match="must not name betas, eps twice"):
        parse_arguments("eps=1 betas=(0.9, 0.99) eps=1 betas=(0.9, 0.99)")


def test_all_that_is_wrong_with_arguments_is_told_together() -> None:
    text = "lr=1 params=1 maximize=true capturable=true weight_decay=0.1"
    with pytest.raises(UsageError) as error:
        TrainSettings.from_dict({**SOUND, "optimizer_args": text, "weight_decay": 0.2})
    assert "5 settings are not allowed" in str(error.value)
    for name in ("lr", "params", "maximize", "capturable"):
        assert f"but {name} cannot stand there" in str(error.value)


@pytest.mark.parametrize(
    ("optimizer", "rate", "other", "is_one"),
    [
        ("Prodigy", "1", "embedding:b:0.5", False),
        ("dadaptadam", "", "hypernetwork:b:1:10, 0.5", False),
        ("prodigy", "", "hypernetwork:b", True),
        ("Prodigy", "1.0", "hypernetwork:b:1", True),
        ("AdamW", "1", "embedding:b:0.5", True),
    ],
)
def test_several_rates_are_refused_with_all_else_where_an_optimizer_takes_one(
    optimizer: str, rate: str, other: str, is_one: bool
) -> None:
    values = {**SOUND, "optimizer": optimizer, "learning_rate": rate, "with": [other], "loss_scale": 0.3}
    with pytest.raises(UsageError) as error:
        TrainSettings.from_dict(values)
    assert "loss_scale is 0.3" in str(error.value)
    assert ("takes one learning rate" not in str(error.value)) == is_one


def test_weight_decay_among_the_arguments_is_the_one_that_holds() -> None:
    settings = TrainSettings.from_dict({**SOUND, "optimizer_args": "weight_decay=0.1"}).resolved()
    assert settings.weight_decay is None and settings.resolved() == settings


@pytest.mark.parametrize(
    ("optimizer", "rate"),
    [
        ("AdamW", "0.005"),
        ("sgd", "0.5"),
        ("Lion", "0.001"),
        ("Prodigy", "1"),
        ("DAdaptLion", "1"),
        ("adadelta", "1"),
        ("ScheduleFreeAdamW", "0.0125"),
        ("adamwschedulefree", "0.0125"),
        ("unheard of", "0.005"),
    ],
)
def test_the_rate_where_none_is_given(optimizer: str, rate: str) -> None:
    assert usual_rate(optimizer, "0.005") == rate


def test_a_schedule_is_scaled_by_its_values_alone() -> None:
    assert usual_rate("SGD", "1e-3:100, 0 -> 2e-3 cosine*4:10%, 5e-4") == "0.1:100, 0 -> 0.2 cosine*4:10%, 0.05"


def test_no_optimizer_is_offered_and_refused() -> None:
    assert not set(LIBRARY) & set(REFUSED)
