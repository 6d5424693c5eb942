"""A term of the loss that holds an embedding's word to what a mask shows.

After Avrahami et al. 2023, "Break-A-Scene: Extracting Multiple Concepts from a Single Image", section 3.3, with the
normalization of their program (google/break-a-scene, train.py): a map is divided by its maximum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tincture.adapters.attention_maps import CrossAttentionRecord, record_cross_attention
from tincture.settings.schedule import Schedule

if TYPE_CHECKING:
    from tincture.models.diffusion_model import DiffusionModel
    from tincture.models.tokens import Placeholder

# What a map of attention is divided by at least: a word that is looked at nowhere has no map.
_LEAST_SHARE = 1e-6


def attention_mask_loss(shares: Tensor, masks: Tensor, counts: Tensor) -> Tensor:
    """How far attention lies from masks: a float32 scalar, the mean over B samples.

    A sample's error is the mean over the cells of (share / greatest share - mask) squared.

    Args:
        shares: (B, cells) float32 in 0..1, how much each cell looks at the word.
        masks: (B, cells) float32 in 0..1.
        counts: (B,), 1 for the samples that count and 0 for the others, whose error is 0.
    """
    greatest = shares.amax(dim=1, keepdim=True).clamp(min=_LEAST_SHARE)
    return ((shares / greatest - masks).square().mean(1) * counts).mean()


class AttentionMaskLoss:
    """An ``AuxiliaryLoss``: where the model looks for the embedding's word shall be where its picture's mask is white.

    Pictures without a mask, and prompts without the word, add nothing.

    Args:
        model: that is trained on.
        embedding: that is trained; attached to ``model`` while the loss is used.
        masks: of each sample, (h, w) float32 in 0..1 on the grid of its latents, or None.
        weight: what the term is multiplied by: a number, or the schedule of a run.
    """

    def __init__(
        self, model: DiffusionModel, embedding: Placeholder, masks: Sequence[Tensor | None], weight: float | Schedule
    ) -> None:
        self.model, self.embedding, self.masks = model, embedding, masks
        self.weight = weight if isinstance(weight, Schedule) else Schedule.parse(weight, 1)
        self.global_step = 0
        self._record = CrossAttentionRecord()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Sees the prediction that is made inside the context."""
        with record_cross_attention(self.model.cross_attentions()) as self._record:
            yield

    def value(self, indices: Sequence[int], prompts: Sequence[str]) -> Tensor:
        """The term, a float32 scalar, for the prediction last seen.

        Args:
            indices: of its samples.
            prompts: theirs.
        """
        device = self.model.device
        tokens = self.model.text.positions(prompts, self.embedding).to(device, non_blocking=True)
        given = [self.masks[index] for index in indices]
        has_mask = torch.tensor([mask is not None for mask in given]).to(device, non_blocking=True)
        shares = self._record.shares(tokens)
        masks = self._on_grid(given) if any(mask is not None for mask in given) else torch.zeros_like(shares)
        return self.weight.at(self.global_step) * attention_mask_loss(shares, masks, has_mask & tokens.any(1))

    def _on_grid(self, masks: Sequence[Tensor | None]) -> Tensor:
        """(B, cells), with zeros for samples without a mask."""
        one = next(mask for mask in masks if mask is not None)
        stacked = torch.stack([torch.zeros_like(one) if mask is None else mask for mask in masks])
        grid = self._record.grid(*one.shape)
        return torch.nn.functional.adaptive_avg_pool2d(stacked[None], grid)[0].flatten(1)


def latent_mask(mask: Tensor, height: int, width: int) -> Tensor:
    """A picture's mask (H, W) in 0..1 as means over the cells of its latents: (height, width) float32."""
    return torch.nn.functional.adaptive_avg_pool2d(mask[None], (height, width))[0]
