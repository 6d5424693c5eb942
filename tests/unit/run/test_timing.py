"""How long a run will take, as plans tell it: measured by a clock of the tests, and remembered."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.runs import Bench, write_pictures
from tincture import recipe
from tincture.formats.timings import remember_seconds, remembered_seconds, timings_folder
from tincture.models.devices import resolve_device
from tincture.models.stable_diffusion import StableDiffusion
from tincture.run.components import load_adapter, load_base
from tincture.run.data import load_data, load_template
from tincture.run.duration import about
from tincture.run.optimizer_file import with_optimizer
from tincture.run.plan import _prepared
from tincture.run.timing import PICTURE, PREVIEW, STEP, VALIDATION, RunTimes, Workload, planned_duration

PREVIEWS: dict[str, Any] = {"preview_every": 10, "preview_steps": 7, "preview_prompts": ["a cat", "two cats", "red"]}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Gets the seconds of every measurement."""
    found, once = list[float](), RunTimes._once

    def counting(self: RunTimes, act: Callable[[], object]) -> float:
        found.append(once(self, act))
        return found[-1]

    monkeypatch.setattr(RunTimes, "_once", counting)
    return found


def workload(bench: Bench, kind: str, **changes: Any) -> Workload:
    path, given = bench.path(kind), bench.settings(kind, **changes)
    settings = with_optimizer(given, load_adapter(kind, path, path.stem), [path])[0].resolved()
    model = load_base(settings, bench.workspace, stay=True)
    dataset, lines = load_data(settings, model), load_template(settings, bench.workspace)
    adapter = load_adapter(kind, path, path.stem)
    return Workload(settings, model, adapter, dataset, lines, resolve_device("cpu"))


def ticking(seconds: float) -> Callable[[], float]:
    """A clock by which everything that is measured takes so long."""
    now = [0.0]

    def clock() -> float:
        now[0] += seconds
        return now[0]

    return clock


def times(work: Workload, bench: Bench, each: float, timing: Any = "measure") -> RunTimes:
    return RunTimes(work, timing, lambda: _prepared(work, bench.workspace), clock=ticking(each))


@pytest.mark.parametrize("kind", ["embedding", "hypernetwork"])
def test_a_run_takes_its_steps_previews_and_pictures(bench: Bench, kind: str) -> None:
    work = workload(bench, kind, steps=95, batch_size=2, gradient_accumulation_steps=3, **PREVIEWS)
    told = planned_duration(times(work, bench, 0.25), 5, datetime.datetime(2026, 1, 1, 23, 58))
    preview = 7 * 0.25 + 3 / 3 * 0.25  # seven passes for three pictures at once, which are decoded together
    assert (told["step_s"], told["preview_s"], told["previews"]) == (0.25, preview, 11)  # steps 0, 10, ..., 90, 95
    assert told["encoding_s"] == 5 * 0.25
    assert told["seconds"] == pytest.approx(95 * 0.25 + 11 * preview + 5 * 0.25)
    assert told["measured"] == "now"
    assert told["description"] == (
        "about 47 s (95 steps of 0.25 s, 11 previews of 2 s, 1.25 s for encoding the pictures); begun now, it ends "
        "at 23:58"
    )


@pytest.mark.parametrize("use_weight", [False, True])
@pytest.mark.parametrize("kind", ["embedding", "hypernetwork"])
def test_validations_take_as_long_as_their_predictions(
    bench: Bench, kind: str, use_weight: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, real = list[int](), StableDiffusion.predict_noise

    def counted(self: StableDiffusion, noisy: Tensor, *rest: Any) -> Tensor:
        if not torch.is_grad_enabled():
            made.append(len(noisy))
        return real(self, noisy, *rest)

    monkeypatch.setattr(StableDiffusion, "predict_noise", counted)
    work = workload(bench, kind, steps=95, batch_size=2, validation_every=20, use_weight=use_weight)
    told = planned_duration(times(dataclasses.replace(work, predictions=16), bench, 0.25), 0)
    assert set(made) == {8}, "measured as they are made: eight at a time"
    assert told["validation_s"] == pytest.approx(2 * 0.25)
    assert told["validations"] == 6  # steps 0, 20, ..., 80, 95
    assert told["seconds"] == pytest.approx(95 * 0.25 + 6 * told["validation_s"])
    assert "6 validations of 0.5 s" in told["description"]
    remember_seconds(dataclasses.replace(work, predictions=16).facts(VALIDATION), 7.0)
    again = planned_duration(times(dataclasses.replace(work, predictions=16), bench, 0.25), 0)
    assert again["validation_s"] == 7.0


def test_it_says_when_a_long_run_ends(bench: Bench) -> None:
    work = workload(bench, "embedding", steps=3000)
    told = planned_duration(times(work, bench, 2.0), 0, datetime.datetime(2026, 1, 1, 22, 0))
    assert told["description"] == ("about 1 h 40 min (3,000 steps of 2 s); begun now, it ends between 23:30 and 23:50")
    later = planned_duration(times(work, bench, 2.0), 0, datetime.datetime(2026, 1, 1, 22, 25))
    assert later["description"].endswith("between 23:55 and 00:15 on 2026-01-02")
    assert later["measured"] == "earlier"


def test_what_takes_long_is_done_once(bench: Bench, measured: list[float]) -> None:
    work = workload(bench, "embedding", steps=9, **PREVIEWS)
    assert times(work, bench, 11.0).of(STEP) == 11.0
    assert measured == [11.0]
    # A pass through the denoiser would take as long: a preview is guessed from the step.
    remember_seconds(work.facts(STEP), 1000.0)
    assert times(work, bench, 11.0).of(PREVIEW) == pytest.approx(3 * 2 * 7 * 1000.0 / 3)
    assert measured == [11.0]


def test_a_plan_leaves_no_trace_but_the_times(bench: Bench, measured: list[float]) -> None:
    def found() -> dict[Path, tuple[str, int]]:
        files = [path for path in bench.workspace.root.rglob("*") if path.is_file()]
        return {path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in files}

    before, state = found(), torch.get_rng_state()
    for kind in ("embedding", "hypernetwork"):
        work = workload(bench, kind)
        weights = [parameter.detach().clone() for parameter in work.adapter.parameters()]
        planned_duration(times(work, bench, 0.1), 5)
        assert all(map(torch.equal, weights, work.adapter.parameters()))
        assert all(parameter.grad is None for parameter in work.adapter.parameters())
    recipe.plan(bench.settings("hypernetwork", **PREVIEWS), bench.workspace)
    assert measured and found() == before
    assert torch.equal(torch.get_rng_state(), state)


def test_a_second_plan_measures_nothing_and_damaged_times_are_measured_again(
    bench: Bench, measured: list[float]
) -> None:
    first = recipe.plan(bench.settings("embedding", **PREVIEWS), bench.workspace)["duration"]
    assert first["measured"] == "now" and len(measured) > 4
    measured.clear()
    again = recipe.plan(bench.settings("embedding", **PREVIEWS, seed=5, learning_rate="0.1"), bench.workspace)
    assert (again["duration"]["measured"], measured) == ("earlier", [])
    assert again["duration"]["seconds"] == first["seconds"]
    for file in timings_folder().iterdir():
        file.write_text("{")
    work = workload(bench, "embedding", **PREVIEWS)
    assert planned_duration(times(work, bench, 0.5), 5)["measured"] == "now" and measured


OTHER: list[tuple[str, dict[str, Any]]] = [
    (STEP, {"batch_size": 2}),
    (STEP, {"gradient_accumulation_steps": 2}),
    (STEP, {"optimizer": "SGD"}),
    (STEP, {"precision": "bf16"}),
    (STEP, {"gradient_checkpointing": True}),
    (STEP, {"width": 24}),
    (STEP, {"clip_grad_mode": "norm"}),
    (STEP, {"ema": "0.9"}),
    (PREVIEW, {"preview_steps": 8}),
    (PREVIEW, {"preview_prompts": ["one"]}),
    (PREVIEW, {"preview_width": 24}),
    (PREVIEW, {"preview_guidance_scale": 1.0}),
    (PICTURE, {"height": 24}),
]


def test_other_shapes_have_times_of_their_own(bench: Bench) -> None:
    base: dict[str, Any] = {"steps": 40, **PREVIEWS}
    work, longer = workload(bench, "embedding", **base), workload(bench, "embedding", **{**base, "steps": 50})
    for what, changes in OTHER:
        assert work.facts(what) == longer.facts(what)
        assert work.facts(what) != workload(bench, "embedding", **{**base, **changes}).facts(what), changes


def test_adapters_of_other_shapes_and_other_threads_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    work = workload(bench, "embedding")
    assert work.facts(STEP) != workload(bench, "hypernetwork").facts(STEP)
    before = work.facts(STEP)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert work.facts(STEP) != before


def test_a_run_leaves_its_times_for_later_plans(bench: Bench, measured: list[float]) -> None:
    settings = {"steps": 12, "log_every": 2, **PREVIEWS}
    run = bench.train("hypernetwork", **settings, validation_share=0.4, validation_every=6)
    assert run.best_path is not None
    (validated,) = (file for file in timings_folder().iterdir() if '"predictions"' in file.read_text())
    assert json.loads(validated.read_text())["seconds"] > 0
    bench.train("hypernetwork", **{**settings, "steps": 24})
    work = workload(bench, "hypernetwork", **{**settings, "steps": 60})
    assert all(remembered_seconds(work.facts(what)) for what in (STEP, PREVIEW, PICTURE))
    plan = recipe.plan(bench.settings("hypernetwork", **{**settings, "steps": 60}), bench.workspace, "known")
    assert (plan["duration"]["measured"], plan["duration"]["previews"], measured) == ("earlier", 5, [])
    assert plan["duration"]["step_s"] == pytest.approx(remembered_seconds(work.facts(STEP)))


def test_sizes_that_differ_count_by_their_pixels(bench: Bench, tmp_path: Path) -> None:
    """Five pictures of 16 × 16 and two of 32 × 32, three times each."""
    large = write_pictures(tmp_path / "large", ("a", "b"), side=32)
    work = workload(bench, "embedding", varsize=True, data=[str(bench.data), f"{large}:3"], steps=10)
    assert work.size == (32, 32)
    assert work.relative_size == pytest.approx((5 * 256 + 6 * 1024) / 11 / 1024)
    told = planned_duration(times(work, bench, 1.0), 7)
    assert told["seconds"] == pytest.approx((10 * 1.0 + 7 * 1.0) * work.relative_size)


def test_what_is_not_known_is_said(bench: Bench, measured: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    work = workload(bench, "embedding")
    for timing, words in (("none", "not measured"), ("known", "not measured on this machine before")):
        told = planned_duration(times(work, bench, 1.0, timing), 5)
        assert (told["description"], told["seconds"], told["measured"]) == (words, None, "no")
    assert measured == []

    def full(self: RunTimes, act: object) -> float:
        raise MemoryError

    monkeypatch.setattr(RunTimes, "_once", full)
    told = planned_duration(times(work, bench, 1.0), 5)
    assert told["seconds"] is None and "too little memory" in told["description"]


def test_a_run_with_nothing_to_do_takes_no_time(bench: Bench) -> None:
    bench.train("embedding", steps=2)
    told = planned_duration(times(workload(bench, "embedding", steps=2), bench, 1.0), 5)
    assert (told["description"], told["previews"]) == ("no step is left", 0)


def test_about_how_long() -> None:
    given = [0.4, 42.0, 59.4, 59.6, 840.0, 3599.0, 6000.0, 7200.0, 86300.0, 183_600.0, 172_800.0]
    told = ["0 s", "42 s", "59 s", "1 min", "14 min", "1 h", "1 h 40 min", "2 h", "1 d", "2 d 3 h", "2 d"]
    assert [about(seconds) for seconds in given] == told
