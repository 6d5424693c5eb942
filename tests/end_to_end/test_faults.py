"""Runs that are killed at random moments, or whose disk fills up, end as the run that nothing happened to.

The moments are drawn by the seed in the header of the test run; ``python -m tests.faults`` tries more.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults import DAMAGES, KINDS, Laboratory, Moment, Result, damaged, files_of, filled, killed, trials
from tests.runs import make_bench
from tests.support import save_folder, tiny_model

KILLED = 25  # of each kind of adapter
FULL = 5


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing happens to: how many moments it has, and what it leaves."""

    laboratory: Laboratory
    kind: str
    moments: int
    result: Result


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    folder, model = tmp_path_factory.mktemp("faults"), tiny_model()
    return Laboratory(folder, make_bench(folder / "template", model, save_folder(model, folder / "model")))


@pytest.fixture(scope="module", params=KINDS)
def undisturbed(request: pytest.FixtureRequest, laboratory: Laboratory) -> Undisturbed:
    bench = laboratory.bench()
    outcome = laboratory.run(bench, request.param)
    assert outcome.state == "done", outcome
    return Undisturbed(laboratory, request.param, outcome.moments, Result.of(bench, request.param))


def test_a_run_killed_at_any_moment_ends_as_if_it_had_not_been(undisturbed: Undisturbed) -> None:
    """Averages, validation, accumulation, dropout, shuffled and dropped tags, mirrored pictures, previews: all on."""
    faults = {}
    for moments in trials(random.Random(random.random()), undisturbed.moments, KILLED):
        wrong = killed(undisturbed.laboratory, undisturbed.kind, moments, undisturbed.result)
        faults |= {tuple(moments): wrong} if wrong else {}
    assert not faults


def test_a_full_disk_costs_nothing_but_a_sentence(undisturbed: Undisturbed) -> None:
    faults = {}
    for number in random.sample(range(1, undisturbed.moments + 1), FULL):
        wrong = filled(undisturbed.laboratory, undisturbed.kind, number, undisturbed.result)
        faults |= {number: wrong} if wrong else {}
    assert not faults


def test_a_damaged_file_is_noticed_or_harmless(undisturbed: Undisturbed) -> None:
    """A flipped bit, a zeroed block, a cut end in each file of a run that was killed late; numbers are never others."""
    laboratory, kind = undisturbed.laboratory, undisturbed.kind
    stopped = laboratory.bench()
    assert laboratory.run(stopped, kind, Moment("kill", undisturbed.moments * 3 // 4)).state == "killed"
    draw, faults = random.Random(random.random()), {}
    for file in files_of(stopped):
        damage = draw.choice(list(DAMAGES))
        wrong = damaged(laboratory, kind, stopped, file, damage, draw, undisturbed.result)
        faults |= {(file, damage): wrong} if wrong else {}
    assert not faults


def test_the_comparison_sees_what_differs(undisturbed: Undisturbed) -> None:
    """One more step, or one other picture, is noticed: else nothing above would say anything."""
    bench = undisturbed.laboratory.bench()
    assert undisturbed.laboratory.run(bench, undisturbed.kind, preview_seed=1).state == "done"
    assert all(".png" in name for name in undisturbed.result.differences(Result.of(bench, undisturbed.kind)))
    assert undisturbed.result.differences(Result.of(bench, undisturbed.kind))
    bench = undisturbed.laboratory.bench()
    assert undisturbed.laboratory.run(bench, undisturbed.kind, learning_rate="1.1e-2").state == "done"
    assert {"state", "log"} <= set(undisturbed.result.differences(Result.of(bench, undisturbed.kind)))


def test_a_moment_is_the_same_each_time(undisturbed: Undisturbed, tmp_path: Path) -> None:
    laboratory, kind = undisturbed.laboratory, undisturbed.kind
    left = []
    for _ in range(2):
        bench = laboratory.bench()
        assert laboratory.run(bench, kind, Moment("kill", undisturbed.moments // 2)).state == "killed"
        files = (path for path in bench.workspace.logs.rglob("*") if path.is_file())
        left.append(sorted(path.name for path in files if not path.name.startswith("settings-")))
    assert left[0] == left[1]
