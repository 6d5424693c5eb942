"""Hypernetworks put together: their weights interpolated, their effects added up, or one behind another.

Which of it is exact, and of what structure the result is, stands in ``adapters/merging/chains.py``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import nn

from tincture.adapters.hypernetwork_module import HypernetworkModule, layers_on_meta
from tincture.adapters.merging.activations import Activation, same_activation
from tincture.adapters.merging.chains import Chain, added_up, chain_of, one_behind_another
from tincture.errors import UsageError
from tincture.formats.hypernetwork_file import HypernetworkFile
from tincture.formats.hypernetwork_states import State
from tincture.kinds.layer_structure import layer_widths, legacy_dropout_structure
from tincture.models.families import FAMILIES

Modules = Mapping[int, tuple[HypernetworkModule, HypernetworkModule]]
"""By context width, those for K and V, in float64 and eval mode."""
Chains = Mapping[int, tuple[Chain, Chain]]
SUM_HINT = "or name both in the prompt instead"


@dataclass(frozen=True)
class Network:
    """A hypernetwork that is to be merged.

    Attributes:
        label: what messages call it.
        weight: its share, or its strength.
        file: what its file holds.
    """

    label: str
    weight: float
    file: HypernetworkFile

    @property
    def dropout(self) -> list[float]:
        """Probabilities, one for each entry of the layer structure."""
        structure, file = self.file.dropout_structure, self.file
        if structure is None and file.use_dropout:
            structure = legacy_dropout_structure(file.layer_structure, file.last_layer_dropout)
        return list(structure or [0.0] * len(file.layer_structure))

    @property
    def activates_last(self) -> bool:
        """Whether there is an activation behind the last layer."""
        return self.file.activate_output and same_activation(self.file.activation_func) != "linear"

    def modules(self) -> Modules:
        """As they act."""
        return {
            width: (self._module(width, pair[0]), self._module(width, pair[1]))
            for width, pair in self.file.states.items()
        }

    def chains(self) -> Chains:
        """What its modules add to their contexts; UsageError with layer norms, or an activation of whole layers."""
        activation = Activation.named(self.file.activation_func)
        if self.file.add_layer_norm:
            raise UsageError(
                f"{self.label} has layer norms, which look at all units of a layer together, so that they cannot stand "
                "beside others or be left out; interpolate it with one of the same structure (--method interpolate), "
                f"{SUM_HINT}."
            )
        if not activation.pointwise:
            raise UsageError(
                f"{self.label} has the activation {activation.name}, which is not the same for each unit by itself; "
                f"interpolate it with one of the same structure (--method interpolate), {SUM_HINT}."
            )
        return self.all_chains()

    def all_chains(self) -> Chains:
        """The same without asking what they allow; without layer norms."""
        activation, last = Activation.named(self.file.activation_func), self.activates_last
        return {
            width: (chain_of(k, activation, last), chain_of(v, activation, last))
            for width, (k, v) in self.modules().items()
        }

    def _module(self, width: int, state: State) -> HypernetworkModule:
        module = HypernetworkModule(
            width,
            {name: tensor.double() for name, tensor in state.items()},
            layer_structure=self.file.layer_structure,
            activation_func=self.file.activation_func,
            add_layer_norm=self.file.add_layer_norm,
            activate_output=self.file.activate_output,
            dropout_structure=self.dropout,
        )
        return module.requires_grad_(False).eval()


def require_one_family(networks: Sequence[Network]) -> None:
    """UsageError for hypernetworks whose widths are those of different families' texts."""
    titles = {family.text_width: family.title for family in FAMILIES.values()}
    made_for = {network.label: titles.keys() & network.file.states.keys() for network in networks}
    if not reduce(lambda one, other: one & other, (own or titles.keys() for own in made_for.values())):
        described = [f"{label} is for {' and '.join(titles[w] for w in own)}" for label, own in made_for.items() if own]
        raise UsageError(f"{', '.join(described)}: these cannot act together; merge those of one family.")


# --- three ways -------------------------------------------------------------------------------------------------------


def interpolated(networks: Sequence[Network]) -> HypernetworkFile:
    """One of the same structure, whose weights are the weighted sums of theirs.

    Raises:
        UsageError: the structures differ.
    """
    first = networks[0]
    for other in networks[1:]:
        differences = list(_differences(first, other))
        if differences:
            raise UsageError(
                f"{first.label} and {other.label} have different structures ({'; '.join(differences)}), so their "
                f"weights cannot be interpolated; add up their effects (--method sum), {SUM_HINT}."
            )
    dropout = _dropout(networks, len(first.file.layer_structure))
    states = {
        width: (_weighted(networks, width, 0, dropout), _weighted(networks, width, 1, dropout))
        for width in sorted(first.file.states)
    }
    return dataclasses.replace(first.file, states=states, **dropout)


def summed(networks: Sequence[Network]) -> HypernetworkFile:
    """One that adds to each context what all of them together would, each at its strength.

    Raises:
        UsageError: their structures do not allow it.
    """
    if len(networks) == 1:
        return scaled(networks[0])
    chains = _alike(networks)
    widths = sorted({width for each in chains for width in each})
    result: dict[int, tuple[Chain, Chain]] = {}
    for width in widths:
        own = [pairs[width] for pairs in chains if width in pairs]
        result[width] = added_up([k for k, _ in own]), added_up([v for _, v in own])
    return file_of(result, networks)


def stacked(networks: Sequence[Network]) -> HypernetworkFile:
    """One that does what they do one behind another, in their order, as several in a prompt do.

    Raises:
        UsageError: their structures do not allow it.
    """
    if len(networks) == 1:
        return scaled(networks[0])
    chains = _alike(networks, behind=True)
    result: dict[int, tuple[Chain, Chain]] = {}
    for pairs in chains:
        for width, (k, v) in pairs.items():
            if width in result:
                k, v = one_behind_another(result[width][0], k), one_behind_another(result[width][1], v)
            result[width] = k, v
    settled = {width: (_settled(k), _settled(v)) for width, (k, v) in result.items()}
    length = max(len(chain.layers) for pair in settled.values() for chain in pair)
    return file_of({width: (k.lengthened(length), v.lengthened(length)) for width, (k, v) in settled.items()}, networks)


def scaled(network: Network) -> HypernetworkFile:
    """The same with its strength worked in; an activation behind its last layer gets a layer behind it."""
    file, factor = network.file, network.weight
    if network.activates_last and not file.add_layer_norm and factor != 1:
        pairs = network.all_chains().items()
        return file_of({width: (k.scaled(factor), v.scaled(factor)) for width, (k, v) in pairs}, [network])
    last = nn.LayerNorm if file.add_layer_norm else nn.Linear
    states: dict[int, tuple[State, State]] = {}
    for width, (k, v) in network.modules().items():
        states[width] = _last_times(k, last, factor), _last_times(v, last, factor)
    return dataclasses.replace(file, states=states)


def _last_times(module: HypernetworkModule, kind: type[nn.Module], factor: float) -> State:
    number = [number for number, layer in module.linear.named_children() if isinstance(layer, kind)][-1]
    scaled_ones = (f"linear.{number}.weight", f"linear.{number}.bias")
    return {name: factor * rows if name in scaled_ones else rows for name, rows in module.state_dict().items()}


def _differences(one: Network, other: Network) -> Iterator[str]:
    traits: Mapping[str, Callable[[Network], Any]] = {
        "widths": lambda network: _listed(sorted(network.file.states)),
        "layer structures": lambda network: _listed(network.file.layer_structure),
        "activations": lambda network: same_activation(network.file.activation_func),
        "layer norms": lambda network: "with" if network.file.add_layer_norm else "without",
        "activation behind the last layer": lambda network: "yes" if network.activates_last else "no",
    }
    for title, trait in traits.items():
        if trait(one) != trait(other):
            yield f"{title}: {trait(one)} and {trait(other)}"


def _weighted(networks: Sequence[Network], width: int, role: int, dropout: Mapping[str, Any]) -> State:
    # Layers are numbered together with those that drop out, of which the networks may have different ones.
    file = networks[0].file
    widths = layer_widths(width, file.layer_structure)
    traits = (file.activation_func, file.add_layer_norm, file.activate_output, dropout["dropout_structure"])
    numbers = [number for number, layer in layers_on_meta(widths, *traits).named_children() if [*layer.parameters()]]
    states = [_renumbered(network.file.states[width][role], numbers) for network in networks]
    weights = [network.weight for network in networks]
    return {
        name: torch.stack([weight * state[name].double() for weight, state in zip(weights, states, strict=True)]).sum(0)
        for name in states[0]
    }


def _renumbered(state: State, numbers: Sequence[str]) -> State:
    """The same layers in their order, called by these numbers."""
    before = sorted({int(name.split(".")[1]) for name in state})
    called = {str(old): new for old, new in zip(before, numbers, strict=True)}
    renamed = {}
    for name, tensor in state.items():
        place, number, part = name.split(".")
        renamed[f"{place}.{called[number]}.{part}"] = tensor
    return renamed


def _alike(networks: Sequence[Network], *, behind: bool = False) -> list[Chains]:
    """Chains at their strengths with one activation; those that are added up have one length too.

    Raises:
        UsageError: with their activations that is not possible.
    """
    every = [network.chains() for network in networks]
    chains = [chain for each in every for pair in each.values() for chain in pair]
    activations = {chain.activation.name: chain.activation for chain in chains}
    linear = activations.pop("linear", None)
    if len(activations) > 1:
        raise UsageError(
            f"{_named(networks)} have different activations ({_listed(activations)}), which one file has no place for; "
            f"merge those of one activation, {SUM_HINT}."
        )
    activation = next(iter(activations.values()), linear)
    assert activation is not None
    lengths = {len(_settled(chain).layers) for chain in chains}
    if activation.carry is None and (behind or len(lengths) > 1):
        raise UsageError(
            f"{_named(networks)} cannot {'stand one behind another' if behind else 'be added up'} in one file: the "
            f"activation {activation.name} lets no number through unchanged"
            f"{'' if behind else f', and they have {_listed(sorted(lengths))} layers'}; relu, leakyrelu, gelu, silu, "
            f"swish and softplus do. {'Add up their effects (--method sum)' if behind else 'Merge others'}, {SUM_HINT}."
        )
    length = 1 if behind else max(lengths)
    strengths = [network.weight for network in networks]
    return [
        {width: (_fitted(k, activation, by, length), _fitted(v, activation, by, length)) for width, (k, v) in own}
        for by, own in zip(strengths, (each.items() for each in every), strict=True)
    ]


def _fitted(chain: Chain, activation: Activation, strength: float, length: int) -> Chain:
    return dataclasses.replace(_settled(chain).scaled(strength), activation=activation).lengthened(length)


def _settled(chain: Chain) -> Chain:
    """Without an activation as a single layer, which is the same."""
    return chain.composed() if chain.activation.layer is None else chain


# --- files ------------------------------------------------------------------------------------------------------------


def file_of(chains: Chains, networks: Sequence[Network]) -> HypernetworkFile:
    """A hypernetwork of these chains, which otherwise is as the first of ``networks``.

    Widths of layers are factors of the context's, the same for all contexts: chains that have fewer units get some
    that do nothing.
    """
    structure = structure_of({width: [k.hidden, v.hidden] for width, (k, v) in chains.items()})
    activation = next(iter(chains.values()))[0].activation
    dropout = _dropout(networks, len(structure))
    states: dict[int, tuple[State, State]] = {}
    for width, (k, v) in sorted(chains.items()):
        widths = layer_widths(width, structure)
        layers = layers_on_meta(widths, activation.name, False, False, dropout["dropout_structure"])
        numbers = [number for number, layer in layers.named_children() if isinstance(layer, nn.Linear)]
        states[width] = _state(k.with_units(widths[1:-1]), numbers), _state(v.with_units(widths[1:-1]), numbers)
    return dataclasses.replace(
        networks[0].file,
        states=states,
        layer_structure=structure,
        activation_func=activation.name,
        add_layer_norm=False,
        activate_output=False,
        **dropout,
    )


def structure_of(hidden: Mapping[int, Sequence[Sequence[int]]]) -> list[float]:
    """The smallest layer structure with room for so many units between layers, by context width.

    Args:
        hidden: of each module, all with as many layers.
    """
    factors: list[float] = []
    for number in range(len(next(iter(hidden.values()))[0])):
        needed = {width: max(units[number] for units in modules) for width, modules in hidden.items()}
        factors.append(_factor(needed))
    return [1, *factors, 1]


def _factor(needed: Mapping[int, int]) -> float:
    exact = max(units / width for width, units in needed.items())
    while any(int(width * exact) < units for width, units in needed.items()):
        exact = math.nextafter(exact, math.inf)
    for digits in range(12):
        short = round(exact, digits)
        if all(int(width * short) == int(width * exact) for width in needed):
            return int(short) if short.is_integer() else short
    return exact


def _state(chain: Chain, numbers: Sequence[str]) -> State:
    state: State = {}
    for number, (weight, bias) in zip(numbers, chain.layers, strict=True):
        state |= {f"linear.{number}.weight": weight, f"linear.{number}.bias": bias}
    return state


def _dropout(networks: Sequence[Network], length: int) -> dict[str, Any]:
    """Theirs, if all have the same and it fits a structure of ``length``; it counts only while they are trained."""
    structures = [network.dropout for network in networks]
    same = all(structure == structures[0] for structure in structures) and len(structures[0]) == length
    structure = structures[0] if same else [0.0] * length
    return {"dropout_structure": structure, "use_dropout": any(structure), "last_layer_dropout": structure[-2] > 0}


def _named(networks: Sequence[Network]) -> str:
    labels = list(dict.fromkeys(network.label for network in networks))
    return " and ".join(part for part in (", ".join(labels[:-1]), labels[-1]) if part)


def _listed(values: Iterable[float | str]) -> str:
    return ", ".join(value if isinstance(value, str) else f"{value:g}" for value in values)
