"""What the page writes into the text of a sweep, and how it shows one."""

from __future__ import annotations

import tomllib

import pytest

from tincture.errors import UsageError
from tincture.server.page.sweeps import view
from tincture.server.page.sweeps.text import values_of, with_table, with_values

TEXT = '# mine\nname = "a" # [grid]\n\n[grid] # varies\nsteps = [1, 2]  # few\n\n[[points]]\nseed = 3\n'


def test_a_table_is_put_in_and_all_else_stays() -> None:
    first = with_table(TEXT, "run", 'kind = "embedding"\n')
    assert tomllib.loads(first) == {**tomllib.loads(TEXT), "run": {"kind": "embedding"}} and "# mine" in first
    again = with_table(first, "run", "steps = 3")
    assert tomllib.loads(again) == {**tomllib.loads(TEXT), "run": {"steps": 3}} and "# few" in again
    assert with_table("", "run", "steps = 3") == "[run]\nsteps = 3\n"


def test_values_take_the_place_of_those_of_the_same_setting() -> None:
    found = tomllib.loads(with_values(with_values(TEXT, "steps", [5]), "learning_rate", ["0.1", "0.2"]))
    assert found == {**tomllib.loads(TEXT), "grid": {"steps": [5], "learning_rate": ["0.1", "0.2"]}}
    assert tomllib.loads(with_values("", "flip", [True, False])) == {"grid": {"flip": [True, False]}}


@pytest.mark.parametrize(
    ("key", "typed", "values"),
    [
        ("learning_rate", "0.005\n 0.002:200, 0.001 \n\n", ["0.005", "0.002:200, 0.001"]),
        ("batch_size", "1\n2", [1, 2]),
        ("caption_drop_out", "0\n0.5", [0.0, 0.5]),
        ("shuffle_tags", "yes\nfalse", [True, False]),
        ("data", "a\nb", ["a", "b"]),
    ],
)
def test_values_are_read_as_the_setting_takes_them(key: str, typed: str, values: list[object]) -> None:
    assert values_of(key, typed) == values


@pytest.mark.parametrize(
    ("key", "typed", "words"),
    [
        ("batch_size", "1\nmany", "“Batch size” is a whole number, not 'many'"),
        ("caption_drop_out", "x", "is a number"),
        ("shuffle_tags", "perhaps", "is yes or no"),
        ("steps", " \n", "No values"),
    ],
)
def test_what_is_no_value_is_refused(key: str, typed: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        values_of(key, typed)


def test_a_sweep_of_many_runs_is_shown_in_part_and_means_itself() -> None:
    text = "<script>alert(1)</script>"
    run = {
        "run": "r",
        "author": text,
        "state": "done",
        "step": 3,
        "train_loss": 0.25,
        "seconds": 61.0,
        "file": "/x",
        "message": "",
    }
    found = {
        "name": "a b'\"",
        "state": "running",
        "metric": "train_loss",
        "states": {"done": 300},
        "best": text,
        "error": text,
        "columns": list(run),
        "runs": [run] * 300,
    }
    shown = view.shown(found)
    assert text not in shown and "&lt;script&gt;" in shown and "0.2500" in shown and "1 min 01 s" in shown
    assert shown.count("<tr") == 1 + view.MOST_ROWS and "200 more runs stand in the report." in shown
    assert 'href="api/v1/sweeps/a%20b%27%22/report"' in shown and "/x" not in shown
