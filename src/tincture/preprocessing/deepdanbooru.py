"""DeepDanbooru as the webui uses it: the file model-resnet_custom_v3.pt, by torch.

The network is the "custom v3" ResNet of https://github.com/KichangKim/DeepDanbooru (`deepdanbooru/model/resnet.py`): a
stem, six stages of bottleneck blocks, and a convolution to the tags whose average over the picture goes through a
sigmoid. In the file, which https://github.com/AUTOMATIC1111/TorchDeepDanbooru publishes, the batch norms are folded
into the convolutions. These are numbered through as ``n_Conv_0`` to ``n_Conv_178``, and ``tags`` lists the names.
It takes pictures (batch, 512, 512, 3) of 0..1, red first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from tincture.errors import FileFormatError, ModelError
from tincture.formats.files import safe_torch_load
from tincture.models.devices import resolve_device
from tincture.preprocessing.batching import Batches
from tincture.preprocessing.booru_labels import Label

SIZE = 512
BLOCKS = (3, 8, 20, 20, 3, 3)
"""Blocks of each stage. The first has a convolution in its shortcut too, and except in stage 0 it halves the size."""
SHORTCUT_LAST = 3
"""In this stage alone the shortcut's convolution is numbered after the other three of its block."""
CONVOLUTIONS = 1 + sum(3 * blocks + 1 for blocks in BLOCKS) + 1
RATING = "rating:"


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding, which puts the odd pixel at the right and bottom."""

    def forward(self, input: Tensor) -> Tensor:
        vertical, horizontal = (
            _padding(size, kernel, stride)
            for size, kernel, stride in zip(input.shape[-2:], self.kernel_size, self.stride, strict=True)
        )
        return super().forward(functional.pad(input, (*horizontal, *vertical)))


class Block(nn.Module):
    """Convolutions of 1, 3 and 1 pixels beside a shortcut, with one of its own where ``shortcut`` is given."""

    def __init__(self, convolutions: Sequence[nn.Module], shortcut: nn.Module | None) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(convolutions)
        self.shortcut = shortcut or nn.Identity()

    def forward(self, hidden: Tensor) -> Tensor:
        first, second, third = self.convolutions
        inner = third(functional.relu(second(functional.relu(first(hidden)))))
        return functional.relu(inner + self.shortcut(hidden))


class Network(nn.Module):
    """(batch, height, width, 3) of 0..1 to probabilities (batch, tags); its widths are those of the weights."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """
        Args:
            weights: ``n_Conv_N.weight`` and ``n_Conv_N.bias``; the last one has no bias.

        Raises:
            KeyError, RuntimeError, ValueError: they are not those of this network.
        """
        super().__init__()
        numbers = iter(range(CONVOLUTIONS))
        self.stem = _convolution(weights, next(numbers), kernel=7, stride=2)
        self.blocks = nn.Sequential(
            *(_block(weights, numbers, stage, block) for stage, count in enumerate(BLOCKS) for block in range(count))
        )
        self.head = _convolution(weights, next(numbers), kernel=1, stride=1)

    def forward(self, pictures: Tensor) -> Tensor:
        hidden = functional.relu(self.stem(pictures.permute(0, 3, 1, 2)))
        sides = [_padding(size, 3, 2) for size in hidden.shape[-2:]]
        hidden = functional.pad(hidden, (*sides[1], *sides[0]), value=float("-inf"))
        hidden = self.blocks(functional.max_pool2d(hidden, kernel_size=3, stride=2))
        logits: Tensor = self.head(hidden).mean(dim=(2, 3))
        return logits.sigmoid()


def _block(weights: Mapping[str, Tensor], numbers: Any, stage: int, block: int) -> Block:
    stride = 2 if stage > 0 and block == 0 else 1
    shape = [(1, 1), (3, stride), (1, 1)]
    if block == 0:
        shape.insert(3 if stage == SHORTCUT_LAST else 0, (1, stride))
    made = [_convolution(weights, next(numbers), kernel, step) for kernel, step in shape]
    shortcut = made.pop(3 if stage == SHORTCUT_LAST else 0) if block == 0 else None
    return Block(made, shortcut)


def _convolution(weights: Mapping[str, Tensor], number: int, kernel: int, stride: int) -> SameConv:
    name = f"n_Conv_{number}"
    weight, bias = weights[f"{name}.weight"].float(), weights.get(f"{name}.bias")
    if weight.shape[2:] != (kernel, kernel):
        raise ValueError(f"{name} has a kernel of {tuple(weight.shape[2:])} instead of {kernel}")
    # Made without memory of its own: the weights that are there take the place of random ones.
    made = SameConv(weight.shape[1], weight.shape[0], kernel, stride, bias=bias is not None, device="meta")
    state = {"weight": weight} if bias is None else {"weight": weight, "bias": bias.float()}
    made.load_state_dict(state, assign=True)
    return made


def _padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels before and after, so that ceil(size / stride) come out."""
    needed = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return needed // 2, needed - needed // 2


class DeepDanbooru:
    """The tagger.

    Attributes:
        labels: what its probabilities stand for, in their order. Names of characters are not told apart.
    """

    def __init__(self, file: Path, *, device: str, batch_size: int) -> None:
        """
        Raises:
            ModelError: the file is no DeepDanbooru model of this kind.
            UsageError: a device that is not there, or a batch size below 1.
        """
        self._batches = Batches(batch_size)
        self._device = resolve_device(device)
        tags, network = _read(file)
        self.labels = [Label(tag, "rating" if tag.startswith(RATING) else "general") for tag in tags]
        self._network = network.to(self._device).eval()

    def probabilities(self, pictures: Sequence[Image.Image]) -> list[NDArray[np.float32]]:
        """For each of ``pictures`` (RGB, any size) the probabilities (tags,) of the labels.

        Raises:
            ModelError: the memory is too small for one picture.
        """
        return self._batches.map(self._compute, pictures)

    def _compute(self, pictures: Sequence[Image.Image]) -> list[NDArray[np.float32]]:
        pixels = torch.from_numpy(np.stack([square_pixels(picture) for picture in pictures]))
        with torch.inference_mode():
            return list(self._network(pixels.to(self._device)).cpu().numpy())


def _read(file: Path) -> tuple[list[str], Network]:
    try:
        content = safe_torch_load(file)
        tags = [str(tag) for tag in content["tags"]]
        network = Network(content).requires_grad_(False)
        network(torch.zeros(1, 64, 64, 3))  # whether each layer takes what the one before it gives
    except FileFormatError as error:
        raise ModelError(str(error)) from error
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
        raise ModelError(
            f"{file} is no DeepDanbooru model of the kind the webui uses; model-resnet_custom_v3.pt is one."
        ) from error
    if network.head.out_channels != len(tags):
        raise ModelError(
            f"{file} is broken: it lists {len(tags)} tags and knows {network.head.out_channels}; copy it again."
        )
    return tags, network


def square_pixels(picture: Image.Image, size: int = SIZE) -> NDArray[np.float32]:
    """(size, size, 3), float32 0..1: the picture as large as it fits, its edge repeated to fill the rest."""
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    resized = np.asarray(picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS))
    left, top = (size - width) // 2, (size - height) // 2
    around = ((top, size - height - top), (left, size - width - left), (0, 0))
    return np.pad(resized, around, mode="edge").astype(np.float32) / np.float32(255)
