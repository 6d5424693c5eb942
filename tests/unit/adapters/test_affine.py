from __future__ import annotations

import pytest
import torch

from tincture.adapters.affine import Moments, compose
from tincture.adapters.hypernetwork_module import HypernetworkModule


def module(structure: list[float], activation: str | None = None, **kwargs: object) -> HypernetworkModule:
    made = HypernetworkModule(
        8, layer_structure=structure, activation_func=activation, weight_init="XavierNormal", **kwargs
    )  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    for name, parameter in made.named_parameters():
        if name.endswith("bias"):
            parameter.data = torch.randn(parameter.shape, generator=generator)
    return made.eval()


def contexts(count: int, seed: int = 0) -> torch.Tensor:
    return 3 + torch.randn(count, 5, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("structure", [[1, 1], [1, 2, 1], [1, 0.5, 2, 1]])
@pytest.mark.parametrize("dropout", [0, 0.5])
def test_linear_layers_compose_to_one_map(structure: list[float], dropout: float) -> None:
    network = module(structure, "linear", dropout_structure=[0, *[dropout] * (len(structure) - 1)])
    added = compose(network, 0.7)
    assert added is not None
    x = contexts(2)
    made = x + (x.double() @ added.matrix.T + added.constant).float()
    torch.testing.assert_close(made, network(x, 0.7), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("activation", "norm"), [("relu", False), (None, True)])
def test_what_is_not_linear_does_not_compose(activation: str | None, norm: bool) -> None:
    assert compose(module([1, 2, 1], activation, add_layer_norm=norm)) is None


def test_the_fit_finds_an_affine_map() -> None:
    network = module([1, 2, 1])
    exact = compose(network)
    assert exact is not None
    moments = Moments(8)
    for seed in range(10):
        x = contexts(200, seed)
        moments.add(x, network.linear(x))
    fitted = moments.fit()
    x = contexts(50, seed=99).double()
    wanted = x @ exact.matrix.T + exact.constant
    made = x @ fitted.matrix.T + fitted.constant
    assert (made - wanted).norm() < 0.01 * (wanted - wanted.mean((0, 1))).norm()


def test_no_other_map_is_nearer_to_what_is_not_affine() -> None:
    network = module([1, 2, 1], "relu")
    x = contexts(400)
    y = network.linear(x).detach()
    moments = Moments(8)
    moments.add(x, y)
    fitted = moments.fit()
    flat = torch.cat([x.flatten(0, 1), torch.ones(2000, 1)], 1).double()
    best = torch.linalg.lstsq(flat, y.flatten(0, 1).double()).solution
    least = (flat @ best - y.flatten(0, 1)).square().sum()
    own = (x.double() @ fitted.matrix.T + fitted.constant - y).square().sum()
    assert own < 1.01 * least


def test_a_row_stands_for_the_constant_where_contexts_lie_on_a_plane() -> None:
    """As the outputs of a layer norm do."""
    norm = torch.nn.LayerNorm(8)
    generator = torch.Generator().manual_seed(2)
    norm.weight.data = 1 + 0.1 * torch.randn(8, generator=generator)
    norm.bias.data = 1 + torch.randn(8, generator=generator)
    moments = Moments(8)
    moments.add(norm(contexts(300)), torch.zeros(300, 5, 8))
    ones = norm(contexts(20, seed=5)).double() @ moments.one()
    assert (ones - 1).abs().max() < 0.02


def test_moments_of_half_precision_contexts_do_not_overflow() -> None:
    moments = Moments(8)
    moments.add(200 * contexts(500).half(), torch.zeros(500, 5, 8))
    assert moments.power().isfinite().all()
    assert torch.linalg.eigvalsh(moments.covariance()).min() > 0
