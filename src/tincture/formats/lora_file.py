"""LoRA files in kohya's layout, which the webui, Forge, ComfyUI and diffusers read.

For a layer of the U-Net with diffusers' path ``down_blocks.0.….attn1.to_k``: ``lora_unet_down_blocks_0_…_to_k`` with
``.lora_down.weight`` (rank, inputs), ``.lora_up.weight`` (outputs, rank) and ``.alpha``; the layer's weight grows by
``up @ down * alpha / rank``. ``.diff_b`` (outputs,) adds to a layer's bias: ComfyUI and Forge know it, diffusers
refuses files that hold it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tincture.formats.safetensors_file import write_safetensors


@dataclass(frozen=True)
class LowRank:
    """A matrix (outputs, inputs) as ``up @ down``: (outputs, rank) and (rank, inputs)."""

    up: Tensor
    down: Tensor


def write_lora_file(
    path: str | os.PathLike[str],
    changes: Mapping[str, LowRank],
    biases: Mapping[str, Tensor],
    metadata: Mapping[str, str],
) -> None:
    """Writes a LoRA of the U-Net in float32, whole or not at all.

    Args:
        path: the file.
        changes: what is added to the weights of layers, by their path in diffusers' U-Net.
        biases: what is added to the biases of layers, likewise.
        metadata: texts for the header.

    Raises:
        StorageError: a full disk, no permission.
    """
    # One alpha for all, whatever their ranks: diffusers 0.42 loses those that differ from layer to layer.
    alpha = max(len(change.down) for change in changes.values())
    tensors: dict[str, Tensor] = {}
    for name, change in changes.items():
        key = _key(name)
        tensors[f"{key}.lora_up.weight"] = (change.up * (len(change.down) / alpha)).float()
        tensors[f"{key}.lora_down.weight"] = change.down.float()
        tensors[f"{key}.alpha"] = torch.tensor(float(alpha))
    tensors |= {f"{_key(name)}.diff_b": bias.float() for name, bias in biases.items()}
    own = {"ss_network_module": "networks.lora", "ss_network_dim": str(alpha), "ss_network_alpha": str(alpha)}
    write_safetensors(path, tensors, {**own, **metadata})


def _key(name: str) -> str:
    return f"lora_unet_{name.replace('.', '_')}"
