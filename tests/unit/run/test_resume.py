"""A run that was stopped ends, bit for bit, as the one that never was."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runs import NAMES, RANDOM, Bench, OnStep, Recorder, csv_text, equal, last_state, trained
from tincture import recipe
from tincture.data.latents import LatentCache
from tincture.errors import DataError, FileFormatError, ModelError, UsageError
from tincture.events import Event, RunPrepared, RunStarted
from tincture.formats.files import safe_torch_load
from tincture.run.components import load_adapter
from tincture.run.folder import read_record, write_record
from tincture.run.relocate import relocated
from tincture.training.checkpoint import list_states
from tincture.workspace import Workspace

KINDS = ("embedding", "hypernetwork")
CLIPPED = {"clip_grad_mode": "norm", "clip_grad_value": "0.5:3, 0.01", "learning_rate": "1e-2:2, 3e-3:5, 1e-3"}


class Killed(BaseException):
    """Ends a run without any of its own cleaning up of files."""


def kill() -> None:
    raise Killed


def assert_same(one: recipe.RunResult, other: recipe.RunResult) -> None:
    assert equal(trained(one.adapter_path), trained(other.adapter_path))
    assert csv_text(one.run_dir) == csv_text(other.run_dir)
    assert equal(last_state(one.run_dir), last_state(other.run_dir))
    assert one.global_step == other.global_step
    assert one.loss == other.loss


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stops", [(3,), (1, 2, 6)], ids=str)
def test_stopped_and_resumed_equals_never_stopped(
    new_bench: Callable[[str], Bench], kind: str, stops: tuple[int, ...]
) -> None:
    settings = {**RANDOM, **CLIPPED, "steps": 7, "log_every": 3, "save_every": 4}
    whole = new_bench("whole").train(kind, **settings)
    stopped = new_bench("stopped")
    result = stopped.train(kind, stop_after=stops[0], **settings)
    for following in (*stops[1:], 0):
        assert result.interrupted
        result = stopped.resume(result.run_dir, stop_after=following)
    assert not result.interrupted
    assert_same(result, whole)
    assert result.adapter_path.read_bytes() == whole.adapter_path.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_killed_after_a_save_equals_never_stopped(new_bench: Callable[[str], Bench], kind: str) -> None:
    settings: dict[str, Any] = {**RANDOM, "steps": 6, "log_every": 1, "save_every": 2}
    whole = new_bench("whole").train(kind, **settings)
    killed = new_bench("killed")
    before = killed.path(kind).read_bytes()
    with pytest.raises(Killed):
        killed.train(kind, callbacks=[OnStep(5, kill)], **settings)
    assert killed.path(kind).read_bytes() == before
    (run_dir,) = (killed.workspace.logs).glob("*/*")
    assert csv_text(run_dir).count("\n") == 6  # the head and five steps, of which one will be done again
    assert_same(killed.resume(run_dir), whole)


def test_killed_before_the_first_state_starts_from_the_start(new_bench: Callable[[str], Bench]) -> None:
    whole = new_bench("whole").train("hypernetwork", **RANDOM)
    killed = new_bench("killed")
    with pytest.raises(Killed):
        killed.train("hypernetwork", callbacks=[OnStep(1, kill)], **RANDOM)
    (run_dir,) = killed.workspace.logs.glob("*/*")
    for _, path in list_states(run_dir / "state"):
        path.unlink()
    assert_same(killed.resume(run_dir), whole)


def test_hypernetwork_resumes_exactly_although_other_prompts_are_in_the_cache(
    new_bench: Callable[[str], Bench],
) -> None:
    """With batches of three, the resumed run meets prompts for the first time in other company."""
    settings: dict[str, Any] = {"batch_size": 3, "template": "style_filewords", "steps": 6}
    whole = new_bench("whole").train("hypernetwork", **settings)
    stopped = new_bench("stopped")
    result = stopped.train("hypernetwork", stop_after=3, **settings)
    assert_same(stopped.resume(result.run_dir), whole)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_resumes_exactly(new_bench: Callable[[str], Bench], kind: str, precision: str) -> None:
    settings: dict[str, Any] = {"precision": precision, "batch_size": 2, "steps": 4}
    whole = new_bench("whole").train(kind, **settings)
    stopped = new_bench("stopped")
    result = stopped.train(kind, stop_after=2, **settings)
    assert_same(stopped.resume(result.run_dir), whole)


def test_damaged_newest_state_falls_back_to_the_one_before(new_bench: Callable[[str], Bench]) -> None:
    settings: dict[str, Any] = {**RANDOM, "steps": 5, "save_every": 2}
    whole = new_bench("whole").train("embedding", **settings)
    stopped = new_bench("stopped")
    result = stopped.train("embedding", stop_after=3, **settings)
    (_, newest), (step, _) = list_states(result.run_dir / "state")
    assert step == 2
    newest.write_bytes(newest.read_bytes()[:200])
    with pytest.warns(UserWarning, match=r"step-00000003\.pt .* put aside .* The run goes on from step 2\."):
        assert_same(stopped.resume(result.run_dir), whole)
    assert newest.with_name(f"{newest.name}.damaged").stat().st_size == 200


def test_no_readable_state_is_told(bench: Bench) -> None:
    result = bench.train("embedding", stop_after=1)
    for _, path in list_states(result.run_dir / "state"):
        path.write_bytes(b"torn")
    with pytest.raises(FileFormatError, match=r"No training state in .* can be read"):
        bench.resume(result.run_dir)


def test_a_finished_run_stays_as_it_is(bench: Bench) -> None:
    result = bench.train("embedding")
    content = result.adapter_path.read_bytes()
    again = bench.resume(result.run_dir)
    assert (again.global_step, again.interrupted) == (4, False)
    assert result.adapter_path.read_bytes() == content


def test_changed_captions_are_refused_before_anything_is_encoded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    result = bench.train("embedding", stop_after=2, batch_size=5)
    (bench.data / "0.txt").write_text("another, caption")
    monkeypatch.setattr(LatentCache, "encode", kill)
    with pytest.raises(DataError, match="have changed since the run began"):
        bench.resume(result.run_dir)


def test_removed_picture_is_told_as_changed_data(bench: Bench) -> None:
    result = bench.train("embedding", stop_after=2, batch_size=5)
    (bench.data / "0.png").unlink()
    with pytest.raises(DataError, match="have changed since the run began"):
        bench.resume(result.run_dir)


def test_another_model_is_refused(bench: Bench) -> None:
    result = bench.train("embedding", stop_after=2)
    record = json.loads((result.run_dir / "run.json").read_text())
    (result.run_dir / "run.json").write_text(json.dumps({**record, "model_hash": "ffffffffff"}))
    with pytest.raises(ModelError, match="not the one that the run began with"):
        bench.resume(result.run_dir)


def test_file_trained_further_since_is_not_overwritten(bench: Bench) -> None:
    first = bench.train("embedding", stop_after=2)
    bench.train("embedding", steps=6)
    content = first.adapter_path.read_bytes()
    with pytest.raises(UsageError, match=r"has 6 steps, but the newest state in .* has 2"):
        bench.resume(first.run_dir)
    assert first.adapter_path.read_bytes() == content


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop_after", [0, 2])
def test_file_made_anew_since_is_not_overwritten(bench: Bench, kind: str, stop_after: int) -> None:
    """Even if it is the very file that the run began with."""
    fresh = bench.path(kind).read_bytes()
    result = bench.train(kind, stop_after=stop_after)
    bench.path(kind).write_bytes(fresh)
    with pytest.raises(UsageError, match=r"made anew or trained by another run since.*Move it away"):
        bench.resume(result.run_dir)
    assert bench.path(kind).read_bytes() == fresh
    bench.path(kind).unlink()
    assert bench.resume(result.run_dir).global_step == 4


def test_a_run_from_before_such_notes_resumes(bench: Bench) -> None:
    result = bench.train("embedding", stop_after=2)
    record = json.loads((result.run_dir / "run.json").read_text())
    del record["adapter_digests"]
    (result.run_dir / "run.json").write_text(json.dumps(record))
    assert bench.resume(result.run_dir).global_step == 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("after_write", [False, True])
@pytest.mark.parametrize("stops", [(), (2,), (1, 3)], ids=str)
def test_killed_while_the_adapter_is_written_equals_never_stopped(
    new_bench: Callable[[str], Bench],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    after_write: bool,
    stops: tuple[int, ...],
) -> None:
    settings: dict[str, Any] = {**RANDOM, "steps": 5, "save_every": 1}
    whole = new_bench("whole").train(kind, **settings)
    killed = new_bench("killed")
    run_dir = killed.train(kind, stop_after=stops[0], **settings).run_dir if stops else None
    for stop in stops[1:]:
        assert run_dir
        killed.resume(run_dir, stop_after=stop)
    adapter = type(load_adapter(kind, killed.path(kind), NAMES[kind]))
    save = adapter.save

    def save_and_die(self: Any, path: Path, **told: Any) -> None:
        if path != killed.path(kind) or after_write:
            save(self, path, **told)
        if path == killed.path(kind):
            kill()

    with monkeypatch.context() as dying:
        dying.setattr(adapter, "save", save_and_die)
        for _ in range(2):  # and once more when it goes on
            with pytest.raises(Killed):
                killed.resume(run_dir) if run_dir else killed.train(kind, **settings)
            (run_dir,) = killed.workspace.logs.glob("*/*")
    assert run_dir
    assert_same(killed.resume(run_dir), whole)
    assert len(json.loads((run_dir / "run.json").read_text())["adapter_digests"]) == 1


def test_resume_writes_the_adapter_even_if_its_file_is_gone(new_bench: Callable[[str], Bench]) -> None:
    whole = new_bench("whole").train("embedding")
    stopped = new_bench("stopped")
    result = stopped.train("embedding", stop_after=2)
    result.adapter_path.unlink()
    assert_same(stopped.resume(result.run_dir), whole)


def test_edited_template_does_not_change_a_run(new_bench: Callable[[str], Bench], tmp_path: Path) -> None:
    template = tmp_path / "own.txt"
    template.write_text("moon in [name] and [filewords]\n[name]\n")
    settings: dict[str, Any] = {"template": str(template), "steps": 4}
    whole = new_bench("whole").train("embedding", **settings)
    stopped = new_bench("stopped")
    result = stopped.train("embedding", stop_after=2, **settings)
    template.write_text("[name] star")
    assert_same(stopped.resume(result.run_dir), whole)


def test_resume_from_another_folder(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths that were given relative to one folder are found from another one."""
    monkeypatch.chdir(bench.model.parent)
    result = bench.train("embedding", stop_after=2, model="tiny")
    monkeypatch.chdir(tmp_path)
    assert bench.resume(result.run_dir).global_step == 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_moved_workspace_gets_the_result(new_bench: Callable[[str], Bench], kind: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {**RANDOM, "save_every": 1}
    whole = new_bench("whole").train(kind, **settings)
    stopped = new_bench("old")
    model = stopped.workspace.models / "own"
    shutil.copytree(stopped.model, model)
    result = stopped.train(kind, stop_after=2, model=str(model), **settings)
    (tmp_path / "old").rename(tmp_path / "new")
    workspace = Workspace(tmp_path / "new")
    run_dir = tmp_path / "new" / result.run_dir.relative_to(tmp_path / "old")
    again = recipe.resume(run_dir, workspace=workspace)
    assert again.adapter_path == workspace.adapter_path(kind, NAMES[kind])
    assert equal(trained(again.adapter_path), trained(whole.adapter_path))
    assert not (tmp_path / "old").exists()
    assert recipe.resume(run_dir).adapter_path == again.adapter_path  # the run knows its new place


def test_what_a_moved_workspace_lacks_stays_where_it_was(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    (new / "datasets" / "rex").mkdir(parents=True)
    (old / "datasets" / "sky").mkdir(parents=True)
    paths = {"model": str(old / "models" / "m"), "vae": "", "masks": "/elsewhere/masks", "cache_dir": ""}
    (new / "models" / "BLIP").mkdir(parents=True)
    data = [f"{old}/datasets/rex:3", f"{old}/datasets/sky:2"]
    adapter = old / "embeddings" / "rex.pt"
    settings: dict[str, Any] = {**paths, "data": data, "caption_model": str(old / "models" / "BLIP")}
    record = {"root": str(old), "adapter_path": str(adapter), "settings": settings, "model_hash": "0"}
    moved = relocated(record, new / "textual_inversion" / "rex", Workspace(new))
    assert (moved["root"], moved["adapter_path"]) == (str(new), str(new / "embeddings" / "rex.pt"))
    there = {"data": [f"{new}/datasets/rex:3", data[1]], "caption_model": str(new / "models" / "BLIP")}
    assert moved["settings"] == {**paths, **there}
    assert relocated(record, tmp_path / "logs" / "rex", Workspace(new)) == record
    validated = {**record, "settings": {**settings, "validation_data": data[::-1]}}
    found = relocated(validated, new / "textual_inversion" / "rex", Workspace(new))
    assert found["settings"]["validation_data"] == [data[1], f"{new}/datasets/rex:3"]
    others = [{"adapter_path": str(old / "hypernetworks" / "ink.pt"), "adapter_digests": ["0"]}]
    joint = relocated({**record, "companions": others}, new / "textual_inversion" / "rex", Workspace(new))
    assert joint["companions"] == [{"adapter_path": str(new / "hypernetworks" / "ink.pt"), "adapter_digests": ["0"]}]
    outside = {**record, "adapter_path": str(tmp_path / "mine" / "rex.pt")}
    assert relocated(outside, new / "rex", Workspace(new))["adapter_path"] == outside["adapter_path"]


def test_a_folder_that_is_no_run_is_told(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"has no run\.json"):
        bench.resume(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(FileFormatError, match="cannot be read"):
        bench.resume(tmp_path)
    (tmp_path / "run.json").write_text('{"settings": {}}')
    with pytest.raises(FileFormatError, match="lacks adapter_path, data_hash"):
        bench.resume(tmp_path)


def test_states_hold_the_optimizers_numbers(bench: Bench) -> None:
    """Should they be missing, Adam would start from zero moments, and only exactness would tell."""
    state = safe_torch_load(list_states(bench.train("embedding").run_dir / "state")[0][1])
    (moments,) = state["optimizer"]["state"].values()
    assert moments["exp_avg"].shape == moments["exp_avg_sq"].shape == (2, 32)
    assert moments["step"] == 4
    assert moments["exp_avg_sq"].count_nonzero() > 0


def test_the_run_folder_is_told_before_the_first_step_and_can_be_resumed_from_then_on(
    new_bench: Callable[[str], Bench],
) -> None:
    class KillWhenPrepared(Recorder):
        def on_event(self, event: Event) -> None:
            super().on_event(event)
            if isinstance(event, RunPrepared):
                kill()

    whole, killed = new_bench("whole").train("embedding"), new_bench("killed")
    watcher, recorder = KillWhenPrepared(), Recorder()
    with pytest.raises(Killed):
        killed.train("embedding", callbacks=[watcher])
    (prepared,) = watcher.of(RunPrepared)
    assert (prepared.settings["name"], prepared.settings["learning_rate"]) == ("cat", "1e-2")
    assert not list_states(prepared.run_dir / "state")
    assert_same(killed.resume(prepared.run_dir, callbacks=[recorder]), whole)
    kinds = [type(event) for event in recorder.events]
    assert [event.run_dir for event in recorder.of(RunPrepared)] == [prepared.run_dir]
    assert kinds.index(RunPrepared) < kinds.index(RunStarted)


def test_what_is_asked_of_a_run_that_goes_on_is_not_its_record_s_fault(bench: Bench) -> None:
    stopped = bench.train("embedding", stop_after=1)
    for asked, words in (({"processes": "20"}, "processes is 20"), ({"vram": "much"}, "vram is 'much'")):
        with pytest.raises(UsageError, match=words) as refusal:
            recipe.resume(stopped.run_dir, memory=asked)
        assert "run.json" not in str(refusal.value)
    record = stopped.run_dir / "run.json"
    write_record(stopped.run_dir, {**read_record(stopped.run_dir), "settings": {"kind": "embedding", "steps": -1}})
    with pytest.raises(UsageError, match=re.escape(str(record))):
        recipe.resume(stopped.run_dir, memory={"threads": 1})


def test_a_run_may_go_on_elsewhere(bench: Bench) -> None:
    stopped = bench.train("embedding", stop_after=2)
    with pytest.raises(UsageError, match="device"):
        recipe.resume(stopped.run_dir, device="toaster")
    assert recipe.resume(stopped.run_dir, device="cpu").global_step == 4
