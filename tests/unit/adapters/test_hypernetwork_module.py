from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from tincture.adapters.hypernetwork_module import HypernetworkModule
from tincture.errors import UsageError
from tincture.kinds.layer_structure import ACTIVATIONS, WEIGHT_INITS, legacy_dropout_structure, numbers

STRUCTURES = ([1, 1], [1, 2, 1], [1, 1.5, 1.5, 1], [1, 0.3, 2, 0.5, 1])


def context(dim: int = 16, seed: int = 0) -> Tensor:
    return torch.randn(2, 5, dim, generator=torch.Generator().manual_seed(seed))


def shaken(module: HypernetworkModule) -> HypernetworkModule:
    """In eval mode, with every parameter far from its first value, biases and norms included."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return module.eval()


# --- structure --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
@pytest.mark.parametrize("activate_output", [False, True])
@pytest.mark.parametrize("add_layer_norm", [False, True])
def test_a_module_computes_what_its_structure_says(
    structure: list[float], activate_output: bool, add_layer_norm: bool
) -> None:
    module = shaken(
        HypernetworkModule(
            16,
            layer_structure=structure,
            activation_func="relu",
            activate_output=activate_output,
            add_layer_norm=add_layer_norm,
        )
    )
    tensors = iter(module.state_dict().values())
    x = y = context()
    steps = len(structure) - 1
    for i in range(steps):
        weight, bias = next(tensors), next(tensors)
        assert tuple(weight.shape) == (int(16 * structure[i + 1]), int(16 * structure[i]))
        y = y @ weight.T + bias
        if i < steps - 1 or activate_output:
            y = y.clamp(min=0)
        if add_layer_norm:
            scale, shift = next(tensors), next(tensors)
            centred = y - y.mean(-1, keepdim=True)
            y = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * scale + shift
    assert next(tensors, None) is None
    torch.testing.assert_close(module(x, 0.35), x + 0.35 * y, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(module(x), x + y, atol=1e-4, rtol=1e-4)


def layer_names(module: HypernetworkModule) -> list[str]:
    return [type(layer).__name__ for layer in module.linear]


def test_layers_stand_in_the_formats_order() -> None:
    full = HypernetworkModule(
        16,
        layer_structure=[1, 2, 2, 1],
        activation_func="swish",
        add_layer_norm=True,
        dropout_structure=[0, 0.1, 0, 0.3],
    )
    assert layer_names(full) == [
        *("Linear", "Hardswish", "LayerNorm", "Dropout"),
        *("Linear", "Hardswish", "LayerNorm"),
        *("Linear", "LayerNorm", "Dropout"),
    ]
    assert [layer.p for layer in full.linear if isinstance(layer, nn.Dropout)] == [0.1, 0.3]


@pytest.mark.parametrize("name", [None, "linear"])
def test_no_activation_adds_no_layer(name: str | None) -> None:
    assert layer_names(HypernetworkModule(8, activation_func=name, activate_output=True)) == ["Linear", "Linear"]


@pytest.mark.parametrize(
    "structure", [[], [1], [2, 2, 1], [1, 2, 2], [1, 0, 1], [1, -2, 1], [1, float("nan"), 1], [1, float("inf"), 1]]
)
def test_structures_that_are_not_allowed(structure: list[float]) -> None:
    with pytest.raises(UsageError, match="the first and the last 1"):
        HypernetworkModule(16, layer_structure=structure)


@pytest.mark.parametrize("structure", [[1, 0.01, 1], [1, 1e300, 1]])
def test_widths_that_are_not_possible(structure: list[float]) -> None:
    with pytest.raises(UsageError, match="is not possible at width 16"):
        HypernetworkModule(16, layer_structure=structure)


@pytest.mark.parametrize("probability", [1, 1.5, -0.1, float("nan")])
def test_dropout_outside_zero_to_one_is_refused(probability: float) -> None:
    with pytest.raises(UsageError, match=r"0 or more and less than 1"):
        HypernetworkModule(16, dropout_structure=[0, probability, 0])


@pytest.mark.parametrize("structure", [[0.1], [0, 0.1], [0, 0.1, 0, 0]])
def test_a_dropout_structure_of_another_length_is_refused(structure: list[float]) -> None:
    with pytest.raises(UsageError, match=r"needs as many as the layer structure \[1, 2, 1\] has, 3"):
        HypernetworkModule(16, layer_structure=[1, 2, 1], dropout_structure=structure)


@pytest.mark.parametrize(
    ("length", "last_layer_dropout", "expected"),
    [
        (2, True, [0, 0]),
        (2, False, [0, 0]),
        (3, True, [0, 0.3, 0]),
        (3, False, [0, 0, 0]),
        (5, True, [0, 0.3, 0.3, 0.3, 0]),
        (5, False, [0, 0.3, 0.3, 0, 0]),
    ],
)
def test_the_legacy_rule_for_dropout(length: int, last_layer_dropout: bool, expected: list[float]) -> None:
    assert legacy_dropout_structure([1] * length, last_layer_dropout) == expected


def test_a_structure_may_be_a_text() -> None:
    assert numbers("layer structure", "1, 1.5,2 ,1") == [1, 1.5, 2, 1]
    assert numbers("layer structure", (1, 2, 1)) == [1, 2, 1]
    for text in ("", "1,,1", "1;2;1", "one"):
        with pytest.raises(UsageError, match="layer structure"):
            numbers("layer structure", text)


# --- activations ------------------------------------------------------------------------------------------------------


def torch_activations() -> set[str]:
    """Torch's activation classes that need no argument and keep the shape, found by trying."""
    found = set()
    for name in nn.modules.activation.__all__:
        try:
            shape = getattr(nn, name)()(torch.zeros(3, 4)).shape if "oftm" not in name else (3, 4)
        except (TypeError, RuntimeError):
            continue
        if shape == (3, 4):
            found.add(name.lower())
    return found


def test_the_names_are_torchs_classes_and_the_aliases() -> None:
    assert set(ACTIVATIONS) == torch_activations() | {"linear", "swish"}
    assert {"relu", "leakyrelu", "elu", "tanh", "sigmoid", "mish", "softsign", "hardswish"} <= set(ACTIVATIONS)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_trains(name: str) -> None:
    module = HypernetworkModule(16, activation_func=name, weight_init="XavierNormal", activate_output=True)
    y = module(context())
    assert y.shape == (2, 5, 16)
    y.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("swish", nn.functional.hardswish),
        ("hardswish", nn.functional.hardswish),
        ("silu", nn.functional.silu),
        ("leakyrelu", nn.functional.leaky_relu),
        ("elu", nn.functional.elu),
        ("tanh", torch.tanh),
        ("sigmoid", torch.sigmoid),
    ],
)
def test_activations_are_the_functions_they_are_named_for(name: str, function: nn.Module) -> None:
    module = shaken(HypernetworkModule(16, activation_func=name))
    x = context()
    first, second = module.linear[0], module.linear[2]
    assert torch.equal(module(x), x + second(function(first(x))))


@pytest.mark.parametrize("name", ["glu", "multiheadattention", "threshold"])
def test_activations_that_cannot_work_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"'{name}' is unknown"):
        HypernetworkModule(16, activation_func=name)


def test_an_unknown_activation_is_answered_with_near_matches() -> None:
    with pytest.raises(UsageError, match="'leakyrelo' is unknown; did you mean leakyrelu"):
        HypernetworkModule(16, activation_func="leakyrelo")
    with pytest.raises(UsageError, match="'ReLU' is unknown; did you mean relu"):
        HypernetworkModule(16, activation_func="ReLU")
    with pytest.raises(UsageError, match=r"'zzzzzz' is unknown; allowed are .*elu, .*tanh"):
        HypernetworkModule(16, activation_func="zzzzzz")


# --- first weights ----------------------------------------------------------------------------------------------------


def drawn(weight_init: str, seed: int = 0, **options: object) -> HypernetworkModule:
    return HypernetworkModule(
        64,
        weight_init=weight_init,
        generator=torch.Generator().manual_seed(seed),
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("weight_init", "bound", "std"),
    [
        ("Normal", None, 0.01),
        ("XavierUniform", (6 / 192) ** 0.5, (2 / 192) ** 0.5),
        ("XavierNormal", None, (2 / 192) ** 0.5),
        ("KaimingUniform", (6 / 64) ** 0.5, (2 / 64) ** 0.5),
        ("KaimingNormal", None, (2 / 64) ** 0.5),
    ],
)
@pytest.mark.parametrize("activation_func", ["relu", "leakyrelu"])
def test_first_weights(weight_init: str, bound: float | None, std: float, activation_func: str) -> None:
    module = drawn(weight_init, activation_func=activation_func, add_layer_norm=True)
    first = module.linear[0]
    assert isinstance(first, nn.Linear)
    assert first.weight.std().item() == pytest.approx(std, rel=0.05)
    assert abs(first.weight.mean().item()) < 0.1 * std
    if bound is not None:
        assert first.weight.abs().max().item() <= bound
        assert first.weight.abs().max().item() > 0.99 * bound
    for layer in module.linear:
        if isinstance(layer, nn.LayerNorm):
            assert layer.weight.std().item() == pytest.approx(0.01, rel=0.3)
        if isinstance(layer, nn.Linear | nn.LayerNorm):
            assert not layer.bias.any()


def test_an_unknown_weight_init_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'normal' is unknown; allowed are Normal, XavierUniform"):
        drawn("normal")


@pytest.mark.parametrize("weight_init", WEIGHT_INITS)
def test_first_weights_follow_from_the_seed_alone(weight_init: str) -> None:
    before = torch.get_rng_state()
    a, b, other = drawn(weight_init, 1), drawn(weight_init, 1), drawn(weight_init, 2)
    torch.rand(3)
    again = drawn(weight_init, 1)
    torch.set_rng_state(before)
    for p, q, r in zip(a.parameters(), b.parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q)
        assert torch.equal(p, r)
    assert not torch.equal(a.linear[0].weight, other.linear[0].weight)


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    for weight_init, norm in itertools.product(WEIGHT_INITS, (False, True)):
        drawn(weight_init, activation_func="prelu", add_layer_norm=norm, dropout_structure=[0, 0.5, 0])
    assert torch.equal(torch.get_rng_state(), before)


# --- modes ------------------------------------------------------------------------------------------------------------


def test_the_multiplier_counts_as_one_in_training() -> None:
    module = shaken(HypernetworkModule(16))
    x = context()
    assert not torch.equal(module(x, 0.5), module(x))
    module.train()
    assert torch.equal(module(x, 0.5), module(x, 1.0))


def test_dropout_acts_in_training_only() -> None:
    module = shaken(HypernetworkModule(16, layer_structure=[1, 4, 1], dropout_structure=[0, 0.5, 0]))
    x = context()
    assert torch.equal(module(x), module(x))
    module.train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(module(x), module(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("training", [False, True])
def test_half_precision_contexts_meet_float32_weights(dtype: torch.dtype, training: bool) -> None:
    module = shaken(HypernetworkModule(16, activation_func="relu", add_layer_norm=True)).train(training)
    x = context()
    expected = module(x)
    actual = module(x.to(dtype))
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.float(), expected, atol=0.1, rtol=0.05)
    actual.float().sum().backward()
    assert {p.grad.dtype for p in module.parameters() if p.grad is not None} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_pass_without_gradients_leaves_later_ones_theirs(dtype: torch.dtype) -> None:
    """Under autocast too, whose cache would hand on the weights that were cast without gradients."""
    module = shaken(HypernetworkModule(16)).train()
    x = context().to(dtype)
    with torch.autocast("cpu", dtype):
        with torch.no_grad():
            module(x)
        module(x).float().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_of_many_uses_are_summed_in_full_precision(dtype: torch.dtype) -> None:
    """Under autocast too, whose cache would have all attentions of a width add up theirs in half precision."""
    module = shaken(HypernetworkModule(16)).train()
    contexts = [torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(seed)).to(dtype) for seed in range(40)]

    def gradients(given: list[Tensor]) -> list[Tensor]:
        with torch.autocast("cpu", dtype):
            total = sum((module(x).float().square().sum() for x in given), torch.zeros(()))
        return list(torch.autograd.grad(total, list(module.parameters())))

    expected = [torch.stack(each).sum(0) for each in zip(*(gradients([x]) for x in contexts), strict=True)]
    for found, wanted in zip(gradients(contexts), expected, strict=True):
        assert (found - wanted).norm() < 1e-5 * wanted.norm()
