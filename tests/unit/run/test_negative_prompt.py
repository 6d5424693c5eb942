"""Training guided away from a negative prompt: the formula, what learns from it, resume, previews, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.runs import RANDOM, Bench, OnStep, equal, last_state, trained
from tests.unit.run.test_resume import Killed, kill
from tincture.adapters.embedding import create_embedding
from tincture.errors import UsageError
from tincture.models.stable_diffusion import StableDiffusion
from tincture.recipe import plan
from tincture.run.components import Components, load_members, prepare
from tincture.run.data import load_template
from tincture.run.presence import find_adapters
from tincture.settings.train import TrainSettings

APART: dict[str, Any] = {"negative_prompt": "blurry, [name]", "guidance_scale": "4"}


def prepared(bench: Bench, kind: str = "embedding", **changes: Any) -> Components:
    settings = bench.settings(kind, **changes).resolved()
    members = load_members(settings, bench.workspace, find_adapters(settings, bench.workspace))
    return prepare(settings, bench.workspace, members, load_template(settings, bench.workspace), [])


# --- the formula -----------------------------------------------------------------------------------------------------


def test_a_prediction_is_guided_as_when_a_picture_is_drawn(bench: Bench) -> None:
    """Both prompts predicted by themselves, and put together in float64."""
    run = prepared(bench, **{**APART, "guidance_scale": "2 -> 5:4"})
    model, shape = run.model, (2, 4, 2, 2)
    noisy, at = torch.randn(shape, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 700])
    prompts = ["a moon", "a red star"]
    with run.adapter.attach(model), torch.no_grad():
        guided = run.trainer.predictor(prompts, None, 2)(noisy, at)
        parts = [
            model.predict_noise(noisy, at, model.encode_prompts(each), None).double()
            for each in (prompts, ["blurry, cat"] * 2)
        ]
    expected = parts[1] + 3.5 * (parts[0] - parts[1])  # half of the way from 2 to 5
    assert torch.allclose(guided.double(), expected, atol=1e-5)
    assert not torch.allclose(guided.double(), parts[0], atol=1e-2)


def test_the_loss_of_a_step_is_that_of_the_guided_prediction(bench: Bench) -> None:
    """At a scale near 1 the negative prompt hardly counts, and the further the more."""
    losses = []
    for more in ({}, {**APART, "guidance_scale": "1.000001"}, APART):
        run = prepared(bench, "hypernetwork", template="style_filewords", **more)
        with run.adapter.attach(run.model):
            loss, _ = run.trainer.make_step(0.0)
        losses.append(float(loss))
    assert math.isclose(losses[0], losses[1], rel_tol=1e-4)
    assert abs(losses[2] - losses[0]) > 1e-2 * losses[0]


# --- what learns -----------------------------------------------------------------------------------------------------


def test_an_embedding_learns_from_the_negative_prompt_alone(bench: Bench) -> None:
    """No line of the usual template names it then. The same step again and again makes the guided loss fall."""
    run = prepared(bench, **APART, batch_size=4)
    assert run.settings.template == "hypernetwork" and not any("[name]" in line for line in run.lines)
    start, losses = trained(bench.path("embedding")), []
    with run.adapter.attach(run.model):
        for _ in range(12):
            losses.append(float(run.trainer.make_step(1e-2)[0]))
    assert losses[-1] < losses[0]
    assert not equal(run.adapter.state_dict(), start)


def test_one_for_the_prompt_and_one_against_it_are_trained_at_once(bench: Bench, shared_model: StableDiffusion) -> None:
    path = bench.workspace.adapter_path("embedding", "bad")
    create_embedding("bad", shared_model, 1, "star").save(path)
    before = [trained(one) for one in (bench.path("embedding"), path)]
    more: dict[str, Any] = {
        "with": "embedding:bad:0.01",
        "negative_prompt": "bad",
        "preview_every": 4,
        "preview_steps": 1,
    }
    result = bench.train("embedding", batch_size=2, **more)
    after = [trained(one) for one in (bench.path("embedding"), path)]
    assert not any(equal(one, other) for one, other in zip(before, after, strict=True))
    assert previews(result.run_dir) and all("Negative prompt: bad\n" in text for text in previews(result.run_dir))
    assert not any("bad" in text.split("Negative prompt")[0] for text in previews(result.run_dir))


def previews(run_dir: Path) -> list[str]:
    texts = []
    for path in run_dir.glob("images/*-4-*.png"):
        with Image.open(path) as picture:
            texts.append(str(picture.info["parameters"]))
    return texts


@pytest.mark.parametrize(("kind", "more"), [("embedding", {"ema": "0.9"}), ("hypernetwork", {})], ids=str)
def test_stopped_or_killed_and_resumed_equals_never_stopped(
    new_bench: Callable[[str], Bench], kind: str, more: dict[str, Any]
) -> None:
    apart = APART if kind == "embedding" else {"negative_prompt": "dotted"}
    settings: dict[str, Any] = {**RANDOM, **apart, **more, "steps": 5, "save_every": 2, "guidance_scale": "2 -> 5:4"}
    settings["template"] = "hypernetwork"
    whole = new_bench("whole").train(kind, **settings)
    stopped = new_bench("stopped")
    result = stopped.train(kind, stop_after=3, **settings)
    killed = new_bench("killed")
    with pytest.raises(Killed):
        killed.train(kind, callbacks=[OnStep(4, kill)], **settings)
    (run_dir,) = killed.workspace.logs.glob("*/*")
    for again in (stopped.resume(result.run_dir), killed.resume(run_dir)):
        assert equal(last_state(again.run_dir), last_state(whole.run_dir))


# --- settings, plans, refusals ---------------------------------------------------------------------------------------


def test_previews_are_drawn_against_it_unless_they_have_one_of_their_own(bench: Bench) -> None:
    assert bench.settings("embedding", **APART).resolved().preview_negative_prompt == "blurry, cat"
    own = bench.settings("embedding", **APART, preview_negative_prompt="grey", template="style").resolved()
    assert (own.preview_negative_prompt, own.template) == ("grey", "style")
    together = bench.settings("hypernetwork", **APART, **{"with": "embedding:rex.pt"}).resolved()
    assert together.preview_negative_prompt == "blurry, rex"


def test_plans_tell_of_it_and_count_its_memory(bench: Bench) -> None:
    told = plan(bench.settings("embedding", **APART, batch_size=4), bench.workspace, "none")
    plain = plan(bench.settings("embedding", batch_size=4), bench.workspace, "none")
    assert told["loss"] == "mse; guided by 4 away from 'blurry, [name]'"
    assert told["memory_mib"]["training"] > plain["memory_mib"]["training"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"guidance_scale": "3"}, "guidance_scale is '3', but negative_prompt is empty"),
        ({"negative_prompt": "x", "guidance_scale": "1:2, 1"}, "so that negative_prompt would not count"),
        ({"negative_prompt": "x", "guidance_scale": "3:2, oops"}, "guidance_scale: "),
        ({"negative_prompt": "x", "attention_mask_weight": "0.1"}, "attention_mask_weight holds the attention"),
    ],
    ids=["without a prompt", "does not count", "no schedule", "with masks"],
)
def test_what_contradicts_itself_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        TrainSettings.from_dict({"kind": "embedding", "name": "cat", "data": "d", **changes})


def test_a_word_on_both_sides_is_refused(bench: Bench) -> None:
    with pytest.raises(
        UsageError, match=r"'cat' stands in the negative prompt 'blurry, \[name\]' and in a line of the"
    ):
        bench.train("embedding", **APART, template="subject_filewords")


def test_an_embedding_that_neither_side_names_is_refused_as_before(bench: Bench) -> None:
    with pytest.raises(UsageError, match=r"has a line without \[name\]"):
        bench.train("embedding", negative_prompt="blurry", template="hypernetwork")
