"""Several adapters trained at once, each with a rate, a template and a file of its own."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runs import RANDOM, Bench, OnStep, Recorder, equal, last_state, trained
from tests.unit.run.test_resume import Killed, kill
from tincture import recipe
from tincture.adapters.embedding import Embedding, create_embedding
from tincture.adapters.files.inspection import inspect_file
from tincture.adapters.hypernetwork import Hypernetwork
from tincture.errors import BusyError, UsageError
from tincture.events import CheckpointSaved
from tincture.models.stable_diffusion import StableDiffusion
from tincture.run.data import load_data, load_template
from tincture.run.folder import read_record
from tincture.run.grids import validation_prompts
from tincture.run.ownership import AdapterLocks, adapter_lock

INK = {"with": ["hypernetwork:ink:1e-3"]}
RUN: dict[str, Any] = {**RANDOM, "steps": 6, "log_every": 1, "save_every": 2, "clip_grad_mode": "norm"}


def with_dog(bench: Bench, model: StableDiffusion, step: int = 0) -> Path:
    """A second embedding in the workspace, which has ``step`` steps."""
    path = bench.workspace.adapter_path("embedding", "dog")
    embedding = create_embedding("dog", model, 1, "star")
    embedding.step = step
    embedding.save(path)
    return path


def files(result: recipe.RunResult) -> list[Path]:
    return [result.adapter_path, *(other.adapter_path for other in result.companions)]


def assert_same(one: recipe.RunResult, other: recipe.RunResult) -> None:
    assert equal(last_state(one.run_dir), last_state(other.run_dir))
    for path, same in zip(files(one), files(other), strict=True):
        assert path.read_bytes() == same.read_bytes()


# --- files, steps, copies --------------------------------------------------------------------------------------------


def test_each_has_a_file_copies_and_steps_of_its_own(bench: Bench, shared_model: StableDiffusion) -> None:
    """The run counts as the first one does; the other goes on from where it stands."""
    dog, recorder = with_dog(bench, shared_model, step=10), Recorder()
    before = {path: trained(path) for path in (bench.path("embedding"), dog, bench.path("hypernetwork"))}
    more = {"with": [{"kind": "embedding", "name": "dog", "template": "style"}, *INK["with"]], "keep_copies": 2}
    result = bench.train("embedding", **RUN, **more, callbacks=[recorder])
    assert files(result) == list(before)
    assert all(not equal(trained(path), start) for path, start in before.items())
    loaded = [Embedding.load(path) for path in files(result)[:2]]
    assert [each.step for each in loaded] == [6, 16]
    assert Hypernetwork.load(result.companions[1].adapter_path).step == 6
    copies = {path.name for path in result.run_dir.rglob("*s/*-*.pt")}
    assert copies == {"cat-4.pt", "cat-6.pt", "dog-14.pt", "dog-16.pt", "ink-4.pt", "ink-6.pt"}
    assert {event.path for event in recorder.of(CheckpointSaved)} >= set(before)
    assert {path.name for path in result.run_dir.glob("start*")} == {"start.pt", "start-2.pt", "start-3.pt"}


def test_each_file_says_which_it_is_and_all_settings_of_the_run(bench: Bench) -> None:
    result = bench.train("embedding", **RUN, **INK)
    names = [("embedding", "cat"), ("hypernetwork", "ink")]
    for path, (kind, name) in zip(files(result), names, strict=True):
        provenance = inspect_file(path)["provenance"]
        assert provenance["member"] == {"kind": kind, "name": name}
        assert provenance["settings"]["name"] == "cat"
        assert provenance["settings"]["companions"] == ["hypernetwork:ink:1e-3"]
    alone = bench.train("hypernetwork", **{**RUN, "steps": 8})
    assert "member" not in inspect_file(alone.adapter_path)["provenance"]


def test_the_other_order_trains_the_same_prompts(bench: Bench) -> None:
    """[name] is the embedding's name also where the hypernetwork comes first, whose own template has none."""
    start = trained(bench.path("embedding"))
    result = bench.train("hypernetwork", steps=2, **{"with": "embedding:cat"})
    assert read_record(result.run_dir)["settings"]["template"] == "subject_filewords"
    assert not equal(trained(result.companions[0].adapter_path), start)


# --- resume ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{"ema": "0.9"}, {"optimizer": "SGD"}], ids=str)
def test_stopped_or_killed_and_resumed_equals_never_stopped(
    new_bench: Callable[[str], Bench], more: dict[str, Any]
) -> None:
    """With pivotal tuning by schedules: the embedding rests from step 3 on, the hypernetwork until then."""
    settings = {**RUN, **more, "learning_rate": "1e-2:3, 0", "with": "hypernetwork:ink:0:3, 1e-3"}
    whole = new_bench("whole").train("embedding", **settings)
    stopped = new_bench("stopped")
    result = stopped.train("embedding", stop_after=2, **settings)
    assert result.interrupted
    assert_same(stopped.resume(stopped.resume(result.run_dir, stop_after=4).run_dir), whole)
    killed = new_bench("killed")
    with pytest.raises(Killed):
        killed.train("embedding", callbacks=[OnStep(5, kill)], **settings)
    (run_dir,) = killed.workspace.logs.glob("*/*")
    assert_same(killed.resume(run_dir), whole)


def test_pivotal_tuning_is_a_training_of_the_one_and_then_of_the_other(bench: Bench) -> None:
    start = trained(bench.path("hypernetwork"))
    first = bench.train(
        "embedding", **RUN, **{"with": "hypernetwork:ink:0:3, 1e-3"}, learning_rate="1e-2:3", stop_after=3
    )
    assert equal(trained(first.companions[0].adapter_path), start)
    pivot = trained(first.adapter_path)
    result = bench.resume(first.run_dir)
    assert result.global_step == 6  # the run ends with the last of the schedules
    assert equal(trained(result.adapter_path), pivot)
    assert not equal(trained(result.companions[0].adapter_path), start)


def test_a_file_that_another_made_meanwhile_is_not_overwritten(bench: Bench, shared_model: StableDiffusion) -> None:
    dog = with_dog(bench, shared_model)
    settings = {**RUN, "with": "embedding:dog:1e-2; template=style"}
    result = bench.train("embedding", stop_after=2, **settings)
    create_embedding("dog", shared_model, 3, "moon").save(dog)
    with pytest.raises(UsageError, match=r"dog\.pt is not what the run in .* left there"):
        bench.resume(result.run_dir)
    with pytest.warns(UserWarning, match=r"dog\.pt is not what this run left there"):
        again = bench.train(
            "embedding", **{**settings, "steps": 4}, callbacks=[OnStep(3, lambda: remake(dog, shared_model))]
        )
    assert again.companions[0].adapter_path.name.startswith("dog-")
    assert again.adapter_path == bench.path("embedding")


def remake(path: Path, model: StableDiffusion) -> None:
    create_embedding("dog", model, 1, "red").save(path)


def test_a_damaged_start_of_a_companion_costs_nothing(new_bench: Callable[[str], Bench]) -> None:
    whole = new_bench("whole").train("embedding", **RUN, **INK)
    damaged = new_bench("damaged")
    result = damaged.train("embedding", stop_after=3, **RUN, **INK)
    (result.run_dir / "start-2.pt").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="The run goes on all the same"):
        assert_same(damaged.resume(result.run_dir), whole)


def test_each_optimizer_state_is_used_by_a_later_training(new_bench: Callable[[str], Bench]) -> None:
    """Two runs, one after the other, train as one does."""
    settings = {**RUN, **INK, "save_optimizer_state": True, "latent_sampling_method": "deterministic"}
    whole = new_bench("whole").train("embedding", **settings)
    bench = new_bench("twice")
    first = bench.train("embedding", **{**settings, "steps": 3})
    assert all(path.with_name(f"{path.name}.optim").is_file() for path in files(first))
    second = bench.train("embedding", **settings)
    for path, other in zip(files(second), files(whole), strict=True):
        assert equal(trained(path), trained(other))


# --- validation, averages, previews ----------------------------------------------------------------------------------


def test_averages_best_and_previews_are_of_all(bench: Bench, shared_model: StableDiffusion) -> None:
    with_dog(bench, shared_model)
    shown: dict[str, Any] = {"preview_every": 3, "preview_steps": 1, "preview_with_embedding": True}
    more = {"ema": "0.5", "validation_share": 0.4, "validation_every": 3, "validation_bands": 2}
    result = bench.train(
        "hypernetwork", **RUN, **more, **shown, **{"with": ["embedding:cat", "embedding:dog; template=style"]}
    )
    for path in files(result):
        assert path.with_name(f"{path.stem}-raw.pt").is_file()
        assert path.with_name(f"{path.stem}-best.pt").is_file()
    assert [other.best_path and other.best_path.name for other in result.companions] == ["cat-best.pt", "dog-best.pt"]
    best = Embedding.load(result.companions[1].best_path or "")
    assert best.provenance["best"]["of"] == "dog"
    cards = {path.name for path in (result.run_dir / "image_embeddings").iterdir()}
    assert cards == {f"{name}-{step}.png" for name in ("cat", "dog") for step in (0, 3, 6)}
    text = inspect_file(result.run_dir / "images" / "ink-6-0.png")
    assert all(name in text["prompt"] for name in ("cat", "dog"))
    assert text["settings"]["Hypernet"] == "ink"


def test_templates_take_turns_and_each_names_its_owner(bench: Bench, shared_model: StableDiffusion) -> None:
    with_dog(bench, shared_model)
    (bench.workspace.templates).mkdir()
    (bench.workspace.templates / "mine.txt").write_text("one [name]\ntwo [name]\nthree [name]\n")
    (bench.workspace.templates / "its.txt").write_text("four [name] of cat\n")
    result = bench.train("embedding", steps=1, template="mine", **{"with": "embedding:dog; template=its"})
    lines = read_record(result.run_dir)["template_lines"]
    assert lines == [
        "one [name]",
        "four dog of cat",
        "two [name]",
        "four dog of cat",
        "three [name]",
        "four dog of cat",
    ]


def test_validation_measures_with_the_prompts_of_every_template(bench: Bench, shared_model: StableDiffusion) -> None:
    """So that the best is that of all; each picture keeps its prompt."""
    with_dog(bench, shared_model)
    settings = bench.settings("embedding", template="style", **{"with": "embedding:dog; template=subject"}).resolved()
    lines = load_template(settings, bench.workspace)
    dataset = load_data(settings, shared_model)
    prompts = validation_prompts(settings, "cat", dataset, lines)
    assert ["dog" in prompt for prompt in prompts] == [False, True, False, True, False]
    assert ["cat" in prompt for prompt in prompts] == [True, False, True, False, True]
    assert validation_prompts(settings, "cat", dataset, lines) == prompts


# --- what is refused -------------------------------------------------------------------------------------------------


def test_one_that_no_prompt_names_is_refused(bench: Bench, shared_model: StableDiffusion) -> None:
    with_dog(bench, shared_model)
    with pytest.raises(UsageError, match=r"No prompt names 'dog', so nothing of it would be trained.*template=subject"):
        bench.train("embedding", **{"with": "embedding:dog"})
    (bench.data / "0.txt").write_text("a dog beside a tree")
    start = trained(bench.workspace.adapter_path("embedding", "dog"))
    result = bench.train("embedding", **{"with": "embedding:dog"}, steps=8, template="subject_filewords")
    assert not equal(trained(result.companions[0].adapter_path), start)


def test_names_that_prompts_cannot_tell_apart_are_refused(bench: Bench, shared_model: StableDiffusion) -> None:
    create_embedding("CAT", shared_model, 1, "star").save(bench.workspace.adapter_path("embedding", "CAT"))
    with pytest.raises(UsageError, match="are not all read differently in a prompt"):
        bench.train("embedding", **{"with": "embedding:CAT; template=style"})


def test_all_that_are_not_there_are_named_together(bench: Bench) -> None:
    with pytest.raises(UsageError, match=r"'nope'(.|\n)*'neither'"):
        bench.train("embedding", **{"with": ["embedding:nope", "hypernetwork:neither"]})


def test_each_is_locked_and_none_stays_locked(bench: Bench) -> None:
    held = bench.path("hypernetwork")
    with contextlib.closing(adapter_lock(held)), pytest.raises(BusyError, match=r"ink\.pt is being trained"):
        bench.train("embedding", **INK)
    with contextlib.closing(AdapterLocks([held, bench.path("embedding")])):
        for path in (held, bench.path("embedding")):
            with pytest.raises(BusyError):
                adapter_lock(path)
    adapter_lock(held).close()


def test_the_plan_tells_of_each(bench: Bench) -> None:
    plan = recipe.plan(bench.settings("embedding", **INK, ema="0.9"), bench.workspace, timing="none")
    first, second = plan["trained_together"]
    assert first.startswith("embedding cat: ") and second.endswith("from step 0 on, rate 1e-3")
    assert {Path(path).name for path in plan["averages"]} == {"cat.pt", "cat-raw.pt", "ink.pt", "ink-raw.pt"}
    sizes = [
        sum(tensor.numel() for tensor in trained(bench.path(kind)).values()) for kind in ("embedding", "hypernetwork")
    ]
    assert plan["trained_numbers"] == sum(sizes)
    json.dumps(plan)
