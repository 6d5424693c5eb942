"""Weight decays of biases and norms apart from that of all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.runs import RANDOM, Bench, equal, last_state, trained
from tincture import recipe
from tincture.adapters.embedding import Embedding
from tincture.adapters.hypernetwork import Hypernetwork, create_hypernetwork
from tincture.adapters.joint import joined
from tincture.errors import UsageError
from tincture.run.trainer import make_optimizer, parameter_groups

APART: dict[str, Any] = {"weight_decay": 0.5, "weight_decay_bias": 0.25, "weight_decay_norm": 2.0}


def part_of(path: Any) -> dict[str, str]:
    """By the name of each tensor what it is, by the shapes and modules of the network."""
    network = Hypernetwork.load(path)._network
    norms = {name for name, module in network.named_modules() if isinstance(module, torch.nn.LayerNorm)}
    return {
        name: "norm" if name.rpartition(".")[0] in norms else "bias" if tensor.ndim == 1 else "matrix"
        for name, tensor in network.named_parameters()
    }


@pytest.mark.parametrize("optimizer", ["AdamW", "SGD"])
def test_each_part_shrinks_by_its_own_decay(new_bench: Callable[[str], Bench], optimizer: str) -> None:
    """In a first step decay takes rate * decay * weight, beside what the gradient does (Loshchilov & Hutter 2019)."""
    settings = {"steps": 1, "learning_rate": "0.01", "optimizer": optimizer}
    plain, apart = new_bench("plain"), new_bench("apart")
    network = Hypernetwork.load(plain.path("hypernetwork"))
    for parameter in network.parameters():
        parameter.data += 0.1  # biases begin at 0
    for bench in (plain, apart):
        network.save(bench.path("hypernetwork"))
    before = trained(plain.path("hypernetwork"))
    without = trained(plain.train("hypernetwork", **settings, weight_decay=0.0).adapter_path)
    found = trained(apart.train("hypernetwork", **settings, **APART).adapter_path)
    decays = {"matrix": 0.5, "bias": 0.25, "norm": 2.0}
    parts = part_of(plain.path("hypernetwork"))
    assert set(parts.values()) == set(decays)
    for name, part in parts.items():
        expected = without[name].double() - 0.01 * decays[part] * before[name].double()
        torch.testing.assert_close(found[name].double(), expected, rtol=0, atol=1e-7)
    assert all(before[name].abs().max() > 1e-3 for name in parts)


def test_without_any_of_its_own_there_is_one_group(bench: Bench) -> None:
    adapter = Hypernetwork.load(bench.path("hypernetwork"))
    (group,) = parameter_groups(bench.settings("hypernetwork", weight_decay=0.5), adapter)
    assert [*map(id, group.parameters)] == [*map(id, adapter.parameters())]


def test_decays_that_are_alike_train_as_one_does(new_bench: Callable[[str], Bench]) -> None:
    one = new_bench("one").train("hypernetwork", weight_decay=0.5)
    bench = new_bench("apart")
    apart = bench.train("hypernetwork", weight_decay=0.5, weight_decay_bias=0.5, weight_decay_norm=0.5)
    assert equal(trained(one.adapter_path), trained(apart.adapter_path))


def test_a_run_that_stops_and_one_that_is_trained_further_go_on_exactly(new_bench: Callable[[str], Bench]) -> None:
    settings = {**RANDOM, **APART, "ema": "0.9"}
    at_once = new_bench("one").train("hypernetwork", **settings)
    bench = new_bench("two")
    stopped = bench.train("hypernetwork", stop_after=2, **settings)
    resumed = bench.resume(stopped.run_dir)
    assert stopped.interrupted and equal(trained(resumed.adapter_path), trained(at_once.adapter_path))
    assert equal(last_state(resumed.run_dir)["optimizer"], last_state(at_once.run_dir)["optimizer"])
    further = new_bench("three")
    for steps in (2, 4):
        result = further.train("hypernetwork", **{**settings, "ema": "", "steps": steps}, save_optimizer_state=True)
    whole = new_bench("four").train("hypernetwork", **{**settings, "ema": ""})
    assert equal(trained(result.adapter_path), trained(whole.adapter_path))


def test_adapters_trained_together_have_them_too(bench: Bench) -> None:
    """A companion's own decay is that of its matrices, and an embedding has neither biases nor norms."""
    settings = bench.settings(
        "embedding", companions=["hypernetwork:ink:1e-3; weight_decay=0.125"], weight_decay_bias=0.0
    ).resolved()
    members = joined([Embedding.load(bench.path("embedding")), Hypernetwork.load(bench.path("hypernetwork"))])
    groups = make_optimizer(settings, members).param_groups
    assert [group["weight_decay"] for group in groups] == [0.0, 0.125, 0.0]
    assert {parameter.ndim for parameter in groups[2]["params"]} == {1}


def test_the_plan_has_them(bench: Bench) -> None:
    settings = bench.settings("hypernetwork", weight_decay_bias=0, weight_decay_norm=0.25)
    plan = recipe.plan(settings, bench.workspace, timing="none")
    assert plan["optimizer"] == "AdamW, the usual one; weight decay 0.01, 0 of biases, 0.25 of norms"


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        (
            "embedding",
            {"weight_decay_bias": 0.0},
            "weight_decay_bias is 0, but an embedding has neither biases nor norms",
        ),
        ("embedding", {"weight_decay_norm": 0.5}, "weight_decay_norm is 0.5, but an embedding has neither"),
        ("hypernetwork", {"weight_decay_bias": -1.0}, "weight_decay_bias is -1.0.*at least 0"),
        (
            "hypernetwork",
            {"weight_decay_bias": 0.0, "optimizer_args": "weight_decay=0.1"},
            "weight_decay_bias is given too; give one of them",
        ),
    ],
)
def test_what_has_none_is_refused(bench: Bench, kind: str, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        bench.settings(kind, **changes)


def test_a_network_without_norms_has_no_decay_for_them(bench: Bench) -> None:
    network = create_hypernetwork("ink", (4,), (1, 2, 1), "relu")
    with pytest.raises(UsageError, match="weight_decay_norm` is 0, but the hypernetwork 'ink' has no weights of that"):
        make_optimizer(bench.settings("hypernetwork", weight_decay_norm=0.0), network)
