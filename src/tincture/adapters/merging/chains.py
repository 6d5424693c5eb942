"""What a hypernetwork's module adds to its context, as a chain of affine layers, and what is exact about chains.

A chain is f(x) = W_n a(… a(W_1 x + b_1) …) + b_n with one activation a between its layers. The module itself gives
x + f(x). All tensors are float64 on the CPU.

- A sum of chains of the same length is a chain, whose layers stand side by side, if a acts on each number alone.
- Where a(x) - a(-x) = c x, as for relu, leakyrelu, gelu, silu, swish and softplus, two units carry a number unchanged
  through a layer. So chains can be made longer, and one module behind another is a chain too.
- Without an activation, every chain is a single layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tincture.adapters.hypernetwork_module import HypernetworkModule
from tincture.adapters.merging.activations import Activation

Layer = tuple[Tensor, Tensor]
"""Weight (out, in) and bias (out,)."""


@dataclass(frozen=True)
class Chain:
    """Layers with ``activation`` between them.

    Attributes:
        layers: the first takes the context, the last gives what is added to it.
        activation: acts after every layer but the last.
    """

    layers: tuple[Layer, ...]
    activation: Activation

    @property
    def width(self) -> int:
        """Of the context."""
        return self.layers[-1][0].shape[0]

    @property
    def hidden(self) -> list[int]:
        """Units between the layers."""
        return [len(bias) for _, bias in self.layers[:-1]]

    def __call__(self, x: Tensor) -> Tensor:
        """What is added to the contexts ``x`` (n, width)."""
        for number, (weight, bias) in enumerate(self.layers):
            x = nn.functional.linear(self.activation(x) if number else x, weight, bias)
        return x

    def scaled(self, factor: float) -> Chain:
        """``factor`` times the same."""
        weight, bias = self.layers[-1]
        return replace(self, layers=(*self.layers[:-1], (factor * weight, factor * bias)))

    def composed(self) -> Chain:
        """The same as a single layer; of a chain without an activation."""
        weight, bias = self.layers[0]
        for more_weight, more_bias in self.layers[1:]:
            weight, bias = more_weight @ weight, more_weight @ bias + more_bias
        return replace(self, layers=((weight, bias),))

    def lengthened(self, length: int) -> Chain:
        """The same with ``length`` layers; needs the activation's ``carry`` where it has fewer."""
        chain = self
        while len(chain.layers) < length:
            *before, (weight, bias) = chain.layers
            read = _read(self.activation, self.width)
            pair = torch.cat([weight, -weight]), torch.cat([bias, -bias])
            chain = replace(chain, layers=(*before, pair, (read, read.new_zeros(self.width))))
        return chain

    def with_units(self, hidden: Sequence[int]) -> Chain:
        """The same with so many units between its layers; those that it has not yet do nothing."""
        layers, units = [], [self.width, *hidden, self.width]
        for (weight, bias), inputs, outputs in zip(self.layers, units, units[1:], strict=False):
            more = (0, inputs - weight.shape[1], 0, outputs - weight.shape[0])
            layers.append((nn.functional.pad(weight, more), nn.functional.pad(bias, (0, outputs - len(bias)))))
        return replace(self, layers=tuple(layers))


def chain_of(module: HypernetworkModule, activation: Activation, activate_output: bool) -> Chain:
    """The chain of a module without layer norms; an activation behind its last layer gets a layer behind it."""
    layers = [
        (layer.weight.detach().cpu().double(), layer.bias.detach().cpu().double())
        for layer in module.linear
        if isinstance(layer, nn.Linear)
    ]
    if activate_output and activation.layer is not None:
        width = len(layers[-1][1])
        layers.append((torch.eye(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)))
    return Chain(tuple(layers), activation)


def added_up(chains: Sequence[Chain]) -> Chain:
    """The sum of chains of the same length, whose layers stand side by side."""
    layers: list[Layer] = []
    for number, side_by_side in enumerate(zip(*(chain.layers for chain in chains), strict=True)):
        weights, biases = [weight for weight, _ in side_by_side], [bias for _, bias in side_by_side]
        first, last = number == 0, number == len(chains[0].layers) - 1
        weight = _joined(weights, same_input=first, same_output=last)
        layers.append((weight, torch.stack(biases).sum(0) if last else torch.cat(biases)))
    return replace(chains[0], layers=tuple(layers))


def one_behind_another(first: Chain, second: Chain) -> Chain:
    """What is added in all where ``second`` is given the context that ``first`` made.

    That is f(x) + g(x + f(x)). Needs the activation's ``carry``, and has as many layers as both less one.
    """
    width, zeros = first.width, first.layers[-1][1].new_zeros(first.width)
    identity = torch.eye(width, dtype=torch.float64)
    pair, layers = torch.cat([identity, -identity]), list[Layer]()
    context = identity  # gives x from the units so far
    for weight, bias in first.layers[:-1]:
        carried = pair @ context
        layers.append((torch.cat([_for_units(weight, carried), carried]), torch.cat([bias, zeros, zeros])))
        context = nn.functional.pad(_read(first.activation, width), (len(bias), 0))
    weight, added_bias = first.layers[-1]
    added = _for_units(weight, context)  # gives f(x)
    weight, bias = second.layers[0]
    entered, entered_bias = weight @ (context + added), weight @ added_bias + bias
    for weight, bias in second.layers[1:]:
        layers.append((torch.cat([entered, pair @ added]), torch.cat([entered_bias, pair @ added_bias])))
        added, added_bias = nn.functional.pad(_read(first.activation, width), (len(entered_bias), 0)), zeros
        entered, entered_bias = _for_units(weight, added), bias
    return replace(first, layers=(*layers, (entered + added, entered_bias + added_bias)))


def _read(activation: Activation, width: int) -> Tensor:
    """What gives numbers back that pairs of units carry: (width, 2 width)."""
    assert activation.carry is not None
    identity = torch.eye(width, dtype=torch.float64) / activation.carry
    return torch.cat([identity, -identity], dim=1)


def _for_units(weight: Tensor, units: Tensor) -> Tensor:
    """``weight``, which acts on the first of all the units that ``units`` (…, n) acts on."""
    return nn.functional.pad(weight, (0, units.shape[1] - weight.shape[1]))


def _joined(weights: Sequence[Tensor], *, same_input: bool, same_output: bool) -> Tensor:
    if same_input and same_output:
        return torch.stack(list(weights)).sum(0)
    if same_input or same_output:
        return torch.cat(list(weights), dim=0 if same_input else 1)
    joined: Tensor = torch.block_diag(*weights)  # type: ignore[no-untyped-call]
    return joined
