"""Adapters that act beside what is trained, and are not trained themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runs import RANDOM, Bench, equal, last_state, trained
from tincture import recipe
from tincture.adapters.embedding import Embedding, create_embedding
from tincture.adapters.hypernetwork import Hypernetwork, create_hypernetwork
from tincture.adapters.with_fixed import Fixed, WithFixed
from tincture.errors import ModelError, UsageError
from tincture.models.stable_diffusion import StableDiffusion
from tincture.settings.train import TrainSettings

SMALL: dict[str, Any] = {"steps": 3, "batch_size": 2, "template": "style_filewords"}


def gold(bench: Bench, model: StableDiffusion, scale: float = 3.0) -> Path:
    """A hypernetwork ``gold`` in the workspace, whose weights are ``scale`` times those of a new one."""
    path = bench.workspace.adapter_path("hypernetwork", "gold")
    network = create_hypernetwork("gold", model.context_widths(), (1, 1), "linear")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(scale)
    network.save(path)
    return path


def star(bench: Bench, model: StableDiffusion) -> Path:
    path = bench.workspace.adapter_path("embedding", "star")
    create_embedding("star", model, 2, "blue ring").save(path)
    return path


# --- what they do ----------------------------------------------------------------------------------------------------


def test_they_act_on_what_the_trained_one_leaves(bench: Bench, shared_model: StableDiffusion) -> None:
    """As in a prompt that names the trained one first; and gradients come through them, to it alone."""
    fixed, own = Hypernetwork.load(gold(bench, shared_model)), Hypernetwork.load(bench.path("hypernetwork"))
    both = WithFixed(own, [Fixed(fixed, 0.7)])
    noisy, at = torch.randn((1, 4, 2, 2), generator=torch.Generator().manual_seed(0)), torch.tensor([500])
    conditions = shared_model.encode_prompts(["a moon"])
    with both.attach(shared_model):
        together = shared_model.predict_noise(noisy, at, conditions)
        together.square().mean().backward()  # type: ignore[no-untyped-call]
    with own.attach(shared_model), fixed.attach(shared_model, 0.7), torch.no_grad():
        assert torch.equal(shared_model.predict_noise(noisy, at, conditions), together)
    with fixed.attach(shared_model, 0.7), own.attach(shared_model), torch.no_grad():
        assert not torch.equal(shared_model.predict_noise(noisy, at, conditions), together)
    assert both.parameters() == own.parameters()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in own.parameters())
    assert all(parameter.grad is None for parameter in fixed.parameters())


@pytest.mark.parametrize("kind", ["embedding", "hypernetwork"])
def test_one_that_does_nothing_changes_nothing_and_another_does(
    new_bench: Callable[[str], Bench], shared_model: StableDiffusion, kind: str
) -> None:
    results = {}
    for name, scale, fixed in (
        ("none", 0, []),
        ("idle", 0, ["hypernetwork:gold"]),
        ("gold", 3, ["hypernetwork:gold:0.7"]),
    ):
        bench = new_bench(name)
        path = gold(bench, shared_model, scale)
        before = path.read_bytes()
        results[name] = trained(bench.train(kind, **SMALL, fixed=fixed).adapter_path)
        assert path.read_bytes() == before
    for name, tensor in results["none"].items():  # gradients are added up in another order
        assert torch.allclose(tensor, results["idle"][name], atol=1e-5)
    assert not equal(results["none"], results["gold"])


def test_a_fixed_embedding_is_what_prompts_mean_by_its_name(
    new_bench: Callable[[str], Bench], shared_model: StableDiffusion
) -> None:
    """Captions name it; without it they mean the word itself."""
    results = []
    for name, fixed in (("with", {"kind": "embedding", "name": "star"}), ("without", [])):
        bench = new_bench(name)
        before = star(bench, shared_model).read_bytes()
        results.append(trained(bench.train("hypernetwork", **SMALL, fixed=fixed).adapter_path))
        assert bench.workspace.adapter_path("embedding", "star").read_bytes() == before
    assert not equal(*results)


# --- resume ----------------------------------------------------------------------------------------------------------


def test_a_resumed_run_equals_the_whole_one_with_averages_and_best(
    new_bench: Callable[[str], Bench], shared_model: StableDiffusion
) -> None:
    more: dict[str, Any] = {"fixed": ["hypernetwork:gold:0.7", "embedding:star"], "with": "embedding:cat", "ema": "0.9"}
    settings: dict[str, Any] = {
        **RANDOM,
        **more,
        "steps": 5,
        "save_every": 2,
        "validation_share": 0.4,
        "validation_bands": 2,
        "validation_every": 2,
    }
    benches = [new_bench(name) for name in ("whole", "stopped")]
    for bench in benches:
        gold(bench, shared_model)
        star(bench, shared_model)
    whole = benches[0].train("hypernetwork", **settings)
    result = benches[1].train("hypernetwork", stop_after=3, **settings)
    again = benches[1].resume(result.run_dir)
    assert equal(last_state(whole.run_dir), last_state(again.run_dir))
    assert whole.best_path and again.best_path and equal(trained(whole.best_path), trained(again.best_path))


def test_a_resume_needs_them_as_they_were(bench: Bench, shared_model: StableDiffusion) -> None:
    path = gold(bench, shared_model)
    whole, result = path.read_bytes(), bench.train("embedding", stop_after=1, fixed="hypernetwork:gold", **SMALL)
    gold(bench, shared_model, 2)
    with pytest.raises(UsageError, match="The hypernetwork 'gold', which acts beside what is trained, has changed"):
        bench.resume(result.run_dir)
    path.unlink()
    with pytest.raises(UsageError, match="There is no hypernetwork 'gold'"):
        bench.resume(result.run_dir)
    path.write_bytes(whole)
    assert bench.resume(result.run_dir).global_step == 3


# --- plans, refusals -------------------------------------------------------------------------------------------------


def test_plans_and_files_tell_of_them(bench: Bench, shared_model: StableDiffusion) -> None:
    gold(bench, shared_model)
    settings = bench.settings("embedding", **SMALL, fixed="hypernetwork:gold:0.7")
    told = recipe.plan(settings, bench.workspace, "none")
    plain = recipe.plan(bench.settings("embedding", **SMALL), bench.workspace, "none")
    assert told["fixed_adapters"] == ["hypernetwork:gold:0.7"]
    more = sum(
        one.nbytes for one in Hypernetwork.load(bench.workspace.adapter_path("hypernetwork", "gold")).parameters()
    )
    assert told["memory_mib"]["training"] - plain["memory_mib"]["training"] >= 0.9 * more / 2**20
    result = bench.train("embedding", **SMALL, fixed="hypernetwork:gold:0.7")
    assert Embedding.load(result.adapter_path).provenance["settings"]["fixed_adapters"] == ["hypernetwork:gold:0.7"]


def test_all_that_are_not_there_or_do_not_fit_are_named_together(bench: Bench, shared_model: StableDiffusion) -> None:
    with pytest.raises(UsageError, match=r"no hypernetwork 'silver'.*no embedding 'max'"):
        bench.train("embedding", fixed=["hypernetwork:silver", "embedding:max"])
    path = bench.workspace.adapter_path("hypernetwork", "gold")
    create_hypernetwork("gold", [4096]).save(path)
    Embedding("max", {"clip_h": torch.zeros(1, 5)}).save(bench.workspace.adapter_path("embedding", "max"))
    with pytest.raises(ModelError, match=r"'gold'.*'max'"):
        bench.train("embedding", fixed=["hypernetwork:gold", "embedding:max"])


@pytest.mark.parametrize(
    ("fixed", "sentence"),
    [
        (
            "lora:x",
            "fixed has 'lora:x', but it must be KIND:NAME, KIND:NAME:STRENGTH or a table of kind, name, multiplier",
        ),
        ("hypernetwork:", "must be KIND:NAME"),
        ("hypernetwork:x:strong", "its strength is 'strong', but must be a number other than 0, at most 10"),
        ("hypernetwork:x:0", "its strength is '0'"),
        ("hypernetwork:x:inf", "its strength is 'inf'"),
        ("embedding:x:0.5", "an embedding has no strength"),
        ("embedding:cat.pt", "the embedding 'cat', which is trained; it can be one or the other"),
        ("hypernetwork:ink", "the hypernetwork 'ink', which is trained"),
        (["hypernetwork:x", "hypernetwork:x.pt:0.5"], "the hypernetwork 'x' twice"),
    ],
    ids=str,
)
def test_what_cannot_act_beside_is_refused(fixed: Any, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        TrainSettings.from_dict(
            {"kind": "embedding", "name": "cat", "data": "d", "with": "hypernetwork:ink", "fixed": fixed}
        )
