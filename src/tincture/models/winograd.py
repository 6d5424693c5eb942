"""Large convolutions of a frozen denoiser with fewer multiplications, on a processor in float32.

A 3 x 3 convolution of 2 x 2 cells needs 36 multiplications for each pair of channels, or 16 of sums of the cells and of
the weights (Winograd 1980; Lavin and Gray 2016, arXiv:1509.09308, section 4.1). The weights are frozen, so theirs are
made once, at the first step, and serve forward and backward pass. Errors are as large as a direct convolution's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

LEAST_CHANNELS = 256
"""Below, making the sums takes longer than what they spare."""
LEAST_TILES = 64
"""Of 2 x 2 cells, all samples together; below, reading the weights takes the time, and their sums are 16/9 as many."""
MOST_WEIGHTS = 20 * 2**20
"""Sums of a layer's weights: 80 MiB. Wider layers stand where maps are small, and would take gigabytes."""

_CELLS = ((1.0, 0.0, -1.0, 0.0), (0.0, 1.0, 1.0, 0.0), (0.0, -1.0, 1.0, 0.0), (0.0, 1.0, 0.0, -1.0))
_WEIGHTS = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))
_RESULTS = ((1.0, 1.0, 1.0, 0.0), (0.0, 1.0, -1.0, -1.0))
# A backward pass has the same weights in reverse order, whose sums are the same with the first and last exchanged.
_REVERSED = (3, 1, 2, 0)


def transform_convolutions(unet: nn.Module) -> None:
    """From now on layers for which it pays convolve so, wherever an input is large enough.

    Layers stay the same objects, with their hooks and weights.

    Args:
        unet: diffusers' UNet2DConditionModel, frozen.
    """
    for layer in unet.modules():
        if type(layer) is nn.Conv2d and _pays(layer):
            layer.__class__ = _WinogradConv2d


def _pays(layer: nn.Conv2d) -> bool:
    channels = (layer.in_channels, layer.out_channels)
    is_plain = layer.kernel_size == (3, 3) and layer.padding in ((1, 1), 1) and layer.padding_mode == "zeros"
    is_dense = layer.stride == layer.dilation == (1, 1) and layer.groups == 1
    return is_plain and is_dense and min(channels) >= LEAST_CHANNELS and 16 * channels[0] * channels[1] <= MOST_WEIGHTS


class _WinogradConv2d(nn.Conv2d):
    sums: Tensor

    def forward(self, input: Tensor) -> Tensor:
        if not self._is_for(input):
            return super().forward(input)
        if "sums" not in self._buffers:
            self.register_buffer("sums", weight_sums(self.weight.detach()), persistent=False)
        output: Tensor = _Convolution.apply(input, self.sums)  # type: ignore[no-untyped-call]
        return output if self.bias is None else output + self.bias[:, None, None]

    def _is_for(self, input: Tensor) -> bool:
        count, _, height, width = input.shape
        is_even = height % 2 == width % 2 == 0
        is_plain = input.device.type == "cpu" and input.dtype == self.weight.dtype == torch.float32
        if not (is_plain and is_even) or self.weight.requires_grad or torch.is_autocast_enabled("cpu"):
            return False
        return count * height * width >= 4 * LEAST_TILES


class _Convolution(torch.autograd.Function):
    """Of an input (B, in, H, W) with the sums (16, out, in) of weights that need no gradient."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, sums: Tensor) -> Tensor:
        ctx.sums = sums
        return convolve(input, sums)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return convolve(gradients[0], ctx.sums.transpose(1, 2), reverse=True), None


def weight_sums(weight: Tensor) -> Tensor:
    """(16, out, in) of weights (out, in, 3, 3)."""
    by = weight.new_tensor(_WEIGHTS)
    return torch.einsum("ai,ocij,bj->aboc", by, weight, by).reshape(16, *weight.shape[:2]).contiguous()


def convolve(input: Tensor, sums: Tensor, *, reverse: bool = False) -> Tensor:
    """(B, out, H, W) of an input (B, in, H, W) with a frame of zeros, H and W even.

    Args:
        sums: (16, out, in) of the weights.
        reverse: convolves with the weights in reverse order.
    """
    (count, channels, height, width), rows, columns = input.shape, input.shape[2] // 2, input.shape[3] // 2
    framed = nn.functional.pad(input, (1, 1, 1, 1))
    sample, channel, down, right = framed.stride()
    size = (4, 4, channels, count, rows, columns)
    tiles = framed.as_strided(size, (down, right, channel, sample, 2 * down, 2 * right)).reshape(16, -1)
    cells = _both_ways(_CELLS, input, reverse) @ tiles
    products = torch.bmm(sums, cells.view(16, channels, -1)).view(16, -1)
    results = _both_ways(_RESULTS, input, reverse, of_columns=True) @ products
    quarters = results.view(2, 2, sums.shape[1], count, rows, columns)
    return quarters.permute(3, 2, 4, 0, 5, 1).reshape(count, sums.shape[1], height, width)


def _both_ways(
    matrix: tuple[tuple[float, ...], ...], like: Tensor, reverse: bool, *, of_columns: bool = False
) -> Tensor:
    """``matrix`` along rows and columns at once, the 16 in the order of the weights' sums."""
    one = like.new_tensor(matrix)
    if reverse:
        one = one[:, list(_REVERSED)] if of_columns else one[list(_REVERSED)]
    return torch.kron(one, one)
