"""What a denoiser is told about the pictures it shall make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditions:
    """Encoded prompts.

    Attributes:
        hidden_states: (B, tokens, text_width).
        pooled: (B, projection width), the projected end token of each prompt's first chunk; None in families that do
            not use it.
    """

    hidden_states: Tensor
    pooled: Tensor | None = None

    def __len__(self) -> int:
        return len(self.hidden_states)

    def __getitem__(self, rows: Tensor | slice) -> Conditions:
        """Those of some of the prompts, by indices or by a slice."""
        return Conditions(self.hidden_states[rows], None if self.pooled is None else self.pooled[rows])

    def expand(self, count: int) -> Conditions:
        """One prompt's, ``count`` times; nothing is copied."""
        pooled = None if self.pooled is None else self.pooled.expand(count, -1)
        return Conditions(self.hidden_states.expand(count, -1, -1), pooled)

    def zeros(self) -> Conditions:
        """Zeros of the same shapes."""
        return Conditions(
            torch.zeros_like(self.hidden_states), None if self.pooled is None else torch.zeros_like(self.pooled)
        )

    @staticmethod
    def cat(parts: Sequence[Conditions]) -> Conditions:
        """Those of all prompts of ``parts``, which have equally many tokens."""
        pooled = [part.pooled for part in parts if part.pooled is not None]
        return Conditions(torch.cat([part.hidden_states for part in parts]), torch.cat(pooled) if pooled else None)
