"""What is exact about modules put together: compared with the modules themselves, in float64."""

from __future__ import annotations

import itertools

import pytest
import torch

from tincture.adapters.hypernetwork_module import HypernetworkModule
from tincture.adapters.merging.activations import Activation
from tincture.adapters.merging.chains import Chain, added_up, chain_of, one_behind_another

CARRYING = ("linear", "relu", "leakyrelu", "swish", "silu", "gelu", "softplus")
STRUCTURES = ((1, 1), (1, 2, 1), (1, 1.5, 0.5, 1))
X = torch.randn(40, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def module_and_chain(
    structure: tuple[float, ...], activation: str, seed: int, *, activate_output: bool = False
) -> tuple[HypernetworkModule, Chain]:
    generator = torch.Generator().manual_seed(seed)
    module = HypernetworkModule(
        8, layer_structure=structure, activation_func=activation, activate_output=activate_output, generator=generator
    )
    for parameter in module.double().eval().parameters():
        torch.nn.init.normal_(parameter, std=0.4, generator=generator)
    return module.requires_grad_(False), chain_of(module, Activation.named(activation), activate_output)


def close(made: torch.Tensor, wanted: torch.Tensor) -> bool:
    return torch.allclose(made, wanted, rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("activation", ["linear", "relu", "tanh", "mish"])
@pytest.mark.parametrize("activate_output", [False, True])
def test_a_chain_is_what_the_module_adds(activation: str, activate_output: bool) -> None:
    module, chain = module_and_chain((1, 2, 1), activation, 0, activate_output=activate_output)

    assert torch.allclose(chain(X), module.linear(X), rtol=0, atol=1e-12)
    assert torch.allclose(chain.scaled(-0.3)(X), -0.3 * module.linear(X), rtol=0, atol=1e-12)
    assert torch.allclose(chain.with_units([u + 3 for u in chain.hidden])(X), module.linear(X), rtol=0, atol=1e-12)


@pytest.mark.parametrize("activation", CARRYING)
def test_effects_add_up_side_by_side_whatever_the_lengths(activation: str) -> None:
    for one, other in itertools.product(STRUCTURES, STRUCTURES):
        (first, a), (second, b) = module_and_chain(one, activation, 1), module_and_chain(other, activation, 2)
        length = max(len(a.layers), len(b.layers))

        made = added_up([a.lengthened(length), b.lengthened(length)])

        assert close(made(X), first.linear(X) + second.linear(X))


def test_two_of_one_structure_stand_side_by_side_without_more_than_their_units() -> None:
    (_, a), (_, b) = module_and_chain((1, 2, 1), "tanh", 1), module_and_chain((1, 2, 1), "tanh", 2)
    made = added_up([a, b])
    assert made.hidden == [32]
    assert torch.allclose(made(X), a(X) + b(X), rtol=0, atol=1e-12)


@pytest.mark.parametrize("activation", CARRYING)
@pytest.mark.parametrize("activate_output", [False, True])
def test_one_behind_another_is_one_chain(activation: str, activate_output: bool) -> None:
    for one, other in itertools.product(STRUCTURES, STRUCTURES):
        first, a = module_and_chain(one, activation, 1, activate_output=activate_output)
        second, b = module_and_chain(other, activation, 2)

        made = one_behind_another(a, b)

        assert close(X + made(X), second(first(X)))
        assert not close(made(X), a(X) + b(X))  # which is another thing


@pytest.mark.parametrize("activation", [*CARRYING, "logsigmoid", "rrelu"])
def test_activations_that_carry_a_number(activation: str) -> None:
    found = Activation.named(activation)
    assert found.carry is not None
    x = torch.linspace(-50, 50, 501, dtype=torch.float64)
    assert torch.allclose(found(x) - found(-x), found.carry * x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "mish", "elu", "relu6", "hardtanh", "softsign"])
def test_activations_that_carry_none(activation: str) -> None:
    found = Activation.named(activation)
    assert found.pointwise and found.carry is None


@pytest.mark.parametrize("activation", ["softmax", "logsoftmax", "prelu"])
def test_activations_that_are_not_the_same_for_each_unit(activation: str) -> None:
    assert not Activation.named(activation).pointwise


def test_names_of_one_activation() -> None:
    assert Activation.named(None).name == "linear" and Activation.named("hardswish").name == "swish"
