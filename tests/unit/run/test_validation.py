"""Validation of a run: what is measured, what it leads to, and that it disturbs nothing."""

from __future__ import annotations

import csv
import json
import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runs import NAMES, RANDOM, Bench, OnStep, Recorder, csv_text, equal, last_state, trained, write_pictures
from tincture import randomness, recipe
from tincture.adapters.adapter import Adapter
from tincture.data.captions import caption_for
from tincture.data.folders import load_dataset
from tincture.data.masks import mask_weights
from tincture.errors import DataError, UsageError
from tincture.events import CheckpointSaved, Validated
from tincture.formats.files import safe_torch_load, sha256_file
from tincture.models.loading.load import load_model
from tincture.run import components
from tincture.run.components import load_adapter
from tincture.training.checkpoint import list_states
from tincture.training.metrics import VALIDATION_COLUMNS

KINDS = ("embedding", "hypernetwork")
SHARE: dict[str, Any] = {"validation_share": 0.4, "validation_bands": 2}
WORSE_AGAIN: dict[str, Any] = {"validation_bands": 2, "learning_rate": "1e-3:4, 3e-1"}
HELD_OUT = ("purple, moon", "orange, star, left", "pink, plain heart")


class Killed(BaseException):
    """Ends a run without any of its own cleaning up."""


def kill() -> None:
    raise Killed


def held_out(bench: Bench, side: int = 16) -> Path:
    """Three pictures that are not among the bench's five."""
    folder = bench.workspace.root / "held-out"
    write_pictures(folder, HELD_OUT, side)
    for number in range(len(HELD_OUT)):
        path = folder / f"{number}.png"
        path.write_bytes(path.read_bytes() + bytes([number]))  # behind the picture's end: another content
    return folder


def rows(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "validation_loss.csv").open() as file:
        return list(csv.DictReader(file))


def losses(run_dir: Path) -> dict[int, float]:
    return {int(row["step"]): float(row["validation_loss"]) for row in rows(run_dir)}


# --- the measure -----------------------------------------------------------------------------------------------------


def expected_losses(
    bench: Bench, adapter: Adapter, folder: Path, line: str, *, bands: int, masks: str | None = None
) -> list[float]:
    """The definition, written out one prediction at a time: of each picture the mean over the bands."""
    model = load_model(str(bench.model), workspace=bench.workspace)
    dataset = load_dataset(folder, width=16, height=16, masks=masks)
    means = []
    for index, sample in enumerate(dataset):
        key = int(sha256_file(sample.path), 16)
        latents, _ = model.encode_pictures(dataset.pixels(index)[None])
        weight = mask_weights(dataset.mask(index), *latents.shape[2:]) if masks is not None else torch.ones(1, 2, 2)
        found = []
        for band in range(bands):
            noise = randomness.normal(latents.shape[1:], 0, "validation noise", key, band)[None]
            within = float(randomness.generator(0, "validation timestep", key, band).random())
            at = torch.tensor([int((band + within) / bands * 1000)])
            alpha = model.noise_scheduler.alphas_cumprod[at].view(1, 1, 1, 1)
            noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
            text = line.replace("[filewords]", caption_for(sample.path)).replace("[name]", adapter.name)
            with torch.no_grad(), adapter.attach(model):
                conditions = model.encode_prompts([text])
                prediction = model.predict_noise(noisy, at, conditions)
            found.append(float(((prediction - noise) ** 2 * weight).mean()))
        means.append(math.fsum(found) / bands)
    return means


def standard_error(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


@pytest.mark.parametrize("kind", KINDS)
def test_both_losses_are_those_of_a_plain_loop(bench: Bench, kind: str) -> None:
    """Of the finished adapter: dropped captions, shuffled tags, dropout and the run's seed change nothing."""
    folder, recorder = held_out(bench), Recorder()
    random = {**RANDOM, "seed": 11, "steps": 3}
    result = bench.train(kind, callbacks=[recorder], validation_data=str(folder), validation_bands=3, **random)
    adapter = load_adapter(kind, result.adapter_path, result.adapter_path.stem).train(False)
    line = (Path(recipe.__file__).parent / "data" / "templates" / "style_filewords.txt").read_text().splitlines()[0]
    assert "[filewords]" in line and "[name]" in line
    last = recorder.of(Validated)[-1]
    assert (last.global_step, last.steps) == (3, 3)
    for found, error, pictures in (
        (last.loss, last.error, folder),
        (last.training_loss, last.training_error, bench.data),
    ):
        means = expected_losses(bench, adapter, pictures, line, bands=3)
        assert found == pytest.approx(sum(means) / len(means), rel=1e-5)
        assert error == pytest.approx(standard_error(means), rel=1e-4)


def test_averages_are_measured_where_they_are_published(bench: Bench) -> None:
    folder, recorder = held_out(bench), Recorder()
    options: dict[str, Any] = {"ema": "0.9", "ema_warmup": False, "steps": 3, "validation_bands": 2}
    result = bench.train("hypernetwork", callbacks=[recorder], validation_data=str(folder), **options)
    line = (Path(recipe.__file__).parent / "data" / "templates" / "hypernetwork.txt").read_text().splitlines()[0]
    found = recorder.of(Validated)[-1].loss
    raw = result.adapter_path.with_name("ink-raw.pt")
    averaged, trained_one = (
        sum(expected_losses(bench, load_adapter("hypernetwork", path, "ink").train(False), folder, line, bands=2)) / 3
        for path in (result.adapter_path, raw)
    )
    assert found == pytest.approx(averaged, rel=1e-6)
    assert averaged != pytest.approx(trained_one, rel=1e-5)


def test_no_prompt_is_encoded_once_the_text_encoders_rest(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    real = components.prepare

    def prepared(*args: Any, **options: Any) -> Any:
        made.append(real(*args, **options))
        return made[-1]

    monkeypatch.setattr("tincture.run.train.prepare", prepared)
    encoded: list[int] = []

    class Count:
        def on_event(self, event: object) -> None:
            if isinstance(event, Validated):
                encoded.append(made[0].trainer.conditioning.encoded)

    options: dict[str, Any] = {"offload": True, "template": "none", "validation_every": 1, "validation_bands": 1}
    bench.train("hypernetwork", callbacks=[Count()], validation_data=str(held_out(bench)), **options)
    template = (Path(recipe.__file__).parent / "data" / "templates" / "none.txt").read_text().splitlines()
    known = 5 + 3 if any("[filewords]" in line for line in template) else 1
    assert encoded == [known + 1] * 5


def test_masks_weigh_the_loss_as_they_do_in_training(bench: Bench) -> None:
    from PIL import Image

    folder, recorder = held_out(bench), Recorder()
    for place, count in ((folder, 3), (bench.data, 5)):
        (place / "mask").mkdir()
        for number in range(count):
            mask = Image.new("L", (16, 16), 0)
            mask.paste(255, (0, 0, 8, 8 * (1 + number % 2)))
            mask.save(place / "mask" / f"{number}.png")
    settings: dict[str, Any] = {"validation_data": str(folder), "steps": 1, "use_weight": True, "validation_bands": 2}
    result = bench.train("hypernetwork", callbacks=[recorder], **settings)
    adapter = load_adapter("hypernetwork", result.adapter_path, "ink").train(False)
    template = Path(recipe.__file__).parent / "data" / "templates" / "hypernetwork.txt"
    line = template.read_text().splitlines()[0]
    weighed = expected_losses(bench, adapter, folder, line, bands=2, masks="")
    plain = expected_losses(bench, adapter, folder, line, bands=2)
    assert recorder.of(Validated)[-1].loss == pytest.approx(sum(weighed) / 3, rel=1e-5)
    assert sum(weighed) != pytest.approx(sum(plain), rel=1e-3)


@pytest.mark.parametrize("kind", ["hypernetwork"])
def test_runs_of_other_seeds_and_batches_begin_at_the_same_loss(new_bench: Callable[[str], Bench], kind: str) -> None:
    found = []
    changed: dict[str, Any] = {"seed": 9, "batch_size": 5, "latent_sampling_method": "random"}
    for name, options in {"one": {"seed": 1}, "other": changed}.items():
        bench, recorder = new_bench(name), Recorder()
        bench.train(kind, callbacks=[recorder], validation_data=str(held_out(bench)), steps=2, **options)
        found.append(recorder.of(Validated))
    (first, *later), (second, *others) = found
    assert (first.loss, first.training_loss) == pytest.approx((second.loss, second.training_loss), rel=1e-6)
    assert later[-1].loss != pytest.approx(others[-1].loss, rel=1e-9)


def test_pictures_of_several_sizes_and_more_than_are_allowed(bench: Bench, recwarn: pytest.WarningsRecorder) -> None:
    from PIL import Image

    folder, recorder = held_out(bench), Recorder()
    Image.new("RGB", (24, 16), "red").save(folder / "wide.png")
    settings: dict[str, Any] = {"validation_data": str(folder), "varsize": True, "steps": 1, "validation_pictures": 2}
    bench.train("hypernetwork", callbacks=[recorder], **settings)
    assert any("Of 4 pictures for validation 2 are measured" in str(each.message) for each in recwarn)
    assert all(math.isfinite(each.loss) and each.error > 0 for each in recorder.of(Validated))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_measures_nearly_the_same(new_bench: Callable[[str], Bench], precision: str) -> None:
    found = []
    for name in ("fp32", precision):
        bench, recorder = new_bench(name), Recorder()
        options: dict[str, Any] = {"validation_data": str(held_out(bench)), "precision": name, "steps": 1}
        bench.train("embedding", callbacks=[recorder], **options)
        found.append(recorder.of(Validated)[0].loss)
    assert found[0] == pytest.approx(found[1], rel=0.02)
    assert found[0] != found[1]


# --- nothing is disturbed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_validation_changes_no_bit_of_what_is_trained(new_bench: Callable[[str], Bench], kind: str) -> None:
    settings: dict[str, Any] = {**RANDOM, "steps": 5, "save_every": 2, "log_every": 1}
    plain, measured = new_bench("plain"), new_bench("measured")
    without = plain.train(kind, **settings)
    result = measured.train(
        kind, **settings, validation_data=str(held_out(measured)), validation_every=1, validation_bands=2
    )
    assert len(rows(result.run_dir)) == 6
    assert equal(trained(result.adapter_path), trained(without.adapter_path))
    assert csv_text(result.run_dir) == csv_text(without.run_dir)
    one, other = last_state(result.run_dir), last_state(without.run_dir)
    assert one["parts"].pop("validation")["measured"] and equal(one, other)


@pytest.mark.parametrize(("kind", "ema"), [("embedding", ""), ("hypernetwork", "0.8")])
def test_stopped_and_resumed_equals_never_stopped(new_bench: Callable[[str], Bench], kind: str, ema: str) -> None:
    stops = (1, 2, 6)
    settings: dict[str, Any] = {**RANDOM, "steps": 7, "save_every": 4, "validation_every": 2, "ema": ema, **SHARE}
    whole = new_bench("whole").train(kind, **settings)
    stopped = new_bench("stopped")
    result = stopped.train(kind, stop_after=stops[0], **settings)
    for following in (*stops[1:], 0):
        assert result.interrupted
        result = stopped.resume(result.run_dir, stop_after=following)
    assert_same(result, whole)
    assert list(losses(result.run_dir)) == [0, 2, 4, 6, 7]


def assert_same(result: recipe.RunResult, whole: recipe.RunResult) -> None:
    assert not result.interrupted
    assert equal(trained(result.adapter_path), trained(whole.adapter_path))
    assert equal(last_state(result.run_dir), last_state(whole.run_dir))
    assert rows(result.run_dir) == rows(whole.run_dir)
    assert result.best_path and whole.best_path
    assert result.best_path.read_bytes() == whole.best_path.read_bytes()
    (copy,) = result.run_dir.glob("*/*-best.pt")
    assert equal(trained(copy), trained(whole.best_path))


@pytest.mark.parametrize(
    ("kind", "lost"),
    [("embedding", "the newest state"), ("hypernetwork", "the copy of the best"), ("embedding", "the log")],
)
def test_killed_at_any_place_it_makes_up_for_what_is_missing(
    new_bench: Callable[[str], Bench], kind: str, lost: str
) -> None:
    settings: dict[str, Any] = {**RANDOM, "steps": 6, "save_every": 2, "validation_every": 1, **SHARE}
    whole = new_bench("whole").train(kind, **settings)
    killed = new_bench("killed")
    with pytest.raises(Killed):
        killed.train(kind, callbacks=[OnStep(5, kill)], **settings)
    (run_dir,) = killed.workspace.logs.glob("*/*")
    assert list(losses(run_dir)) == [0, 1, 2, 3, 4, 5]
    if lost == "the newest state":
        list_states(run_dir / "state")[0][1].unlink()
    elif lost == "the copy of the best":
        next(run_dir.glob("*/*-best.pt")).unlink()
    elif lost == "the log":
        (run_dir / "validation_loss.csv").unlink()
    result = killed.resume(run_dir)
    assert_same(result, whole)


def test_a_stop_soon_after_a_resume_leaves_the_best_of_its_own_past(bench: Bench) -> None:
    """The best that was found before the kill, but after the state, is not yet found again."""
    settings: dict[str, Any] = {"steps": 9, "save_every": 3, "validation_every": 1, **SHARE, "learning_rate": "1e-3"}
    settings["validation_data"], settings["validation_share"] = str(bench.data), 0.0
    settings["data"] = str(held_out(bench))
    recorder = Recorder()
    with pytest.raises(Killed):
        bench.train("hypernetwork", callbacks=[recorder, OnStep(8, kill)], **settings)
    measured = recorder.of(Validated)
    assert measured[-1].best_step == 8, "the test wants a run that gets better and better"
    (run_dir,) = bench.workspace.logs.glob("*/*")
    stop = threading.Event()
    stop.set()
    result = recipe.resume(run_dir, stop=stop)
    assert result.interrupted and result.global_step == 6
    assert result.best_path is not None
    best = load_adapter("hypernetwork", result.best_path, "ink-best")
    assert best.step == 6
    assert best.provenance["best"]["validation_loss"] == measured[6].loss


def test_changed_pictures_for_validation_are_refused(bench: Bench) -> None:
    folder = held_out(bench)
    result = bench.train("embedding", stop_after=2, validation_data=str(folder))
    (folder / "0.txt").write_text("another caption")
    with pytest.raises(DataError, match="have changed since"):
        bench.resume(result.run_dir)


# --- what it leads to ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_is_the_copy_of_its_step(bench: Bench, kind: str) -> None:
    recorder = Recorder()
    settings: dict[str, Any] = {"steps": 8, "save_every": 1, "validation_every": 1, **WORSE_AGAIN}
    result = bench.train(kind, callbacks=[recorder], validation_data=str(held_out(bench)), **settings)
    measured = recorder.of(Validated)
    best = min(measured, key=lambda each: each.loss)
    assert 0 < best.global_step < 8, "the test wants a run that gets worse again"
    assert result.best_path == result.adapter_path.with_name(f"{result.adapter_path.stem}-best.pt")
    (copy,) = result.run_dir.glob(f"*/{result.adapter_path.stem}-{best.global_step}.pt")
    assert equal(trained(result.best_path), trained(copy))
    assert not equal(trained(result.best_path), trained(result.adapter_path))
    adapter = load_adapter(kind, result.best_path, result.best_path.stem)
    assert adapter.step == best.global_step
    found = adapter.provenance["best"]
    assert (found["of"], found["step"]) == (result.adapter_path.stem, best.global_step)
    assert (found["validation_loss"], found["validation_error"]) == (best.loss, best.error)
    assert "best" not in load_adapter(kind, result.adapter_path, "x").provenance
    assert bench.workspace.find_adapter(kind, result.best_path.stem) == result.best_path
    assert CheckpointSaved(best.global_step, result.best_path) in recorder.events


def test_each_measurement_knows_the_best_so_far(bench: Bench) -> None:
    recorder = Recorder()
    settings: dict[str, Any] = {"steps": 8, "validation_every": 1, **WORSE_AGAIN}
    result = bench.train("embedding", callbacks=[recorder], validation_data=str(held_out(bench)), **settings)
    measured = recorder.of(Validated)
    for index, each in enumerate(measured):
        lowest = min(measured[: index + 1], key=lambda one: one.loss)
        assert (each.best_step, each.best_loss) == (lowest.global_step, lowest.loss)
        assert each.is_best == (lowest is each)
    table = rows(result.run_dir)
    assert tuple(table[0]) == VALIDATION_COLUMNS
    assert [int(row["best_step"]) for row in table] == [each.best_step for each in measured]
    assert [float(row["training_loss"]) for row in table] == pytest.approx(
        [m.training_loss for m in measured], abs=1e-7
    )


def expected_end(found: Sequence[float], patience: int) -> int:
    """The index of the measurement after which a run ends, by hand."""
    for end in range(len(found)):
        best = found.index(min(found[: end + 1]))
        if end - best >= patience:
            return end
    return len(found) - 1


@pytest.mark.parametrize(("kind", "patience"), [("embedding", 3), ("hypernetwork", 1)])
def test_the_run_ends_when_patience_does(new_bench: Callable[[str], Bench], kind: str, patience: int) -> None:
    settings: dict[str, Any] = {"steps": 12, "validation_every": 1, **WORSE_AGAIN}
    whole, short = new_bench("whole"), new_bench("short")
    recorder = Recorder()
    whole.train(kind, callbacks=[recorder], validation_data=str(held_out(whole)), **settings)
    found = [each.loss for each in recorder.of(Validated)]
    end = expected_end(found, patience)
    assert end < 12, "the test wants a run that gets worse again"
    data = str(held_out(short))
    previews = {"preview_every": 100, "preview_steps": 1, "preview_prompts": ["a cat"]}
    result = short.train(kind, validation_data=data, early_stopping_patience=patience, **settings, **previews)
    assert result.global_step == end and not result.interrupted
    last = result.run_dir / "images" / f"{NAMES[kind]}-{end}-0.png"
    assert last.is_file(), "the last preview shows what the run ended with"
    best = found.index(min(found[: end + 1]))
    assert f"since step {best}, the best one, where it was {found[best]:.6f}" in result.ending
    assert f"ended at step {end}" in result.ending
    again = short.resume(result.run_dir)
    assert (again.global_step, again.interrupted, again.ending) == (end, False, result.ending)


def test_a_new_run_writes_its_own_best_over_the_one_before(bench: Bench) -> None:
    settings: dict[str, Any] = {"validation_data": str(held_out(bench)), "validation_every": 1}
    bench.train("embedding", steps=2, **settings)
    result = bench.train("embedding", steps=4, **settings)
    assert result.best_path is not None
    assert load_adapter("embedding", result.best_path, "x").provenance["best"]["step"] in (2, 3, 4)


@pytest.mark.parametrize("content", ["another adapter", "no adapter"])
def test_a_file_of_that_name_which_is_another_thing_stays(bench: Bench, content: str) -> None:
    path = bench.path("embedding")
    taken = path.with_name("cat-best.pt")
    taken.write_bytes(path.read_bytes() if content == "another adapter" else b"mine")
    before = taken.read_bytes()
    options: dict[str, Any] = {
        "validation_share": 0.4,
        "model": str(bench.data),
    }  # so that the refusal comes before anything slow
    for begin in (
        lambda: bench.train("embedding", **options),
        lambda: recipe.plan(bench.settings("embedding", **options), bench.workspace),
    ):
        with pytest.raises(UsageError, match=r"cat-best\.pt is there, and was not left by a training of 'cat'"):
            begin()
    bench.train("embedding", validation_every=0)
    assert taken.read_bytes() == before


def test_a_file_of_that_name_that_came_meanwhile_stays(bench: Bench) -> None:
    taken = bench.path("embedding").with_name("cat-best.pt")
    write = OnStep(1, lambda: taken.write_bytes(b"mine"))
    with pytest.warns(UserWarning, match="was made by somebody else meanwhile"):
        result = bench.train("embedding", callbacks=[write], validation_share=0.4)
    assert taken.read_bytes() == b"mine"
    assert list(result.run_dir.glob("*/cat-best.pt"))


def test_states_hold_the_best_weights(bench: Bench) -> None:
    result = bench.train("embedding", validation_share=0.4, steps=3, validation_every=1)
    kept = safe_torch_load(list_states(result.run_dir / "state")[0][1])["parts"]["validation"]
    assert result.best_path is not None
    assert equal(kept["best_weights"], trained(result.best_path))


def test_tensorboard_has_both_curves(bench: Bench) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = bench.train("embedding", validation_share=0.4, steps=4, validation_every=2, tensorboard=True)
    events = EventAccumulator(str(result.run_dir / "tensorboard")).Reload()
    for tag, column in (
        ("Loss/validation", "validation_loss"),
        ("Loss/train on the grid of validation", "training_loss"),
    ):
        found = [(each.step, each.value) for each in events.Scalars(tag)]
        expected = [(int(row["step"]), float(row[column])) for row in rows(result.run_dir)]
        assert found == [(step, pytest.approx(value, abs=1e-6)) for step, value in expected]


# --- plan ------------------------------------------------------------------------------------------------------------


def test_the_plan_says_what_will_be_measured(bench: Bench) -> None:
    folder, recorder = held_out(bench), Recorder()
    changes: dict[str, Any] = {
        "validation_data": str(folder),
        "validation_every": 3,
        "validation_bands": 4,
        "steps": 7,
        "flip": True,
    }
    plan = recipe.plan(bench.settings("hypernetwork", **changes), bench.workspace)
    assert json.loads(json.dumps(plan["validation"])) == {
        "pictures": 3,
        "measured_pictures": 3,
        "measured_training_pictures": 5,
        "every": 3,
        "measurements": 4,
        "predictions": (3 + 5) * 4 * 4,
        "best_path": str(bench.path("hypernetwork").with_name("ink-best.pt")),
    }
    assert plan["pictures"] == 5
    assert plan["memory_mib"]["validation"] > 0
    bench.train("hypernetwork", callbacks=[recorder], **changes)
    assert len(recorder.of(Validated)) == plan["validation"]["measurements"]


def test_a_plan_without_validation_says_nothing_of_it(bench: Bench) -> None:
    plan = recipe.plan(bench.settings("embedding"), bench.workspace)
    assert "validation" not in plan and "validation" not in plan["memory_mib"]


def test_a_patience_longer_than_the_run_is_remarked(bench: Bench) -> None:
    changes: dict[str, Any] = {"validation_share": 0.4, "early_stopping_patience": 3, "validation_every": 2, "steps": 6}
    remarks = recipe.plan(bench.settings("embedding", **changes), bench.workspace)["remarks"]
    assert any("too short to end early" in remark for remark in remarks)
