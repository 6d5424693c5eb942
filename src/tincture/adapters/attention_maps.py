"""Where a model looks for a word: the shares of cross-attention that its cells give to tokens, with gradients.

Hooks keep queries and keys as they are made; what follows is worked out from them beside the prediction, which stays as
it is, bit for bit, with any attention processor, other hooks, and gradient checkpointing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tincture.errors import ModelError

ENOUGH_CELLS = 16 * 16
"""The coarsest maps of at least so many cells are used, or the finest where all have fewer. With Stable Diffusion 1 at
512 x 512 pixels these are those of 16 x 16 cells, which google/break-a-scene uses (train.py, aggregate_attention)."""


class CrossAttentionRecord:
    """Queries and keys of the latest prediction, of those layers whose maps are used.

    Attributes:
        cells: of their maps, 0 before a prediction.
    """

    def __init__(self) -> None:
        self.cells = 0
        self._queries: dict[Any, Tensor] = {}
        self._keys: dict[Any, Tensor] = {}

    def keep_query(self, attention: Any, projection: nn.Module, args: object, query: Tensor) -> None:
        """A forward hook of ``attention.to_q``; query (B, cells, width)."""
        if _rank(query.shape[1]) > _rank(self.cells):
            self.cells = query.shape[1]
            self._queries.clear()
        if query.shape[1] == self.cells:
            self._queries[attention] = query

    def keep_key(self, attention: Any, projection: nn.Module, args: object, key: Tensor) -> None:
        """A forward hook of ``attention.to_k``; key (B, tokens, width)."""
        self._keys[attention] = key

    def shares(self, tokens: Tensor) -> Tensor:
        """The share of each cell's attention that goes to ``tokens``: (B, cells) float32 in 0..1, cells row by row.

        The mean over heads and layers, and the sum over the tokens.

        Args:
            tokens: (B, tokens), true for those that count; those of a longer prompt beside these do not.
        """
        seen = next(iter(self._keys.values())).shape[1]
        count = torch.nn.functional.pad(tokens.to(torch.float32), (0, seen - tokens.shape[1]))[:, None, None]
        found = []
        with torch.autocast(count.device.type, enabled=False):
            for attention, query in self._queries.items():
                queries, keys = (
                    made.reshape(*made.shape[:2], attention.heads, -1).transpose(1, 2).float()
                    for made in (query, self._keys[attention])
                )
                probabilities = (queries @ keys.transpose(2, 3) * attention.scale).softmax(dim=-1)
                found.append((probabilities * count).sum(-1).mean(1))
            return torch.stack(found).mean(0)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the maps of latents that have ``height`` rows and ``width`` columns.

        Raises:
            ModelError: halving them does not lead to ``cells``.
        """
        rows, columns = height, width
        while rows * columns > max(self.cells, 1):
            rows, columns = -(-rows // 2), -(-columns // 2)
        if rows * columns != self.cells:
            raise ModelError(
                f"This model's attention has {self.cells} cells for latents of {height} x {width}, which it cannot be "
                "laid over; train without an attention mask."
            )
        return rows, columns


@contextmanager
def record_cross_attention(attentions: Sequence[nn.Module]) -> Iterator[CrossAttentionRecord]:
    """Records the predictions that are made inside the context; the record can be used afterwards too.

    Args:
        attentions: see ``DiffusionModel.cross_attentions``.
    """
    record = CrossAttentionRecord()
    handles = []
    try:
        for attention in attentions:
            to_q, to_k = attention.get_submodule("to_q"), attention.get_submodule("to_k")
            handles.append(to_q.register_forward_hook(partial(record.keep_query, attention)))
            handles.append(to_k.register_forward_hook(partial(record.keep_key, attention)))
        yield record
    finally:
        for handle in handles:
            handle.remove()


def _rank(cells: int) -> tuple[bool, int]:
    enough = cells >= ENOUGH_CELLS
    return enough, -cells if enough else cells
