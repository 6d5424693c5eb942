"""Adapters that are trained together with a run's own, as settings name them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tincture.errors import UsageError
from tincture.settings.companions import Companion
from tincture.settings.train import TrainSettings

SMALL: dict[str, Any] = {"kind": "embedding", "name": "rex", "data": "d", "steps": 1000}
SCHEDULE = "0 -> 1e-4 cosine:10%, 1e-4"


def settings(*companions: Any, **more: Any) -> TrainSettings:
    return TrainSettings.from_dict({**SMALL, **more, "with": list(companions)})


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("hypernetwork:ink", Companion(kind="hypernetwork", name="ink")),
        (" hypernetwork : ink pot.pt ", Companion(kind="hypernetwork", name="ink pot.pt")),
        (f"hypernetwork:ink:{SCHEDULE}", Companion(kind="hypernetwork", name="ink", learning_rate=SCHEDULE)),
        (
            "embedding:max:0:200, 1e-4; weight_decay=0.1; template=a folder/its.txt;",
            Companion(
                kind="embedding", name="max", learning_rate="0:200, 1e-4", weight_decay=0.1, template="a folder/its.txt"
            ),
        ),
        ("embedding:max; template=style", Companion(kind="embedding", name="max", template="style")),
    ],
)
def test_texts_are_read_and_written_alike(text: str, meant: Companion) -> None:
    assert Companion.parse(text) == meant
    assert Companion.parse(str(meant)) == meant


def test_tables_texts_and_a_lone_one_mean_the_same(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    head = 'kind = "embedding"\nname = "rex"\ndata = "d"\nsteps = 1000\n'
    given = [
        '[[with]]\nkind = "hypernetwork"\nname = "ink"\nlearning_rate = 1e-4\nweight_decay = 0.5\n',
        'with = ["hypernetwork:ink:0.0001; weight_decay=0.5"]\n',
        'with = "hypernetwork:ink:0.0001; weight_decay=0.5"\n',
        'companions = "hypernetwork:ink:0.0001; weight_decay=0.5"\n',
    ]
    for text in given:
        path.write_text(head + text)
        assert TrainSettings.from_toml(path).companions == ("hypernetwork:ink:0.0001; weight_decay=0.5",)
    made = TrainSettings(**SMALL, companions=[{"kind": "hypernetwork", "name": "ink"}])  # type: ignore[arg-type]
    assert made.companions == ("hypernetwork:ink",)
    path.write_text(made.to_toml())
    assert TrainSettings.from_toml(path) == made


@pytest.mark.parametrize(
    ("companion", "fault"),
    [
        ("hyper:ink", "with has 'hyper:ink', but it must be KIND:NAME"),
        ("hypernetwork", "but it must be KIND:NAME"),
        ({"kind": "hypernetwork"}, "but it must be KIND:NAME"),
        ({"kind": "hypernetwork", "name": "ink", "rate": 1}, "it has the key 'rate'; known are kind, name"),
        ("hypernetwork:ink; weight_decay=-1", "its weight_decay is '-1', but must be a number, at least 0"),
        ("hypernetwork:ink; template=a; template=b", "it has a key twice"),
        ("hypernetwork:ink:fast", "In the schedule 'fast' segment 1"),
        ("hypernetwork:../ink", "whose name is not made of letters"),
        ("embedding:rex", "the embedding 'rex', which is trained already"),
        ("embedding:rex.pt", "the embedding 'rex', which is trained already"),
        (3, "companions is"),
    ],
)
def test_what_is_wrong_is_named(companion: Any, fault: str) -> None:
    with pytest.raises(UsageError, match=re.escape(fault)):
        settings(companion)


def test_all_that_is_wrong_is_told_in_one_message() -> None:
    with pytest.raises(UsageError, match=r"3 settings.*are not allowed(.|\n)*'x:y'(.|\n)*fast(.|\n)*trained already"):
        settings("x:y", "hypernetwork:ink:fast", "embedding:rex")
    with pytest.raises(UsageError, match="with and companions are one setting"):
        settings(companions=["hypernetwork:ink"])


def test_a_mask_is_for_one_word_and_a_card_for_any() -> None:
    with pytest.raises(UsageError, match="a mask does not say whose it is"):
        settings("embedding:max", attention_mask_weight=0.1)
    assert settings("hypernetwork:ink", attention_mask_weight=0.1).companions
    both = {"kind": "hypernetwork", "name": "ink", "attention_mask_weight": 0.1, "preview_with_embedding": True}
    assert settings("embedding:max", **both).companions
    with pytest.raises(UsageError, match="preview_every is 0"):
        settings("embedding:max", **both, preview_every=0)


def test_what_is_left_open_is_the_kinds() -> None:
    resolved = settings("hypernetwork:ink", "embedding:max").resolved()
    assert resolved.companions == ("hypernetwork:ink:1e-5", "embedding:max:0.005; weight_decay=0.0")
    first = TrainSettings.from_dict({**SMALL, "kind": "hypernetwork", "with": "embedding:max"}).resolved()
    assert (first.template, first.learning_rate) == ("subject_filewords", "1e-5")


def test_the_run_ends_with_the_last_schedule() -> None:
    assert settings(learning_rate="0.005:200").last_step == 200
    assert settings("hypernetwork:ink:0:200, 1e-4:500", learning_rate="0.005:200").last_step == 500
    assert settings("hypernetwork:ink:0:200, 1e-4", learning_rate="0.005:200").last_step == 1000
