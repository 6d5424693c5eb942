"""A run's phases with tensors that hold nothing, to see how much memory they will take: seconds, and no weights.

The very components are used: a model of the same modules, the adapter, the optimizer and the trainer. What differs is
that every tensor has a shape only (torch's FakeTensorMode).
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tincture.adapters.adapter import Adapter
from tincture.data.latents import LatentCache
from tincture.models.diffusion_model import DiffusionModel
from tincture.run.memory.live import LiveMemory
from tincture.training.optimizer_state import StandIn
from tincture.training.trainer import Trainer

T = TypeVar("T")

_CUDA_BLOCK = 512
_MATRIX_WORKSPACE = 8_519_680
"""Bytes that cuBLAS sets aside (docs.nvidia.com/cuda/cublas: 4 KiB x 8 + 4 MiB x 2, as PyTorch asks for it)."""


@dataclass(frozen=True)
class StepMemory:
    """Bytes: ``lasting`` is what training keeps between steps (trained numbers and the optimizer's), ``passing`` the
    most that comes on top of that and of the model during a step, of which layers go on holding ``retained``."""

    lasting: int
    passing: int
    retained: int = 0


class Rehearsal:
    """A model and an adapter without numbers.

    Args:
        model: what it is like: any device, the meta device too, and any precision.
        adapter: what is trained.
        dtype: of the model's denoiser and text encoders.
        gradient_checkpointing: whether the denoiser's activations are computed anew in the backward pass.
        float8: whether the denoiser's weights are stored in eight bits.
        slicing: see ``DiffusionModel.enable_slicing``.
        device_type: whose memory it is about: ``cuda`` and ``cpu`` differ in what they keep.

    Attributes:
        model: the one without numbers.
        adapter: likewise.
    """

    def __init__(
        self,
        model: DiffusionModel,
        adapter: Adapter,
        *,
        dtype: torch.dtype = torch.float32,
        gradient_checkpointing: bool = False,
        float8: bool = False,
        slicing: bool = False,
        device_type: str = "cpu",
    ) -> None:
        self.is_cuda = device_type == "cuda"
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self.model = model.rebuilt(self._emptied, dtype)
        self.adapter = self._copied(adapter, {weight: weight.dtype for weight in adapter.parameters()})
        if float8:
            with self._mode:
                self.model.store_in_float8()
        if not self.is_cuda and dtype is torch.float32:
            self.model.speed_up_convolutions()
        if gradient_checkpointing:
            self.model.enable_gradient_checkpointing()
        else:
            self.model.disable_gradient_checkpointing()
        if slicing:
            self.model.enable_slicing()
        if self.is_cuda:
            _upcast_norms(self.model)
        self._buffers = {id(layer): frozenset(layer._buffers) for layer in self._layers()}

    def weights(self) -> dict[str, int]:
        """Bytes of each part's weights, by the names of ``DiffusionModel.placement``."""
        parts = self.model.placement.parts
        return {name: sum(_bytes(tensor) for tensor in _tensors(modules)) for name, modules in parts.items()}

    def encoding_pictures(self, count: int, width: int, height: int) -> int:
        """Bytes that encoding ``count`` pictures at a time takes beside the weights."""
        with self._counting() as memory:
            self.model.encode_pictures(torch.empty(count, 3, height, width))
        return memory.peak

    def decoding_pictures(self, count: int, width: int, height: int) -> int:
        """Bytes that decoding ``count`` pictures at a time takes beside the weights."""
        with self._counting() as memory:
            self.model.decode_latents(self._latents(count, width, height))
        return memory.peak

    def encoding_prompts(self, prompts: Sequence[str], clip_skip: int = 1) -> int:
        """Bytes that encoding ``prompts`` together without gradients takes beside the weights."""
        with self._counting() as memory, self._acting(), torch.no_grad():
            self.model.encode_prompts(prompts, clip_skip)
        return memory.peak

    def predicting(self, count: int, width: int, height: int) -> int:
        """Bytes that a prediction for ``count`` pictures without gradients takes beside the weights."""
        with self._counting() as memory, self._acting(), torch.no_grad():
            timesteps = self.model.noise_process.draw_timesteps(0, 0, range(count))
            conditions = self.model.encode_prompts([""]).expand(count)
            self.model.predict_noise(self._latents(count, width, height), timesteps, conditions)
        return memory.peak

    def step(
        self, make_trainer: Callable[[DiffusionModel, Adapter], Trainer], data: Sequence[Tensor] = ()
    ) -> StepMemory:
        """What a training step takes.

        Args:
            make_trainer: makes a trainer of the model and the adapter without numbers.
            data: tensors among those that the trainer draws from that don't count.
        """
        parameters = self.adapter.parameters()
        trained = sum(_bytes(parameter) for parameter in parameters)
        with self._counting([*parameters, *data]) as memory, torch.random.fork_rng(devices=[]):
            trainer = make_trainer(self.model, self.adapter)
            if type(trainer.optimizer).__module__.partition(".")[0] != "torch":
                trainer.optimizer = StandIn(trainer.optimizer)
            for parameter in parameters:
                parameter.grad = torch.zeros_like(parameter)
            trainer.optimizer.step()
            trainer.optimizer.zero_grad(set_to_none=True)
            between_steps = memory.now
            memory.peak = between_steps
            with self._acting(training=True):
                trainer.make_step(*trainer.rates())
            retained = sum(_bytes(layer.get_buffer(name)) for layer, name in self._retained())
        return StepMemory(trained + between_steps, memory.peak - between_steps, retained)

    def cached_latents(self, count: int, width: int, height: int) -> LatentCache:
        """A cache of ``count`` pictures."""
        with self._mode:
            one = self._latents(1, width, height)[0].float()
            return LatentCache([one] * count, [one] * count)

    def _emptied(self, module: nn.Module, dtype: torch.dtype) -> Any:
        """``module`` in the precision ``dtype``."""
        tensors = (*module.parameters(), *module.buffers())
        return self._copied(module, {one: dtype if one.is_floating_point() else one.dtype for one in tensors})

    def _copied(self, what: T, dtypes: Mapping[Tensor, torch.dtype]) -> T:
        """A copy of ``what`` with tensors that hold nothing in the places of those given, which are not copied."""
        memo = {}
        with self._mode:
            for tensor, dtype in dtypes.items():
                empty = torch.empty(tensor.shape, dtype=dtype)
                is_parameter = isinstance(tensor, nn.Parameter)
                memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
        return copy.deepcopy(what, cast(Any, memo))

    @contextmanager
    def _counting(self, known: Sequence[Tensor] = ()) -> Iterator[LiveMemory]:
        weights = [tensor for modules in self.model.placement.parts.values() for tensor in _tensors(modules)]
        block = _CUDA_BLOCK if self.is_cuda else 1
        with self._mode, LiveMemory([*weights, *self.adapter.parameters(), *known], block) as memory:
            yield memory
            for layer, name in self._retained():  # so that what is rehearsed next makes it too
                delattr(layer, name)
        if self.is_cuda:
            memory.peak += _MATRIX_WORKSPACE

    def _retained(self) -> list[tuple[nn.Module, str]]:
        """Buffers that layers made when they were first used."""
        return [(layer, name) for layer in self._layers() for name in layer._buffers.keys() - self._buffers[id(layer)]]

    def _layers(self) -> Iterator[nn.Module]:
        return (
            layer for modules in self.model.placement.parts.values() for part in modules for layer in part.modules()
        )

    @contextmanager
    def _acting(self, training: bool = False) -> Iterator[None]:
        with self.adapter.attach(self.model):
            self.adapter.train(training)
            yield

    def _latents(self, count: int, width: int, height: int) -> Tensor:
        stride = self.model.vae_scale_factor
        return torch.empty(count, self.model.latent_channels, height // stride, width // stride)


def _upcast_norms(model: DiffusionModel) -> None:
    """Norms compute in float32 under autocast, as they do on CUDA; a CPU leaves them in half precision."""
    for module in (
        module for modules in model.placement.parts.values() for part in modules for module in part.modules()
    ):
        if isinstance(module, nn.GroupNorm | nn.LayerNorm):
            module.forward = functools.partial(_norm_in_float32, module)  # type: ignore[method-assign]


def _norm_in_float32(norm: nn.GroupNorm | nn.LayerNorm, input: Tensor) -> Tensor:
    weight: Tensor = norm.weight
    bias: Tensor = norm.bias
    if torch.is_autocast_enabled("cpu"):
        input, weight, bias = input.float(), weight.float(), bias.float()
    if isinstance(norm, nn.GroupNorm):
        return nn.functional.group_norm(input, norm.num_groups, weight, bias, norm.eps)
    return nn.functional.layer_norm(input, norm.normalized_shape, weight, bias, norm.eps)


def _tensors(modules: Sequence[nn.Module]) -> list[Tensor]:
    return [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
