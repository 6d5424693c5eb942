"""Norms of gradients and weights that are logged of every step, on the device until the losses are read."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from tincture.adapters.adapter import Adapter
from tincture.events import GRADIENT_NORM, VECTOR_NORMS, WEIGHT_NORM

Norms = dict[str, Tensor]


class LoggedNorms:
    """Names and values of the norms of an adapter, and of each that is trained together with it.

    Of the first they are ``events.GRADIENT_NORM``, ``WEIGHT_NORM`` and, where it has vectors that stand for tokens,
    ``VECTOR_NORMS``; of another, the same with `` KIND:NAME`` behind.
    """

    def __init__(self, adapter: Adapter) -> None:
        first, *others = adapter.members()
        self._members = [("", first), *((f" {other.kind}:{other.name}", other) for other in others)]

    def names(self) -> list[str]:
        """Those of ``gradients``, then those of ``weights``."""
        own = [
            (WEIGHT_NORM + behind, *(name + behind for name in VECTOR_NORMS if member.token_vectors()))
            for behind, member in self._members
        ]
        return [*(GRADIENT_NORM + behind for behind, _ in self._members), *(name for names in own for name in names)]

    @torch.no_grad()
    def gradients(self) -> Norms:
        """The L2 norm of each adapter's gradient, as a step has it before it is clipped; 0 of one that rests."""
        return {GRADIENT_NORM + behind: _gradient_norm(member.parameters()) for behind, member in self._members}

    @torch.no_grad()
    def weights(self) -> Norms:
        """The L2 norm of all weights that are trained, and the mean, smallest and largest of the vectors' own."""
        return {name + behind: norm for behind, member in self._members for name, norm in _weight_norms(member)}


def _gradient_norm(parameters: list[nn.Parameter]) -> Tensor:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return parameters[0].new_zeros(())
    return torch.nn.utils.get_total_norm(gradients)


def _weight_norms(adapter: Adapter) -> Iterator[tuple[str, Tensor]]:
    yield WEIGHT_NORM, torch.nn.utils.get_total_norm(adapter.parameters())
    vectors = [torch.linalg.vector_norm(rows, dim=1) for _, rows in adapter.token_vectors()]
    if vectors:
        norms = torch.cat(vectors)
        yield from zip(VECTOR_NORMS, (norms.mean(), norms.min(), norms.max()), strict=True)
