"""Looks into a U-Net while pictures are drawn: what keys and values are made from, and how far a LoRA is off."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tincture.adapters.affine import Moments
from tincture.adapters.hypernetwork import Hypernetwork
from tincture.adapters.hypernetwork_module import HypernetworkModule
from tincture.errors import ModelError
from tincture.formats.lora_file import LowRank
from tincture.models.diffusion_model import DiffusionModel
from tincture.models.sampling import generate
from tincture.randomness import torch_seed
from tincture.settings.drawing import Drawing

# Enough noise levels to see what self-attentions are given early and late.
_DRAWING = Drawing(steps=8, sampler="Euler")
_BATCH_SIZE = 4
# U-Net calls that noise predictions are compared at: the steps of the first batch.
_COMPARED_CALLS = 8


Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments of the U-Net."""


@dataclass(frozen=True)
class Projection:
    """``to_k`` or ``to_v`` of an attention, the module that acts before it, and the output layer behind it.

    Attributes:
        name: path in the U-Net, ending in ``to_k`` or ``to_v``.
        output_name: likewise, ending in ``to_out.0``.
    """

    name: str
    layer: nn.Linear
    module: HypernetworkModule
    output_name: str
    output: nn.Linear

    @property
    def makes_values(self) -> bool:
        """Whether this is ``to_v``."""
        return self.name.endswith("to_v")

    def added(self, context: Tensor, multiplier: float) -> Tensor:
        """What the module adds to ``context`` (B, tokens, width), in float32."""
        added: Tensor = self.module.linear(context.float()) * multiplier
        return added


def find_projections(hypernetwork: Hypernetwork, model: DiffusionModel) -> list[Projection]:
    """The projections that ``hypernetwork`` acts before, in the order of the U-Net.

    Raises:
        ModelError: one of them is no plain linear layer.
    """
    names = {module: name for name, module in model.denoiser.named_modules()}
    found = []
    for attention in model.projections():
        for layer, module in zip(attention, hypernetwork.pairs.get(attention.context_width, ()), strict=False):
            output_name = f"{names[layer].rpartition('.')[0]}.to_out.0"
            output = model.denoiser.get_submodule(output_name)
            if not isinstance(layer, nn.Linear) or not isinstance(output, nn.Linear):
                raise ModelError(
                    f"The layer {names[layer]} of this model is a {type(layer).__name__} before a "
                    f"{type(output).__name__}, not a plain linear one; unload other LoRAs first."
                )
            found.append(Projection(names[layer], layer, module, output_name, output))
    return found


@dataclass(frozen=True)
class Errors:
    """How far a LoRA is off; see ``LoraLayer.error`` for ``layers``, and ``LoraReport`` for the others."""

    layers: dict[str, float]
    noise_error: float
    noise_error_most: float
    noise_change: float


class Probe:
    """Draws pictures under a hypernetwork and watches the projections it acts before.

    Args:
        hypernetwork: in eval mode.
        model: the base model.
        multiplier: the hypernetwork's strength.
        seed: of the pictures; those that are fitted to are others than those that are measured with.
    """

    def __init__(self, hypernetwork: Hypernetwork, model: DiffusionModel, multiplier: float, seed: int) -> None:
        self.projections = find_projections(hypernetwork, model)
        self._hypernetwork, self._model, self._multiplier, self._seed = hypernetwork, model, multiplier, seed

    def moments(self, captions: Sequence[str]) -> dict[Projection, Moments]:
        """What the projections are given, and what is added to it, while ``captions`` are drawn.

        Raises:
            ModelError: NaN or infinite numbers come up.
        """
        moments = {projection: Moments(projection.layer.in_features) for projection in self.projections}
        self._draw("fit", captions, lambda at, x: moments[at].add(x, at.added(x, self._multiplier)))
        if not all(moment.is_finite() for moment in moments.values()):
            raise ModelError(
                f"While hypernetwork {self._hypernetwork.name!r} acts at strength {self._multiplier}, the model's "
                f"numbers become NaN or infinite; take a lower multiplier, or the model in float32."
            )
        return moments

    def errors(self, captions: Sequence[str], changes: Mapping[str, LowRank], shifts: Mapping[str, Tensor]) -> Errors:
        """How far ``attach_lora`` with ``changes`` and ``shifts`` is off while ``captions`` are drawn."""
        sums = {projection.name: torch.zeros(2, dtype=torch.float64) for projection in self.projections}
        calls: list[Call] = []

        def compare(at: Projection, context: Tensor) -> None:
            wanted = at.added(context, self._multiplier) @ at.layer.weight.float().T
            made = _apply(changes[at.name], shifts.get(at.name), context)
            if not at.makes_values:
                wanted, made = (keys - keys.mean(1, keepdim=True) for keys in (wanted, made))
            sums[at.name] += torch.stack([_power(made - wanted), _power(wanted)])

        def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if len(calls) < _COMPARED_CALLS:
                calls.append((args, kwargs))

        with _hook(self._model.denoiser.register_forward_pre_hook(record, with_kwargs=True)):
            self._draw("measure", captions, compare)
        noise = self._noise_errors(calls, attach_lora(self._model.denoiser, changes, shifts))
        return Errors({name: _ratio(*powers) for name, powers in sums.items()}, *noise)

    def _draw(self, purpose: str, captions: Sequence[str], see: Callable[[Projection, Tensor], None]) -> None:
        with ExitStack() as hooks:
            for projection in self.projections:
                watch = partial(_pass_input, partial(see, projection))
                hooks.enter_context(_hook(projection.layer.register_forward_pre_hook(watch)))
            # Attached last, so that the hooks see the context as it was before.
            hooks.enter_context(self._hypernetwork.attach(self._model, self._multiplier))
            seeds = [torch_seed(self._seed, f"LoRA {purpose}", index) for index in range(len(captions))]
            generate(self._model, captions, _DRAWING, seeds=seeds, batch_size=_BATCH_SIZE)

    def _noise_errors(self, calls: Sequence[Call], lora: AbstractContextManager[None]) -> tuple[float, float, float]:
        def predict(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
            noise_pred: Tensor = self._model.denoiser(*args, **kwargs)[0]
            return noise_pred.float()

        base = torch.cat([predict(*call) for call in calls])
        with self._hypernetwork.attach(self._model, self._multiplier):
            wanted = torch.cat([predict(*call) for call in calls])
        with lora:
            made = torch.cat([predict(*call) for call in calls])
        each = [_ratio(_power(m - w), _power(w - b)) for m, w, b in zip(made, wanted, base, strict=True)]
        change = _power(wanted - base)
        return _ratio(_power(made - wanted), change), max(each), _ratio(change, _power(base))


@contextmanager
def attach_lora(unet: nn.Module, changes: Mapping[str, LowRank], shifts: Mapping[str, Tensor]) -> Iterator[None]:
    """Adds ``changes`` to layers of ``unet`` by their path, ``shifts`` to their outputs; inside the context only."""

    def add(name: str, _: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + _apply(changes[name], shifts.get(name), args[0]).to(output.dtype)

    with ExitStack() as hooks:
        for name in changes:
            hooks.enter_context(_hook(unet.get_submodule(name).register_forward_hook(partial(add, name))))
        yield


def _apply(change: LowRank, shift: Tensor | None, x: Tensor) -> Tensor:
    up, down = (matrix.to(x.device, torch.float32) for matrix in (change.up, change.down))
    made = x.float() @ down.T @ up.T
    return made if shift is None else made + shift.to(made)


def _pass_input(see: Callable[[Tensor], None], _: nn.Module, args: tuple[Tensor, ...]) -> None:
    see(args[0])


@contextmanager
def _hook(handle: torch.utils.hooks.RemovableHandle) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


def _power(tensor: Tensor) -> Tensor:
    return tensor.square().sum().cpu().double()


def _ratio(difference: Tensor, reference: Tensor) -> float:
    """Of root mean squares; 0 when nothing should change."""
    return math.sqrt(difference / reference) if reference else 0.0
