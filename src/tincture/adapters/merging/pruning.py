"""Hypernetworks with fewer units or context widths, and how far one hypernetwork's effect is off another's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tincture.adapters.merging.chains import Chain, Layer
from tincture.adapters.merging.merged_networks import Network, file_of
from tincture.errors import UsageError
from tincture.formats.hypernetwork_file import HypernetworkFile
from tincture.kinds.layer_structure import check_layer_structure, layer_widths
from tincture.randomness import normal

CONTEXTS = 512
"""So many random ones are effects measured on."""
Effect = Callable[[int, Tensor], tuple[Tensor, Tensor]]
"""What is added to contexts (n, width) of a width, for K and for V."""


def contexts(width: int) -> Tensor:
    """Contexts (n, width) float64, normally distributed much as layer norms before the attentions leave them."""
    return normal((CONTEXTS, width), 0, "contexts", width).double()


def narrowed(file: HypernetworkFile, sizes: Sequence[int]) -> HypernetworkFile:
    """The same with layers for these context widths only; UsageError where it has none for one."""
    missing = [size for size in sizes if size not in file.states]
    if missing:
        raise UsageError(
            f"There are no layers for the width {missing[0]}; keep some of {', '.join(map(str, sorted(file.states)))}."
        )
    return dataclasses.replace(file, states={width: file.states[width] for width in sorted(set(sizes))})


def pruned(file: HypernetworkFile, layer_structure: Sequence[float]) -> HypernetworkFile:
    """The same with fewer units between its layers.

    Without an activation it becomes the nearest of that rank, by singular values. With one, those units stay that vary
    most in what they pass on for ``contexts``; equal ones become one, and of the others the mean is kept. Units that do
    nothing go first, without any difference.

    Raises:
        UsageError: it cannot get this structure.
    """
    check_layer_structure(layer_structure)
    network = Network("The merged hypernetwork", 1, file)
    linear = next(iter(network.chains().values()))[0].activation.layer is None
    _require_smaller(network, layer_structure, linear)
    chains: dict[int, tuple[Chain, Chain]] = {}
    for width, (k, v) in network.chains().items():
        units = layer_widths(width, layer_structure)[1:-1]
        chains[width] = _with_fewer(k, units, linear), _with_fewer(v, units, linear)
    if not network.activates_last:
        return file_of(chains, [network])
    without = {width: (_without_last(k), _without_last(v)) for width, (k, v) in chains.items()}
    return dataclasses.replace(file_of(without, [network]), activate_output=True)


def difference(file: HypernetworkFile, wanted: Effect) -> dict[int, float]:
    """By context width, how far its effect on ``contexts`` is off ``wanted``: the root of the squares' shares."""
    found: dict[int, float] = {}
    for width, pair in Network("", 1, file).modules().items():
        x = contexts(width)
        made = torch.cat([module.linear(x[None])[0] for module in pair])
        should = torch.cat(wanted(width, x))
        found[width] = float((made - should).norm() / should.norm().clamp(min=torch.finfo(torch.float64).tiny))
    return found


def added_effects(networks: Sequence[Network]) -> Effect:
    """What they add to contexts, each by itself."""
    every = [(network.weight, network.modules()) for network in networks]

    def effect(width: int, x: Tensor) -> tuple[Tensor, Tensor]:
        total = torch.zeros(2, *x.shape, dtype=x.dtype)
        for weight, modules in every:
            for role, module in enumerate(modules.get(width, ())):
                total[role] += weight * module.linear(x[None])[0]
        return total[0], total[1]

    return effect


def effects_in_turn(networks: Sequence[Network]) -> Effect:
    """What they add to contexts one behind another."""
    every = [(network.weight, network.modules()) for network in networks]

    def effect(width: int, x: Tensor) -> tuple[Tensor, Tensor]:
        k, v = x, x
        for weight, modules in every:
            if width in modules:
                k, v = modules[width][0](k[None], weight)[0], modules[width][1](v[None], weight)[0]
        return k - x, v - x

    return effect


def _require_smaller(network: Network, structure: Sequence[float], linear: bool) -> None:
    present, listed = network.file.layer_structure, ", ".join(f"{factor:g}" for factor in structure)
    if linear:
        if len(structure) > 3:
            raise UsageError(
                f"The layer structure {listed} has too many layers: without an activation two do all that more could, "
                "so give one like 1, 0.25, 1."
            )
        return
    if len(structure) != len(present) or any(new > old for new, old in zip(structure, present, strict=True)):
        raise UsageError(
            f"The layer structure {listed} is no smaller form of {', '.join(f'{factor:g}' for factor in present)}; "
            "give as many numbers, each at most as large."
        )


def _with_fewer(chain: Chain, units: Sequence[int], linear: bool) -> Chain:
    if linear:
        return _of_rank(chain.composed(), units[0]) if units else chain.composed()
    layers, activation = list(chain.layers), chain.activation
    x = contexts(chain.width)
    for number, wanted in enumerate(units):
        layers[number : number + 2] = _united(*layers[number : number + 2])
        weight, bias = layers[number]
        made = activation(x @ weight.T + bias)
        layers[number], layers[number + 1], stay = _strongest(layers[number], layers[number + 1], made, wanted)
        x = made[:, stay]
    return dataclasses.replace(chain, layers=tuple(layers))


def _of_rank(chain: Chain, rank: int) -> Chain:
    """The nearest chain of two layers with ``rank`` units between (Eckart and Young 1936)."""
    ((weight, bias),) = chain.layers
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    roots = values[:rank].sqrt()
    first = roots[:, None] * right[:rank], bias.new_zeros(len(roots))
    return dataclasses.replace(chain, layers=(first, (left[:, :rank] * roots, bias)))


def _united(layer: Layer, following: Layer) -> tuple[Layer, Layer]:
    """The same with one unit for all that are equal."""
    rows = torch.cat([layer[0], layer[1][:, None]], dim=1)
    different, places = torch.unique(rows, dim=0, return_inverse=True)
    if len(different) == len(rows):
        return layer, following
    columns = following[0].new_zeros(following[0].shape[0], len(different)).index_add_(1, places, following[0])
    return (different[:, :-1], different[:, -1]), (columns, following[1])


def _strongest(layer: Layer, following: Layer, made: Tensor, wanted: int) -> tuple[Layer, Layer, Tensor]:
    """Both layers with the units that matter most, and which those are; of the others the mean stays."""
    (weight, bias), (more_weight, more_bias) = layer, following
    importance = made.var(0) * more_weight.square().sum(0)
    stay = importance.topk(min(wanted, len(importance))).indices.sort().values
    gone = torch.ones(len(importance), dtype=torch.bool)
    gone[stay] = False
    mean = more_weight[:, gone] @ made[:, gone].mean(0)
    return (weight[stay], bias[stay]), (more_weight[:, stay], more_bias + mean), stay


def _without_last(chain: Chain) -> Chain:
    """Without the layer behind the last activation, which changes nothing."""
    return dataclasses.replace(chain, layers=chain.layers[:-1])
