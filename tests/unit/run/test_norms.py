"""Norms of vectors by the settings of a run: refused where there are none, exact after a stop, told in the plan."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runs import RANDOM, Bench, Recorder, csv_text, equal, last_state, trained
from tincture import recipe
from tincture.adapters.hypernetwork import Hypernetwork
from tincture.errors import UsageError
from tincture.events import StepsDone
from tincture.models.loading.load import load_model
from tincture.run.lines import numbers
from tincture.run.losses import check_norms
from tincture.training.metrics import CSV_COLUMNS

HELD: dict[str, Any] = {"norm_limit": "1.3:3, 1.2", "norm_weight": "0:2, 0.1 -> 0.5"}
FAST: dict[str, Any] = {**RANDOM, "steps": 5, "learning_rate": "0.5", "template": "subject"}


def longest(bench: Bench, path: Path) -> float:
    """Of a file's vectors, as a multiple of the mean norm of the model's tokens."""
    table = load_model(str(bench.model), workspace=bench.workspace, device="cpu").text.encoders[0].table.weight  # type: ignore[attr-defined]
    (rows,) = trained(path).values()
    return float(rows.double().norm(dim=1).max() / table.double().norm(dim=1).mean())


def test_a_limit_holds_to_the_end_of_a_run(new_bench: Callable[[str], Bench]) -> None:
    held, free, averaged = (
        longest(bench, bench.train("embedding", **FAST, **changes).adapter_path)
        for bench, changes in (
            (new_bench("held"), {"norm_limit": 1.2}),
            (new_bench("free"), {}),
            (new_bench("averaged"), {"norm_limit": 1.2, "ema": 0.5}),
        )
    )
    assert free > 2
    assert held == pytest.approx(1.2, abs=1e-6)
    assert averaged <= 1.2 * (1 + 1e-6)


@pytest.mark.parametrize("more", [{}, {"ema": 0.5}, {"companions": ["hypernetwork:ink:1e-2"]}], ids=("", "ema", "with"))
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    new_bench: Callable[[str], Bench], more: dict[str, Any]
) -> None:
    changes = {**FAST, **HELD, **more}
    whole = new_bench("whole").train("embedding", **changes)
    stopped = new_bench("stopped")
    result = stopped.resume(stopped.train("embedding", stop_after=3, **changes).run_dir)
    assert equal(trained(result.adapter_path), trained(whole.adapter_path))
    assert equal(last_state(result.run_dir), last_state(whole.run_dir))
    assert csv_text(result.run_dir) == csv_text(whole.run_dir)


def test_the_longest_vector_is_logged_where_norms_are_held(new_bench: Callable[[str], Bench]) -> None:
    bench, recorder = new_bench("held"), Recorder()
    result = bench.train("embedding", callbacks=[recorder], **FAST, norm_limit=1.2, log_every=2)
    header, *rows = [line.split(",") for line in csv_text(result.run_dir).splitlines()]
    assert header == [*CSV_COLUMNS, "vector_norm"]
    assert float(rows[-1][-1]) == pytest.approx(longest(bench, result.adapter_path), rel=1e-5)
    told = [each.further["vector_norm"] for event in recorder.of(StepsDone) for each in event.records]
    assert [float(row[-1]) for row in rows] == pytest.approx(told, rel=1e-5)
    assert max(told) <= 1.2 * (1 + 1e-6)
    assert "  norm 1.2  epoch" in numbers(recorder.of(StepsDone)[-1])
    plain = new_bench("plain").train("embedding", **FAST)
    assert csv_text(plain.run_dir).splitlines()[0] == ",".join(CSV_COLUMNS)


def test_each_switch_changes_what_is_trained_and_validation_measures_the_same(
    new_bench: Callable[[str], Bench],
) -> None:
    files, measured = [], []
    for name, changes in (("none", {}), ("limit", {"norm_limit": 1.2}), ("weight", {"norm_weight": 1})):
        settings = {**FAST, **changes, "steps": 2, "validation_share": 0.4, "validation_bands": 3}
        result = new_bench(name).train("embedding", **settings)
        files.append(trained(result.adapter_path))
        measured.append((result.run_dir / "validation_loss.csv").read_text().splitlines()[1])
    assert len(set(measured)) == 1
    assert not any(equal(one, other) for place, one in enumerate(files) for other in files[:place])


def test_in_a_joint_run_an_embedding_that_rests_stays_as_it_is(bench: Bench) -> None:
    """Though its vectors are longer than allowed."""
    before = trained(bench.path("embedding"))
    held = {**FAST, **HELD, "norm_limit": 0.5, "companions": ["embedding:cat:0:3, 0.1"], "batch_size": 1}
    result = bench.train("hypernetwork", **{**held, "learning_rate": "1e-2"}, stop_after=3)
    assert equal(trained(result.companions[0].adapter_path), before)
    again = bench.resume(result.run_dir)
    assert longest(bench, again.companions[0].adapter_path) <= 0.5 * (1 + 1e-6)


def test_the_plan_tells_it(bench: Bench) -> None:
    plan = recipe.plan(bench.settings("embedding", **{**FAST, **HELD}), bench.workspace, timing="none")
    assert plan["loss"] == (
        "mse; vectors at most 1.3:3, 1.2 times as long as tokens on average; "
        "lengths of vectors held to that of tokens on average, weight 0:2, 0.1 -> 0.5"
    )
    assert plan["schedules"]["norm_limit"].startswith("1.3 until step 3; then 1.2 until step 5")
    assert plan["schedules"]["norm_weight"].startswith("0 until step 2; then 0.1 -> 0.5 until step 5")
    assert [*plan["token_norms"]] == ["clip_l"]


def test_an_adapter_without_such_vectors_is_refused_whatever_its_kind_says(bench: Bench) -> None:
    network = Hypernetwork.load(bench.path("hypernetwork"))
    with pytest.raises(UsageError, match="No vectors of the hypernetwork 'ink' stand for tokens"):
        check_norms(bench.settings("embedding", norm_weight=1), network)
    check_norms(bench.settings("embedding"), network)


@pytest.mark.parametrize(
    ("kind", "changes", "faults"),
    [
        (
            "hypernetwork",
            {"norm_limit": 2, "norm_weight": "1"},
            [
                "norm_limit is '2', but a hypernetwork has no vectors that stand for tokens",
                "norm_weight is '1', but a hypernetwork has no vectors that stand for tokens",
            ],
        ),
        (
            "embedding",
            {"norm_limit": "2:5, 0", "norm_weight": "0:5, 0", "min_snr_gamma": 5},
            [
                "norm_limit is '2:5, 0', but must be above 0 in every step",
                "norm_weight is '0:5, 0', so that it would never count",
                "min_snr_gamma is '5', but timestep_weighting is 'none'",
            ],
        ),
        ("embedding", {"norm_limit": "2:x", "steps": 0}, ["steps is 0"]),
        ("embedding", {"norm_limit": "2:x"}, ["norm_limit: In the schedule '2:x' segment 1"]),
        ("embedding", {"norm_weight": "x"}, ["norm_weight: In the schedule 'x' segment 1"]),
        (
            "embedding",
            {"norm_limit": 2, "optimizer": "ScheduleFreeAdamW"},
            ["norm_limit is '2', but ScheduleFreeAdamW keeps averages of its own"],
        ),
    ],
    ids=("hypernetwork", "zeros", "steps", "limit", "weight", "averages"),
)
def test_what_makes_no_sense_is_refused(bench: Bench, kind: str, changes: dict[str, Any], faults: list[str]) -> None:
    with pytest.raises(UsageError) as refused:
        bench.settings(kind, **changes)
    assert [fault for fault in faults if fault not in str(refused.value)] == []


def test_a_joint_run_needs_an_embedding(bench: Bench) -> None:
    with pytest.raises(UsageError, match="norm_limit is '2', but a hypernetwork has no vectors"):
        bench.settings("hypernetwork", norm_limit=2, companions=["hypernetwork:other"])
    assert bench.settings("hypernetwork", norm_limit=2, companions=["embedding:cat"]).norm_limit == "2"
