"""What a sweep's file may say, and the runs that it stands for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.runs import Bench, make_bench
from tests.unit.sweeps.sweeping import given, made
from tincture.errors import UsageError
from tincture.models.stable_diffusion import StableDiffusion
from tincture.sweeps.sweep_faults import checked
from tincture.sweeps.sweep_file import KEYS, MOST_RUNS, normalized, read_sweep, sweep_name
from tincture.sweeps.sweep_folder import make_sweep
from tincture.workspace import parse_copy_name

RATES = {"learning_rate": ["1e-3", "1e-2"]}
DRAWN = {"trials": 3, "ranges": {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}}


def values(sweep: Any) -> list[dict[str, Any]]:
    return [trial.values for trial in sweep.trials()]


def test_a_grid_is_every_value_with_every_other(bench: Bench) -> None:
    sweep = made(bench, grid={**RATES, "batch_size": [1, 2, 3]})
    assert len(sweep.trials()) == 6 and len({str(each) for each in values(sweep)}) == 6
    trial = sweep.trials()[4]
    assert trial.train_settings().batch_size == trial.values["batch_size"]
    assert [each.name for each in sweep.trials()][:2] == ["try-p01", "try-p02"]


def test_points_and_draws_are_combined_with_the_grid_and_with_seeds(bench: Bench) -> None:
    sweep = made(bench, points=[{"batch_size": 1}, {"batch_size": 2, "steps": 3}], grid=RATES, seeds=[3, 4])
    assert [trial.point for trial in sweep.trials()] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert [trial.train_settings().seed for trial in sweep.trials()][:2] == [3, 4]
    drawn = made(bench, "drawn", random=DRAWN, grid={"batch_size": [1, 2]})
    assert [each["batch_size"] for each in values(drawn)] == [1, 2] * 3
    assert all(1e-4 <= each["learning_rate"] <= 1e-2 for each in values(drawn))


def test_no_run_has_the_name_of_a_copy(bench: Bench) -> None:
    sweep = made(bench, grid=RATES, seeds=[0, 1])
    names = [trial.name for trial in sweep.trials()]
    assert len(set(names)) == 4 and not [name for name in names if parse_copy_name(name)]


def test_the_same_seed_draws_the_same_points(bench: Bench) -> None:
    first, again = (values(made(bench, name, random={**DRAWN, "seed": 5})) for name in ("a", "b"))
    other = values(made(bench, "c", random={**DRAWN, "seed": 6}))
    assert first == again != other


def test_what_is_drawn_fits_its_setting(bench: Bench) -> None:
    ranges = {
        "batch_size": {"low": 1, "high": 4},
        "template": {"choices": ["subject", "style"]},
        "gradient_accumulation_steps": {"low": 2, "high": 8, "step": 2},
        "caption_drop_out": {"low": 0, "high": 0.5},
    }
    for each in values(made(bench, random={"trials": 12, "ranges": ranges})):
        assert type(each["batch_size"]) is int and each["template"] in ("subject", "style")
        assert each["gradient_accumulation_steps"] % 2 == 0 and 0 <= each["caption_drop_out"] <= 0.5


def test_a_draw_of_few_choices_gives_each_once(bench: Bench) -> None:
    sweep = made(bench, random={"trials": 20, "ranges": {"batch_size": {"choices": [1, 2, 3]}}})
    assert sorted(each["batch_size"] for each in values(sweep)) == [1, 2, 3]


def test_prompts_name_the_adapter_of_the_run(bench: Bench) -> None:
    sweep = made(bench, grid=RATES, preview_prompts=["a cat on a mat, cat-like", "a [name]"], negative_prompt="")
    first = sweep.trials()[0]
    assert first.train_settings().preview_prompts == (f"a {first.name} on a mat, cat-like", "a [name]")


def test_adapters_that_are_trained_together_are_each_runs_own(bench: Bench) -> None:
    sweep = made(bench, grid=RATES, companions=["hypernetwork:ink:1e-4"])
    names = [trial.train_settings().adapters for trial in sweep.trials()]
    assert names == [[("embedding", f"try-p0{n}"), ("hypernetwork", f"try-p0{n}-ink")] for n in (1, 2)]
    assert sweep.trials()[0].train_settings().others[0].learning_rate == "1e-4"


def test_a_sweep_begins_with_the_adapter_as_it_is_now(bench: Bench) -> None:
    before = bench.path("embedding").read_bytes()
    sweep = made(bench, grid=RATES)
    bench.path("embedding").write_bytes(b"another")
    start = sweep.start_of(0)
    assert start is not None and start.read_bytes() == before


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nothing varies": ({}, "nothing varies"),
    "a key that is no setting": (
        {"grid": {"lerning_rate": [1]}},
        "no setting 'lerning_rate'; the nearest is learning_rate",
    ),
    "a value outside its limits": (
        {"grid": {"batch_size": [1, 0]}},
        "batch_size is 0, but must be at least 1 (point 2)",
    ),
    "a value of another type": ({"points": [{"steps": "many"}]}, "steps is 'many', but must be a whole number"),
    "an empty list": ({"grid": {"batch_size": []}}, "must be a list of one value or more"),
    "no list": ({"grid": {"batch_size": 1}}, "must be a list"),
    "a value twice": ({"grid": {"batch_size": [1, 1]}}, "one of them twice"),
    "a point twice": ({"points": [{"steps": 2}, {"steps": 2}]}, "one of them twice"),
    "a key in two places": ({"grid": RATES, "points": [{"learning_rate": 1e-3}]}, "stands in [grid] and in [[points]]"),
    "points and draws": ({"points": [{"steps": 2}], "random": DRAWN}, "give one of them"),
    "seeds and seed": ({"grid": {"seed": [1, 2]}, "seeds": [0, 1]}, "seed varies and seeds are given"),
    "a seed twice": ({"seeds": [1, 1]}, "one of them twice"),
    "no seeds": ({"grid": RATES, "seeds": ["a"]}, "list of whole numbers"),
    "the name varies": ({"grid": {"name": ["a", "b"]}}, "name cannot vary"),
    "the kind varies": ({"grid": {"kind": ["embedding", "hypernetwork"]}}, "kind cannot vary"),
    "too many": (
        {"grid": {"seed": list(range(40)), "steps": list(range(4, 40))}},
        f"at most {MOST_RUNS:,} are allowed",
    ),
    "an empty grid": ({"grid": {}}, "[grid] is empty"),
    "an empty list of points": ({"grid": RATES, "points": []}, "[[points]] is empty"),
    "an empty halving": ({"grid": RATES, "halving": {}}, "[halving] is empty"),
    "an unknown key of a table": (
        {"grid": RATES, "halving": {"rung": [2]}},
        "no [halving] key 'rung'; the nearest is rungs",
    ),
    "no trials": ({"random": {**DRAWN, "trials": 0}}, "trials is 0"),
    "no ranges": ({"random": {"trials": 2}}, "[random.ranges] must be"),
    "a range upside down": ({"random": {"trials": 2, "ranges": {"steps": {"low": 9, "high": 4}}}}, "goes from 9 to 4"),
    "a logarithm of zero": (
        {"random": {"trials": 2, "ranges": {"caption_drop_out": {"low": 0, "high": 0.5, "log": True}}}},
        "must begin above 0",
    ),
    "parts of a step": (
        {"random": {"trials": 2, "ranges": {"batch_size": {"low": 1.5, "high": 4}}}},
        "[random.ranges] batch_size has 1.5, but must have whole numbers",
    ),
    "a number without end": (
        {"random": {"trials": 2, "ranges": {"steps": {"low": 4, "high": 10**400}}}},
        "must be numbers",
    ),
    "no choices": ({"random": {"trials": 2, "ranges": {"template": {"choices": []}}}}, "list of one value or more"),
    "a sampler": ({"random": {**DRAWN, "sampler": "luck"}}, "must be random or tpe"),
    "learning and halving": (
        {"random": {**DRAWN, "sampler": "tpe"}, "halving": {"rungs": [2]}},
        "[halving] stops runs",
    ),
    "a range beyond its limits": (
        {"random": {"trials": 9, "sampler": "tpe", "ranges": {"batch_size": {"low": -5, "high": 4}}}},
        "batch_size is -5",
    ),
    "a rung behind the end": ({"grid": RATES, "halving": {"rungs": [2, 4]}}, "ends at step 4"),
    "rungs out of order": ({"grid": RATES, "halving": {"rungs": [3, 2]}}, "each must be above the one before"),
    "a factor": ({"grid": RATES, "halving": {"rungs": [2], "factor": 1}}, "must be a number above 1"),
    "a metric": ({"grid": RATES, "metric": "beauty"}, "must be one of"),
    "two metrics": (
        {"grid": RATES, "metric": "train_loss", "halving": {"rungs": [2], "metric": "validation_loss"}},
        "metric is 'train_loss', but [halving] metric 'validation_loss'",
    ),
    "a metric that is not measured": ({"grid": RATES, "metric": "validation_loss"}, "nothing is measured"),
    "a rung at which nothing is measured": (
        {"grid": RATES, "halving": {"rungs": [3]}, "validation_share": 0.5, "validation_every": 2},
        "nothing is measured at the rung 3",
    ),
    "an oracle for another model": ({"grid": RATES, "oracle": {"style": "sunset"}}, "reads pictures of picto alone"),
    "no such style": ({"grid": RATES, "oracle": {"style": "cubism"}}, "[oracle] style is 'cubism'"),
    "no oracle": ({"grid": RATES, "metric": "fidelity"}, "[oracle] must have a subject"),
    "no such option": ({"grid": {"create.vectors": [1, 2]}}, "no option 'create.vectors'"),
    "an option beyond its limits": ({"grid": {"create.num_vectors": [1, 99]}}, "from 1 to 75"),
    "no such folder": ({"grid": {"data": ["nowhere", "no-place"]}}, "nowhere"),
    "no such model": ({"grid": RATES, "model": "unknown"}, "unknown"),
}


@pytest.fixture(scope="module")
def untouched(shared_model: StableDiffusion, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """One workspace for all that writes nothing."""
    return make_bench(tmp_path_factory.mktemp("untouched"), shared_model, model_folder)


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_allowed_is_refused_before_anything_is_written(untouched: Bench, name: str) -> None:
    more, sentence = BAD[name]
    before = sorted(untouched.workspace.root.rglob("*"))
    with pytest.raises(UsageError, match=re.escape(sentence)):
        make_sweep(given(untouched, **more), untouched.workspace, "try", "s.toml")
    assert sorted(untouched.workspace.root.rglob("*")) == before


def test_all_that_is_wrong_is_named_together_and_once(bench: Bench) -> None:
    grid = {"batch_size": [0, 1], "gradient_accumulation_steps": [1, 2], "steps": [-3, 4]}
    with pytest.raises(UsageError) as raised:
        made(bench, grid=grid)
    text = str(raised.value)
    assert text.count("batch_size is 0") == 1 and text.count("steps is -3") == 1 and "2 things" in text
    with pytest.raises(UsageError, match=r"(?s)'cat2'.*nowhere") as raised:
        make_sweep(
            {**given(bench), "run": {**given(bench)["run"], "name": "cat2", "data": "nowhere"}, "grid": RATES},
            bench.workspace,
            "x",
        )
    assert "tincture create" in raised.value.sentence


def test_a_key_that_is_none_hides_nothing_else(bench: Bench) -> None:
    with pytest.raises(UsageError) as raised:
        made(bench, grid={"lerning_rate": [1], "batch_size": [0, 1]}, seeds=[0, 1])
    text = str(raised.value)
    assert "no setting 'lerning_rate'" in text and text.count("batch_size is 0") == 1


def test_a_key_that_is_none_is_refused(bench: Bench) -> None:
    with pytest.raises(UsageError, match="no key 'halvin'; the nearest is halving"):
        make_sweep({**given(bench, grid=RATES), "halvin": {}}, bench.workspace, "try")


ODD: tuple[Any, ...] = (None, True, 7, "text", [7], [[]], {"a": 7}, {"a": {"b": []}})


@pytest.mark.parametrize("key", [*KEYS, "zzz"])
def test_whatever_stands_for_a_part_is_refused_in_a_sentence_or_taken(untouched: Bench, key: str) -> None:
    for odd in ODD:
        _, trials, faults = checked(normalized({**given(untouched, grid=RATES), key: odd}, "odd"), untouched.workspace)
        assert bool(trials) != bool(faults), odd


def test_any_seed_can_be_given(bench: Bench) -> None:
    assert len(made(bench, random={**DRAWN, "seed": 2**60}).trials()) == 3


def test_a_name_that_is_taken_is_refused(bench: Bench) -> None:
    other = bench.workspace.adapter_path("embedding", "try-p02")
    other.write_bytes(bench.path("embedding").read_bytes())
    with pytest.raises(UsageError, match="an embedding 'try-p02' already"):
        made(bench, grid=RATES)
    assert len(made(bench, "another", grid=RATES).trials()) == 2


def test_the_same_file_opens_the_sweep_and_another_is_refused(bench: Bench) -> None:
    sweep = made(bench, grid=RATES, halving={"rungs": [2]})
    assert made(bench, grid=RATES, halving={"rungs": [2]}).trials() == sweep.trials()
    with pytest.raises(UsageError, match=r"begun with another grid; give this one another `name`"):
        made(bench, grid={"batch_size": [1, 2]}, halving={"rungs": [2]})
    with pytest.raises(UsageError, match="another halving"):
        made(bench, grid=RATES, halving={"rungs": [3]})


def test_a_sweep_that_was_killed_while_it_was_made_is_made_again(bench: Bench) -> None:
    sweep = made(bench, grid=RATES)
    (sweep.path / "sweep.json").unlink()
    assert len(made(bench, grid={"batch_size": [1, 2, 3]}).trials()) == 3


def test_a_run_file_is_found_beside_the_sweeps(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('kind = "embedding"\n')
    (tmp_path / "Best of all!.toml").write_text('run = "run.toml"\n')
    assert read_sweep(tmp_path / "Best of all!.toml")["run"] == {"kind": "embedding"}
    assert sweep_name("x/Best of all!.toml") == "Best-of-all"
    with pytest.raises(UsageError, match=r"absent\.toml"):
        (tmp_path / "s.toml").write_text('run = "absent.toml"\n')
        read_sweep(tmp_path / "s.toml")


def test_a_run_file_without_a_name_makes_its_adapters_or_is_refused(bench: Bench) -> None:
    nameless = {key: value for key, value in given(bench)["run"].items() if key != "name"}
    with pytest.raises(UsageError, match=r"run names no adapter; give it a name, or .* \[create\]"):
        make_sweep({"run": nameless, "grid": RATES}, bench.workspace, "nameless")
    sweep = make_sweep({"run": nameless, "grid": RATES, "create": {}}, bench.workspace, "nameless")
    assert [trial.name for trial in sweep.trials()] == ["nameless-p01", "nameless-p02"]
