"""What tells apart two VAEs that give different latents."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch


def vae_hash(vae: Any) -> str:
    """The sha256, 64 hex digits, of all of diffusers' AutoencoderKL that decides what latents a picture has.

    That is the configuration, with the scaling factor, and the weights of the encoder in their present precision. So
    two checkpoints with the same VAE have one hash, and what the decoder holds does not matter.
    """
    config = {key: value for key, value in vae.config.items() if not key.startswith("_")}
    total = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(vae.state_dict().items()):
        if name.startswith(("encoder.", "quant_conv.")):
            total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()
