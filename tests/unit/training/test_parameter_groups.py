"""Parameters with rates and weight decay of their own, in one optimizer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.support import tiny_model
from tests.unit.training.test_trainer import KINDS, make_adapter, make_trainer
from tincture.adapters.adapter import Adapter
from tincture.adapters.averaged import Averaged
from tincture.adapters.hypernetwork import Hypernetwork
from tincture.errors import UsageError
from tincture.models.stable_diffusion import StableDiffusion
from tincture.settings.schedule import Schedule
from tincture.training.optimizer import ParameterGroup, create_optimizer


@pytest.fixture(scope="module")
def model() -> StableDiffusion:
    return tiny_model()


def halves(adapter: Adapter) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    parameters = adapter.parameters()
    return parameters[::2], parameters[1::2]


def test_groups_keep_their_order_and_have_weight_decay_of_their_own() -> None:
    one, two, three = (nn.Parameter(torch.ones(size)) for size in (1, 2, 3))
    groups = [ParameterGroup([three, one]), ParameterGroup([two], "two", weight_decay=0.5)]
    optimizer = create_optimizer("AdamW", groups, 0.1, 0.25)
    assert [group["params"] for group in optimizer.param_groups] == [[three, one], [two]]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.25, 0.5]
    assert create_optimizer("AdamW", groups, 0.1).param_groups[0]["weight_decay"] == 0.01


def test_weight_decay_of_a_group_is_refused_where_the_optimizer_takes_none() -> None:
    group = ParameterGroup([nn.Parameter(torch.ones(1))], weight_decay=0.5)
    with pytest.raises(UsageError, match=r"Rprop takes no weight decay, but 0\.5 was given"):
        create_optimizer("Rprop", [group], 0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_has_one_group_of_all_parameters(model: StableDiffusion, kind: str) -> None:
    adapter = make_adapter(kind, model)
    for one in (adapter, Averaged(adapter, lambda step: 0.5)):
        (parameters,) = one.parameter_groups().values()
        assert [id(parameter) for parameter in parameters] == [id(parameter) for parameter in adapter.parameters()]


def test_each_group_follows_its_own_schedule_times_the_guards_factor(model: StableDiffusion) -> None:
    """Plain gradient descent: what a step changes is the gradient times the rate of the parameter's group."""
    applied: list[list[float]] = []

    class Watched(torch.optim.SGD):
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            applied.append([group["lr"] for group in self.param_groups])
            super().step()

    adapter = make_adapter("hypernetwork", model)
    first, second = halves(adapter)
    trainer = make_trainer(
        model,
        adapter,
        optimizer=lambda parameters, lr: Watched([{"params": first}, {"params": second}], lr=lr),
        group_rates=[Schedule.parse("0.1:2, 0.2", 100), Schedule.parse("0:1, 0.5:3", 100)],
        steps=5,
    )
    trainer.guard.rate_factor = 0.5
    trainer.run()
    assert applied == [[0.05, 0.0], [0.05, 0.25], [0.1, 0.25], [0.1, 0.0], [0.1, 0.0]]


def test_groups_of_one_rate_train_as_one_group_does(model: StableDiffusion) -> None:
    def trained(in_groups: bool) -> list[torch.Tensor]:
        adapter = make_adapter("hypernetwork", model)
        assert isinstance(adapter, Hypernetwork)
        groups = [{"params": part} for part in halves(adapter)]
        make_trainer(
            model,
            adapter,
            optimizer=lambda parameters, lr: torch.optim.AdamW(groups if in_groups else parameters, lr=lr),
            learning_rate=Schedule.parse("0.01:1, 0.002", 100),
        ).run()
        return [parameter.detach().clone() for parameter in adapter.parameters()]

    for one, other in zip(trained(True), trained(False), strict=True):
        assert torch.equal(one, other)


def test_a_group_at_rate_0_stays_as_it_is(model: StableDiffusion) -> None:
    adapter = make_adapter("hypernetwork", model)
    first, second = halves(adapter)
    before = [parameter.detach().clone() for parameter in adapter.parameters()]
    make_trainer(
        model,
        adapter,
        optimizer=lambda parameters, lr: torch.optim.AdamW([{"params": first}, {"params": second}], lr=lr),
        group_rates=[Schedule.parse("0", 100), Schedule.parse("0.01", 100)],
    ).run()
    assert all(torch.equal(one, other) for one, other in zip(before[::2], first, strict=True))
    assert not any(torch.equal(one, other) for one, other in zip(before[1::2], second, strict=True))
