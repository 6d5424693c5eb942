"""How long an embedding's vectors are, as multiples of the model's own tokens, and what holds them near.

Vectors that are trained for long grow far beyond those of words, and then drown the rest of a prompt.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tincture.settings.schedule import Schedule


class TokenVectors(NamedTuple):
    """Vectors (n, width) that stand for tokens, and the mean norm of a text encoder's own, above 0."""

    rows: nn.Parameter
    mean_norm: float


@dataclass(frozen=True)
class VectorNorms:
    """A limit on the norms of vectors, and a term of the loss that draws them to the mean norm of tokens.

    Attributes:
        vectors: of all text encoders and adapters.
        limit: the largest norm after a step, as a multiple of the mean norm; None: there is none.
        weight: of the term: the mean over all vectors v of (|v| / mean norm - 1) squared; None: there is none.
    """

    vectors: Sequence[TokenVectors]
    limit: Schedule | None = None
    weight: Schedule | None = None

    def multiples(self) -> Tensor:
        """The norm of every vector as a multiple of its encoder's mean norm: (vectors,) float32, with gradients."""
        return torch.cat([torch.linalg.vector_norm(rows, dim=1) / mean_norm for rows, mean_norm in self.vectors])

    def loss(self, global_step: int) -> Tensor | None:
        """The term of the step from ``global_step`` on, a float32 scalar; None where it does not count."""
        weight = 0.0 if self.weight is None else self.weight.at(global_step)
        return weight * (self.multiples() - 1).square().mean() if weight else None

    @torch.no_grad()
    def limit_norms(self, global_step: int, trained: Collection[nn.Parameter]) -> None:
        """Shortens vectors that the step from ``global_step`` on made too long; shorter ones keep every bit.

        Args:
            trained: the parameters that take part in the step; others stay as they are.
        """
        if self.limit is None:
            return
        taking_part = {id(parameter) for parameter in trained}
        for rows, mean_norm in self.vectors:
            if id(rows) in taking_part:
                norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
                rows.mul_((self.limit.at(global_step) * mean_norm / norms).clamp(max=1))
