"""LoRA files in kohya's layout, which the webui, Forge, ComfyUI and diffusers read.

For a layer of the U-Net with diffusers' path ``down_blocks.0.….attn1.to_k``: ``lora_unet_down_blocks_0_…_to_k`` with
``.lora_down.weight`` (rank, inputs), ``.lora_up.weight`` (outputs, rank) and ``.alpha``; the layer's weight grows by
``up @ down * alpha / rank``. ``.diff_b`` (outputs,) adds to a layer's bias: ComfyUI and Forge know it, diffusers
refuses files that hold it.

Also read, to tell what they are: the names of diffusers and peft, ``PATH.lora_A.weight`` and ``PATH.lora_B.weight``,
``PATH.lora.down.weight`` and the older ``PATH_lora.down.weight``.
"""

from __future__ import annotations

import os
import re
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tincture.errors import FileFormatError
from tincture.formats.files import require_own_values
from tincture.formats.safetensors_file import write_safetensors

_DOWN = re.compile(
    r"(?P<layer>.+?)[._](?P<down>lora_down|lora_A|lora\.down|lora_linear_layer\.down)(\.default)?\.weight"
)
_UP = {
    "lora_down": "lora_up",
    "lora_A": "lora_B",
    "lora.down": "lora.up",
    "lora_linear_layer.down": "lora_linear_layer.up",
}


@dataclass(frozen=True)
class LowRank:
    """A matrix (outputs, inputs) as ``up @ down``: (outputs, rank) and (rank, inputs)."""

    up: Tensor
    down: Tensor


@dataclass(frozen=True)
class LoraFile:
    """What a LoRA file says of itself.

    Attributes:
        layout: whose names the tensors have, ``kohya`` or ``diffusers``.
        ranks: by layer, as the file names it.
        has_biases: whether it changes biases too, which diffusers refuses.
        finite: whether no number is NaN or infinite.
    """

    layout: str
    ranks: Mapping[str, int]
    has_biases: bool
    finite: bool


def is_lora(names: Iterable[object]) -> bool:
    """Whether tensors of these names are a LoRA in one of the layouts that are known here."""
    return any(isinstance(name, str) and _DOWN.fullmatch(name) for name in names)


def describe_lora(path: str | os.PathLike[str], tensors: Mapping[str, object]) -> LoraFile:
    """Looks at ``tensors``, which the file ``path`` holds.

    Raises:
        FileFormatError: a layer without its second matrix, or with one that does not fit, or a tensor that claims more
            numbers than the file holds.
    """
    ranks: dict[str, int] = {}
    layouts = set()
    numbers = {
        name: value for name, value in tensors.items() if isinstance(value, Tensor) and value.is_floating_point()
    }
    for name, value in numbers.items():
        require_own_values(path, reprlib.repr(name), value)
    for name, down in tensors.items():
        found = _DOWN.fullmatch(name) if isinstance(name, str) else None
        if found is None:
            continue
        start, end = found.span("down")
        up = tensors.get(name[:start] + _UP[found["down"]] + name[end:])
        if not isinstance(down, Tensor) or not isinstance(up, Tensor) or not _fit(up, down):
            raise FileFormatError(
                f"{os.fspath(path)} is a damaged LoRA: {reprlib.repr(name)} and what belongs to it do not fit."
            )
        ranks[found["layer"]] = len(down)
        layouts.add("kohya" if found["down"] == "lora_down" else "diffusers")
    return LoraFile(
        layout=" and ".join(sorted(layouts)),
        ranks=ranks,
        has_biases=any(isinstance(name, str) and name.endswith(".diff_b") for name in tensors),
        finite=all(bool(value.float().isfinite().all()) for value in numbers.values()),
    )


def _fit(up: Tensor, down: Tensor) -> bool:
    """Whether (outputs, rank, ...) and (rank, inputs, ...) make a product; convolutions have two more sides."""
    return up.ndim >= 2 and down.ndim >= 2 and up.shape[1] == down.shape[0]


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
