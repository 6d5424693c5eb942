"""Averages of the trained weights: what they are, what files and pictures show, and that a stopped run keeps them."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.runs import NAMES, RANDOM, Bench, OnStep, Recorder, equal, last_state
from tincture import recipe
from tincture.adapters.averaged import Averaged
from tincture.adapters.embedding import Embedding
from tincture.adapters.hypernetwork import Hypernetwork
from tincture.errors import UsageError
from tincture.events import CheckpointSaved, PreviewReady
from tincture.models.sampling import generate
from tincture.models.stable_diffusion import StableDiffusion
from tincture.settings.drawing import Drawing

CLASSES: dict[str, type[Any]] = {"embedding": Embedding, "hypernetwork": Hypernetwork}
KINDS = pytest.mark.parametrize("kind", CLASSES)
SETTINGS: dict[str, Any] = {**RANDOM, "learning_rate": "0.1"}
EMA = "0.9:2, 0.5"


def tensors(kind: str, path: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = CLASSES[kind].load(path).state_dict()
    return {name: tensor.clone() for name, tensor in found.items()}


def copies(kind: str, run_dir: Path, name: str = "") -> list[dict[str, torch.Tensor]]:
    return [tensors(kind, next(run_dir.glob(f"*/{name or NAMES[kind]}-{step}.pt"))) for step in range(1, 5)]


def expected_averages(
    start: dict[str, torch.Tensor], weights: list[dict[str, torch.Tensor]], decays: list[float]
) -> dict[str, np.ndarray[Any, Any]]:
    """In float64 numpy, from the weights after each step."""
    average = {name: tensor.double().numpy() for name, tensor in start.items()}
    for after, decay in zip(weights, decays, strict=True):
        average = {name: decay * old + (1 - decay) * after[name].double().numpy() for name, old in average.items()}
    return average


@KINDS
@pytest.mark.parametrize(
    ("warmup", "decays"),
    [(False, [0.9, 0.9, 0.5, 0.5]), (True, [1 / 10, 2 / 11, 3 / 12, 4 / 13])],
    ids=["as-said", "warmup"],
)
def test_the_file_holds_the_averages_and_the_raw_weights_stand_beside(
    new_bench: Callable[[str], Bench], kind: str, warmup: bool, decays: list[float]
) -> None:
    plain, bench = new_bench("plain"), new_bench("averaged")
    start = tensors(kind, bench.path(kind))
    run = plain.train(kind, save_every=1, **SETTINGS)
    recorder = Recorder()
    result = bench.train(
        kind, save_every=1, save_optimizer_state=True, ema=EMA, ema_warmup=warmup, callbacks=[recorder], **SETTINGS
    )
    weights = copies(kind, run.run_dir)
    for step in range(1, 5):  # a copy is what the file would be after its step
        averages = expected_averages(start, weights[:step], decays[:step])
        shown = copies(kind, result.run_dir)[step - 1]
        for name, tensor in shown.items():
            np.testing.assert_allclose(tensor.numpy(), averages[name], rtol=1e-5, atol=1e-7)
    assert equal(tensors(kind, result.adapter_path), copies(kind, result.run_dir)[-1])
    raw = result.adapter_path.with_name(f"{NAMES[kind]}-raw.pt")
    assert equal(tensors(kind, raw), tensors(kind, run.adapter_path))
    assert equal(copies(kind, result.run_dir, f"{NAMES[kind]}-raw"), weights)
    assert {event.path for event in recorder.of(CheckpointSaved)} >= {result.adapter_path, raw}

    # The optimizer's state belongs to the raw weights, by checksum.
    assert not Path(f"{result.adapter_path}.optim").exists()
    loaded = CLASSES[kind].load(raw)
    assert loaded.name == f"{NAMES[kind]}-raw" or kind == "hypernetwork"
    found = loaded.load_optimizer(raw)
    assert found is not None and equal(found[1]["state"], last_state(run.run_dir)["optimizer"]["state"])
    shutil.copy(f"{raw}.optim", f"{result.adapter_path}.optim")
    assert CLASSES[kind].load(result.adapter_path).load_optimizer(result.adapter_path) is None
    assert CLASSES[kind].load(result.adapter_path).provenance["weights"] == "average"
    assert loaded.provenance["weights"] == "raw" and loaded.step == 4


@KINDS
def test_the_raw_weights_can_be_published_and_the_averages_stand_beside(
    new_bench: Callable[[str], Bench], kind: str
) -> None:
    averaged = new_bench("averaged").train(kind, ema="0.5", **SETTINGS)
    raw = new_bench("raw").train(kind, ema="0.5", ema_publish="raw", save_optimizer_state=True, **SETTINGS)
    name = NAMES[kind]
    beside = averaged.adapter_path.with_name(f"{name}-raw.pt"), raw.adapter_path.with_name(f"{name}-average.pt")
    assert equal(tensors(kind, raw.adapter_path), tensors(kind, beside[0]))
    assert equal(tensors(kind, beside[1]), tensors(kind, averaged.adapter_path))
    assert CLASSES[kind].load(raw.adapter_path).load_optimizer(raw.adapter_path) is not None


@KINDS
def test_a_stopped_run_has_the_same_averages_in_the_end(new_bench: Callable[[str], Bench], kind: str) -> None:
    settings = {**SETTINGS, "ema": EMA, "preview_every": 2, "preview_steps": 2, "preview_prompts": ["a cat"]}
    whole = new_bench("whole").train(kind, **settings)
    bench = new_bench("stopped")
    stopped = bench.train(kind, stop_after=3, **settings)
    resumed = bench.resume(stopped.run_dir)
    assert equal(last_state(resumed.run_dir), last_state(whole.run_dir))
    for name in (NAMES[kind], f"{NAMES[kind]}-raw"):
        one, other = (tensors(kind, result.adapter_path.with_name(f"{name}.pt")) for result in (whole, resumed))
        assert equal(one, other)
    for path in sorted((whole.run_dir / "images").glob("*.png")):
        with Image.open(path) as one_image, Image.open(resumed.run_dir / "images" / path.name) as other_image:
            assert np.array_equal(np.array(one_image), np.array(other_image)), path.name


@pytest.mark.parametrize("publish", ["average", "raw"])
def test_previews_show_what_the_file_holds(bench: Bench, shared_model: StableDiffusion, publish: str) -> None:
    recorder = Recorder()
    previews: dict[str, Any] = {
        "preview_every": 4, "preview_steps": 2, "preview_prompts": ["a cat"], "preview_seed": 7
    }  # fmt: skip
    result = bench.train(
        "embedding", ema="0.5", ema_publish=publish, callbacks=[recorder], learning_rate="1", **previews
    )
    drawn: dict[str, Any] = {}
    for name in ("cat", "cat-raw" if publish == "average" else "cat-average"):
        embedding = Embedding.load(result.adapter_path.with_name(f"{name}.pt"))
        embedding.name = "cat"
        with embedding.attach(shared_model):
            drawn[name] = generate(shared_model, ["a cat"], Drawing(steps=2, width=16, height=16), seeds=[7]).numpy()[0]
    with Image.open(recorder.of(PreviewReady)[-1].paths[0]) as image:
        shown = np.array(image)
    published, other = drawn.values()
    assert np.array_equal(shown, published) and not np.array_equal(shown, other)


@KINDS
def test_a_training_of_the_raw_weights_goes_on_exactly(new_bench: Callable[[str], Bench], kind: str) -> None:
    """As one without averages goes on from its file and the optimizer's state."""
    plain, bench = new_bench("plain"), new_bench("averaged")
    unnamed = {} if kind == "embedding" else {"template": "hypernetwork"}  # its other name would make other prompts
    begun, more = {**SETTINGS, **unnamed}, {**SETTINGS, **unnamed, "steps": 6}
    plain.train(kind, save_optimizer_state=True, **begun)
    bench.train(kind, save_optimizer_state=True, ema="0.9", **begun)
    further = plain.train(kind, **more)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        settings = bench.settings(kind, **more).replace(name=f"{NAMES[kind]}-raw")
        raw = recipe.train(settings, bench.workspace)
    state, expected = last_state(raw.run_dir), last_state(further.run_dir)
    if kind == "hypernetwork":
        assert equal(state["adapter"], expected["adapter"])
    assert CLASSES[kind].load(raw.adapter_path).provenance.get("weights") is None
    assert state["global_step"] == expected["global_step"] == 6
    with pytest.warns(UserWarning, match=f"{NAMES[kind]}.pt holds averaged weights, .* is '{NAMES[kind]}-raw'"):
        bench.train(kind, **{**begun, "steps": 5})


@KINDS
def test_what_bears_the_name_of_the_raw_weights_is_not_overwritten(bench: Bench, kind: str) -> None:
    other = bench.path(kind).with_name(f"{NAMES[kind]}-raw.pt")
    shutil.copy(bench.path(kind), other)
    before = other.read_bytes()
    for act in (bench.train, lambda *a, **s: recipe.plan(bench.settings(*a, **s), bench.workspace)):
        with pytest.raises(UsageError, match=f"{NAMES[kind]}-raw.pt would be overwritten: .* Rename it"):
            act(kind, ema="0.9")
    assert other.read_bytes() == before
    other.unlink()
    bench.train(kind, ema="0.9", steps=2)
    with pytest.warns(UserWarning, match="holds averaged weights"):
        bench.train(kind, ema="0.9", steps=4)  # its own may be


@pytest.mark.filterwarnings("ignore:.*holds averaged weights")
def test_a_name_given_with_its_ending_is_the_same_adapter(bench: Bench) -> None:
    bench.train("embedding", ema="0.9", steps=2, name="cat.pt")
    bench.train("embedding", ema="0.9", steps=4, name="cat")
    bench.train("embedding", ema="0.9", steps=6, name="cat.pt")
    assert Embedding.load(bench.path("embedding").with_name("cat-raw.pt")).step == 6


@KINDS
def test_raw_weights_that_were_trained_by_themselves_meanwhile_stay(bench: Bench, kind: str) -> None:
    """By another run while this one goes on, and between its stop and its resume."""
    path, raw = bench.path(kind), bench.path(kind).with_name(f"{NAMES[kind]}-raw.pt")
    stopped = bench.train(kind, ema="0.9", steps=6, stop_after=2)
    bench.train(kind, name=raw.stem, steps=3)
    trained_on = raw.read_bytes()
    with pytest.raises(UsageError, match=f"{raw.name} would be overwritten"):
        bench.resume(stopped.run_dir)
    raw.unlink()
    put_back = OnStep(4, lambda: raw.write_bytes(trained_on))
    with pytest.warns(UserWarning, match=f"{raw.name} is not what this run left there"):
        result = bench.resume(stopped.run_dir, callbacks=[put_back])
    assert raw.read_bytes() == trained_on
    assert CLASSES[kind].load(path).step == 2
    assert result.adapter_path == path.with_name(f"{NAMES[kind]}-6.pt")
    assert CLASSES[kind].load(path.with_name(f"{NAMES[kind]}-raw-6.pt")).step == 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ema": "1"}, "ema is '1', but a decay must be below 1"),
        ({"ema": "0.9:5, 1.5"}, "a decay must be below 1"),
        ({"ema": "-0.1"}, "negative"),
        ({"ema": "much"}, "where a rate is needed"),
        ({"ema_publish": "raw"}, "ema_publish is 'raw', but ema is empty"),
        ({"keep_copies_every": 100}, "keep_copies is 0, so that all copies are kept"),
        ({"spike_threshold": 0.5}, "spike_threshold.*0 or above 1"),
        ({"rollback_factor": 1}, "rollback_factor.*below 1"),
        ({"divergence_limit": 0}, "divergence_limit.*at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(bench: Bench, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        bench.settings("embedding", **settings)


def test_all_that_contradicts_is_refused_in_one_message(bench: Bench) -> None:
    wrong = {"ema": "", "ema_publish": "raw", "keep_copies_every": 5, "spike_threshold": 1.0}
    with pytest.raises(UsageError) as refused:
        bench.settings("hypernetwork", **wrong)
    assert all(name in str(refused.value) for name in ("ema_publish", "keep_copies_every", "spike_threshold"))


def test_copies_and_states_that_stay(bench: Bench) -> None:
    kept = {"keep_copies": 2, "keep_copies_every": 3, "keep_states": 1, "keep_states_every": 4}
    result = bench.train("embedding", ema="0.9", steps=9, save_every=1, **kept)
    stays = [3, 6, 8, 9]
    for name in ("cat", "cat-raw"):
        found = sorted(result.run_dir.glob(f"embeddings/{name}-[0-9]*.pt"))
        assert [path.stem for path in found] == [f"{name}-{step}" for step in stays]
    states = sorted(path.stem for path in (result.run_dir / "state").iterdir())
    assert states == [f"step-{step:08d}" for step in (0, 4, 8, 9)]


def test_an_averaged_adapter_is_made_of_one_that_is_there() -> None:
    with pytest.raises(TypeError, match="given to Averaged"):
        Averaged.create("cat", lambda: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match="given to Averaged"):
        Averaged.load("cat.pt")


@KINDS
def test_a_plan_says_which_file_holds_which_weights_and_what_guards_do(bench: Bench, kind: str) -> None:
    name, folder = NAMES[kind], bench.path(kind).parent
    plan = recipe.plan(bench.settings(kind, ema="0.9"), bench.workspace, timing="none")
    assert plan["averages"] == {str(folder / f"{name}.pt"): "average", str(folder / f"{name}-raw.pt"): "raw"}
    assert plan["on_divergence"] == "where a loss is not finite, the run stops"
    guarded = {"on_divergence": "rollback", "spike_threshold": 6, "ema": "0.9", "ema_publish": "raw"}
    plan = recipe.plan(bench.settings(kind, **guarded), bench.workspace, timing="none")
    assert plan["averages"] == {str(folder / f"{name}.pt"): "raw", str(folder / f"{name}-average.pt"): "average"}
    assert plan["on_divergence"] == (
        "where a loss is not finite or 6 times the mean of the 32 before, the run goes back to its last state with 0.5 "
        "times the rate, at most 3 times"
    )
    assert "averages" not in recipe.plan(bench.settings(kind), bench.workspace, timing="none")
