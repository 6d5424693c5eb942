"""Frozen weights kept in eight bits each, and made whole again by the layer that uses them.

Half the memory of bfloat16, for weights that are rounded to four significant bits and a little time. What is kept is
torch's float8_e4m3fn (Micikevicius et al. 2022, arXiv:2209.05433) times a power of two for each row, so that rows of
small weights don't fall among the format's smallest numbers, which have fewer bits.

Gradients reach a layer's input, and all that a layer keeps for that are its eight-bit weights. These stay frozen.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input

from tincture.errors import UsageError

FULL_PRECISION_LAYERS = ("conv_in", "conv_out", "time_embedding", "add_embedding", "class_embedding")
"""Parts of a U-Net that stay as they are: few weights, on which everything depends."""

_GREATEST = torch.finfo(torch.float8_e4m3fn).max
_LEAST_EXPONENT = -24  # of the least number of half precision


def store_in_float8(unet: nn.Module, by: torch.device | str | None = None) -> None:
    """Keeps the weights of the linear layers and convolutions of a U-Net in eight bits from now on.

    Biases, norms and ``FULL_PRECISION_LAYERS`` stay as they are. Layers compute in the precision they had; moving or
    casting the U-Net afterwards moves the weights, and casts what they are made whole in. Hooks on layers
    go on working.

    Args:
        unet: diffusers' UNet2DConditionModel, frozen; its weights stay where they are.
        by: the device that rounds them, layer by layer; None for where they are.

    Raises:
        UsageError: the device knows no such numbers.
    """
    for name, child in unet.named_children():
        if name in FULL_PRECISION_LAYERS:
            continue
        for layer in child.modules():
            if type(layer) is nn.Linear or (type(layer) is nn.Conv2d and layer.padding_mode == "zeros"):
                _convert(layer, by)


def _convert(layer: nn.Linear | nn.Conv2d, by: torch.device | str | None) -> None:
    weight = layer.weight.detach()
    stored, scale = pack(weight if by is None else weight.to(by))
    layer.weight = nn.Parameter(stored.to(weight.device), requires_grad=False)
    layer.register_buffer("scale", scale.to(weight.device), persistent=False)
    # The layer stays the same object, with its hooks, and still is a linear layer to whoever asks.
    layer.__class__ = _Float8Linear if isinstance(layer, nn.Linear) else _Float8Conv2d


def pack(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The eight bits of each weight as uint8, in the shape of ``weight`` (rows, ...), and a scale for each row.

    Scales are powers of two in the dtype of ``weight``. Bytes, since casting a model's real numbers leaves them alone.

    Raises:
        UsageError: the weight's device knows no such numbers.
    """
    greatest = weight.float().flatten(1).abs().amax(1)
    scale = torch.exp2((greatest / _GREATEST).log2().ceil().clamp(min=_LEAST_EXPONENT))
    try:
        rounded = (weight.float() / _beside(scale, weight)).to(torch.float8_e4m3fn)
    except (RuntimeError, TypeError) as error:
        raise UsageError(
            f"Weights cannot be stored as float8 on the device {weight.device}: {error} Leave --weight-storage out."
        ) from error
    return rounded.view(torch.uint8), scale.to(weight.dtype)


def unpack(stored: Tensor, scale: Tensor) -> Tensor:
    """The weights that ``pack`` rounded, in the dtype of ``scale``."""
    return stored.view(torch.float8_e4m3fn).to(scale.dtype).mul_(_beside(scale, stored))


def _beside(scale: Tensor, weight: Tensor) -> Tensor:
    return scale.reshape(-1, *[1] * (weight.ndim - 1))


class _Float8Linear(nn.Linear):
    scale: Tensor

    def forward(self, input: Tensor) -> Tensor:
        return _LinearFunction.apply(input, self.weight, self.scale, self.bias)  # type: ignore[no-any-return, no-untyped-call]


class _Float8Conv2d(nn.Conv2d):
    scale: Tensor

    def forward(self, input: Tensor) -> Tensor:
        geometry = (self.stride, self.padding, self.dilation, self.groups)
        return _ConvFunction.apply(input, self.weight, self.scale, self.bias, geometry)  # type: ignore[no-any-return, no-untyped-call]


class _LinearFunction(torch.autograd.Function):
    """A linear layer that keeps its stored weights, not the whole ones, for the gradient of its input."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, stored: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(stored, scale)
        ctx.dtype = input.dtype
        return functional.linear(input, unpack(stored, scale), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        weight = unpack(*ctx.saved_tensors).to(gradient.dtype)
        return (gradient @ weight).to(ctx.dtype), None, None, None


class _ConvFunction(torch.autograd.Function):
    """The same for a convolution."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, stored: Tensor, scale: Tensor, bias: Tensor | None, geometry: tuple[Any, ...]
    ) -> Tensor:
        ctx.save_for_backward(stored, scale)
        ctx.dtype, ctx.shape, ctx.geometry = input.dtype, input.shape, geometry
        return functional.conv2d(input, unpack(stored, scale), bias, *geometry)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        weight = unpack(*ctx.saved_tensors).to(gradient.dtype)
        own = conv2d_input(ctx.shape, weight, gradient, *ctx.geometry)  # type: ignore[no-untyped-call]
        return own.to(ctx.dtype), None, None, None, None
