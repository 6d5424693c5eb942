"""How the convolutions of a frozen denoiser are computed fastest on a processor in float32: by their size."""

from __future__ import annotations

import torch
from torch import nn

from tincture.models.winograd import transform_convolutions

MOST_CHANNELS = 256
"""Of models whose weights lie channel by channel: a step of picto takes 1 to 12 % less time so, one of Stable Diffusion
10 % more."""


def speed_up_convolutions(unet: nn.Module) -> None:
    """From now on small ones have their channels side by side, and large ones fewer multiplications (``winograd``).

    Args:
        unet: diffusers' UNet2DConditionModel, frozen.
    """
    layers = [layer for layer in unet.modules() if type(layer) is nn.Conv2d]
    if max((layer.out_channels for layer in layers), default=0) > MOST_CHANNELS:
        transform_convolutions(unet)
        return
    for layer in layers:
        weight = layer.weight.detach().contiguous(memory_format=torch.channels_last)
        _, channels, height, width = weight.shape
        # of 1 x 1 weights, which lie alike both ways, the strides decide which kernel torch takes
        strides = (channels * height * width, 1, width * channels, channels)
        layer.weight = nn.Parameter(weight.as_strided(weight.shape, strides), requires_grad=False)
