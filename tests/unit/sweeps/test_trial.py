"""A run of a sweep is what it would be without one, whatever stops it, and nothing of it is done twice."""

from __future__ import annotations

import csv
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.runs import Bench, OnStep, Recorder, equal, trained
from tests.unit.sweeps.sweeping import Inline, made, search
from tincture import recipe
from tincture.errors import UsageError
from tincture.events import Event, StepEnd
from tincture.sweeps.standings import rows_of
from tincture.sweeps.sweep_folder import SweepFolder
from tincture.sweeps.sweep_report import latest_previews
from tincture.sweeps.trial import TRAIN_WINDOW, find_run, perform, read_losses

RUNS: dict[str, Any] = {"steps": 6, "save_every": 2, "batch_size": 2, "shuffle_tags": True, "grid": {"seed": [3, 4]}}


class Killed(BaseException):
    """Ends a run without any of its own cleaning up of files."""


def kill() -> None:
    raise Killed


def steps_of(sweep: SweepFolder, recorder: Recorder) -> list[int]:
    return [event.global_step for event in recorder.of(StepEnd)]


def straight(bench: Bench, sweep: SweepFolder, kind: str, number: int = 0) -> Any:
    """What a plain training of the settings of a run gives."""
    settings = sweep.trials()[number].train_settings()
    result = recipe.train(settings.replace(name=bench.settings(kind).name), bench.workspace)
    return trained(result.adapter_path)


@pytest.mark.parametrize("kind", ["hypernetwork"])
def test_a_run_that_climbs_rungs_ends_as_one_that_was_never_stopped(bench: Bench, kind: str) -> None:
    sweep, recorder = made(bench, kind=kind, **RUNS, halving={"rungs": [2, 3], "factor": 1.5}), Recorder()
    assert search(sweep, Inline(sweep, watchers=[recorder]))
    done = next(row for row in rows_of(sweep, ()) if row.state == "done")
    number = [trial.name for trial in sweep.trials()].index(done.trial.name)
    assert equal(trained(Path(done.result["adapter_path"])), straight(bench, sweep, kind, number))
    assert len(steps_of(sweep, recorder)) == 6 + 6  # both of two points go on at factor 1.5


@pytest.mark.parametrize(("kind", "at"), [("embedding", 1), ("hypernetwork", 3)])
def test_a_run_that_was_killed_goes_on_from_its_newest_state(bench: Bench, kind: str, at: int) -> None:
    sweep = made(bench, kind=kind, **RUNS)
    with pytest.raises(Killed):
        search(sweep, Inline(sweep, watchers=[OnStep(at, kill)]))
    recorder = Recorder()
    assert search(sweep, Inline(sweep, watchers=[recorder]))
    newest = at - 1 - (at - 1) % 2  # a state every two steps; the kill came before that of its own step
    assert steps_of(sweep, recorder)[0] in (newest + 1, at + 1)
    for number, row in enumerate(rows_of(sweep, ())):
        assert equal(trained(Path(row.result["adapter_path"])), straight(bench, sweep, kind, number))
        bench.path(kind).write_bytes(sweep.start_of(0).read_bytes())  # type: ignore[union-attr]
    assert len(list(bench.workspace.logs.glob("*/try-p01*"))) == 1


def test_what_was_done_before_its_result_was_written_is_not_done_again(bench: Bench) -> None:
    """As after a kill between the end of a run and the note of what came of it."""
    sweep = made(bench, **RUNS, halving={"rungs": [3]})
    assert search(sweep, Inline(sweep))
    before = {row.trial.name: row.result for row in rows_of(sweep, ())}
    for path in sweep.path.glob("trials/*/result-*.json"):
        path.unlink()
    recorder = Recorder()
    assert search(sweep, Inline(sweep, watchers=[recorder]))
    # A run that went beyond a rung has no result of it any more, unless it is there: that run is at its end.
    assert not steps_of(sweep, recorder)
    ends = {name: found["global_step"] for name, found in before.items()}
    assert {row.trial.name: row.global_step for row in rows_of(sweep, ())} == ends


def test_a_run_that_is_asked_to_stop_saves_and_goes_on(bench: Bench) -> None:
    sweep, stop, recorder = made(bench, **RUNS), threading.Event(), Recorder()
    trial = sweep.trials()[0]
    folder = sweep.trial(trial.name)
    folder.ask(None)

    class Slow:
        """Waits until the run was asked, too."""

        def on_event(self, event: Event) -> None:
            if isinstance(event, StepEnd) and event.global_step == 3:
                stop.set()
                while not any(thread.name != "stop" for thread in threading.enumerate()):
                    pass
                threading.Event().wait(0.3)

    assert perform(folder, [Slow()], stop) is None
    assert folder.progress()["global_step"] == 3 and folder.latest() is None
    assert perform(folder, [recorder], threading.Event()) is not None
    assert steps_of(sweep, recorder) == [4, 5, 6]


def test_the_training_loss_is_the_mean_of_the_latest_steps(bench: Bench) -> None:
    sweep = made(bench, **RUNS)
    assert search(sweep, Inline(sweep))
    row = rows_of(sweep, ())[0]
    run_dir = Path(row.result["run_dir"])
    losses = [loss for _, loss in read_losses(run_dir, "embedding")]
    assert len(losses) == 6 < TRAIN_WINDOW
    assert row.result["train_loss"] == pytest.approx(sum(losses) / 6)
    assert find_run(row.trial.train_settings(), bench.workspace) == run_dir


def test_runs_are_ranked_by_validation_where_it_is_measured(bench: Bench) -> None:
    more: dict[str, Any] = {"validation_share": 0.4, "validation_every": 2}
    sweep = made(bench, **RUNS, **more, halving={"rungs": [2]})
    assert sweep.metric == "validation_loss"
    assert search(sweep, Inline(sweep))
    rows = rows_of(sweep, ())
    at_rung = {row.trial.name: sweep.trial(row.trial.name).result(2)["validation_loss"] for row in rows}  # type: ignore[index]
    (kept,) = [row for row in rows if row.state == "done"]
    assert at_rung[kept.trial.name] == min(at_rung.values())
    with (Path(kept.result["run_dir"]) / "validation_loss.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert kept.result["validation_loss"] == float(last["validation_loss"])


def test_a_run_stops_exactly_at_its_rung_with_previews_of_it(bench: Bench) -> None:
    previews: dict[str, Any] = {"preview_every": 100, "preview_prompts": ["a [name]"], "preview_steps": 1}
    sweep, recorder = made(bench, **RUNS, **previews, halving={"rungs": [3]}), Recorder()
    assert search(sweep, Inline(sweep, watchers=[recorder]))
    for row in rows_of(sweep, ()):
        found = latest_previews(Path(row.result["run_dir"]))
        assert found is not None and found[0] == row.global_step and len(found[1]) == 1
    assert sorted(row.global_step for row in rows_of(sweep, ())) == [3, 6]
    assert len(steps_of(sweep, recorder)) == 9


def test_adapters_are_made_anew_where_their_options_vary(bench: Bench) -> None:
    run = {key: value for key, value in RUNS.items() if key != "grid"}
    sweep = made(bench, **run, create={"init_text": "moon"}, grid={"create.num_vectors": [1, 3]})
    assert search(sweep, Inline(sweep))
    shapes = [trained(Path(row.result["adapter_path"])) for row in rows_of(sweep, ())]
    assert [next(iter(tensors.values())).shape[0] for tensors in shapes] == [1, 3]


def test_several_adapters_are_trained_together_in_each_run(bench: Bench) -> None:
    sweep = made(bench, **RUNS, companions=["hypernetwork:ink"])
    before = bench.path("hypernetwork").read_bytes()
    assert search(sweep, Inline(sweep))
    for row in rows_of(sweep, ()):
        assert [Path(path).exists() for path in row.result["adapter_paths"]] == [True, True]
    assert bench.path("hypernetwork").read_bytes() == before


def test_a_run_that_cannot_be_made_says_why_and_the_others_go_on(bench: Bench) -> None:
    (bench.workspace.root / "empty").mkdir()
    data = [str(bench.data), str(bench.workspace.root / "empty")]
    sweep = made(bench, steps=3, grid={"data": data})
    assert search(sweep, Inline(sweep))
    rows = rows_of(sweep, ())
    assert [row.state for row in rows] == ["done", "failed"] and "empty" in rows[1].error


def test_a_sweep_is_worked_at_by_one_alone(bench: Bench) -> None:
    sweep = made(bench, **RUNS)
    with sweep.held():
        assert sweep.is_held()
        with pytest.raises(Exception, match="goes on in another process"), sweep.held():
            pass
    assert not sweep.is_held()


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"name": 1}'])
def test_a_damaged_sweep_is_refused_in_a_sentence(bench: Bench, damage: str) -> None:
    sweep = made(bench, **RUNS)
    (sweep.path / "sweep.json").write_text(damage)
    with pytest.raises(Exception, match=r"sweep\.json is damaged"):
        SweepFolder(sweep.path)


def test_no_sweep_of_that_name(bench: Bench) -> None:
    from tincture.sweeps.sweep_folder import find_sweep

    made(bench, **RUNS)
    with pytest.raises(UsageError, match="no sweep 'other'; there are try"):
        find_sweep(bench.workspace, "other")
