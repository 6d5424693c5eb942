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
    widest = max((each.out_channels for each in unet.modules() if isinstance(each, nn.Conv2d)), default=0)
    if widest <= MOST_CHANNELS:
        nn.Module.to(unet, memory_format=torch.channels_last)  # type: ignore[call-overload]
    else:
        transform_convolutions(unet)
