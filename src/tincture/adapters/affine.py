"""What a hypernetwork module adds to its context, as an affine map: composed where it is one, else fitted.

Shapes: contexts are (..., width). All results are float64 on the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tincture.adapters.hypernetwork_module import HypernetworkModule

# Share of the contexts' mean power that is added to every direction of it. Contexts are normalised by their layer, so
# some directions never occur; without this their coefficients would be huge, and drown in half-precision weights.
_RIDGE = 1e-3


@dataclass(frozen=True)
class Affine:
    """``x -> matrix x + constant``.

    Attributes:
        matrix: (width, width).
        constant: (width,).
    """

    matrix: Tensor
    constant: Tensor


def compose(module: HypernetworkModule, multiplier: float = 1.0) -> Affine | None:
    """What ``module`` adds to its context, exactly; None when an activation or a norm stands in it."""
    layers = [layer for layer in module.linear if not isinstance(layer, nn.Dropout)]
    result: Affine | None = None
    for layer in layers:
        if not isinstance(layer, nn.Linear):
            return None
        weight, bias = layer.weight.detach().cpu().double(), layer.bias.detach().cpu().double()
        result = (
            Affine(weight, bias) if result is None else Affine(weight @ result.matrix, weight @ result.constant + bias)
        )
    return None if result is None else Affine(multiplier * result.matrix, multiplier * result.constant)


class Moments:
    """Sums over the contexts that an attention is given, and over what a module adds to them.

    Args:
        width: of the contexts.
    """

    def __init__(self, width: int) -> None:
        self._count = 0
        self._contexts = torch.zeros(width, dtype=torch.float64)
        self._added = torch.zeros(width, dtype=torch.float64)
        self._outer = torch.zeros(width, width, dtype=torch.float64)
        self._cross = torch.zeros(width, width, dtype=torch.float64)

    def add(self, contexts: Tensor, added: Tensor) -> None:
        """Counts in ``contexts`` and what was ``added`` to each of them, both (..., width)."""
        x, y = (tensor.detach().flatten(0, -2).float() for tensor in (contexts, added))
        self._count += len(x)
        self._contexts += x.sum(0).cpu()
        self._added += y.sum(0).cpu()
        self._outer += (x.T @ x).cpu()
        self._cross += (y.T @ x).cpu()

    def is_finite(self) -> bool:
        """Whether nothing that was counted in was NaN or infinite."""
        return bool(self._outer.isfinite().all() and self._cross.isfinite().all())

    def power(self) -> Tensor:
        """E[x x^T], a little of its mean added to every direction: (width, width), positive definite."""
        return _ridged(self._outer / self._count)

    def covariance(self) -> Tensor:
        """Cov[x, x], a little of its mean added to every direction: (width, width), positive definite."""
        mean = self._contexts / self._count
        return _ridged(self._outer / self._count - torch.outer(mean, mean))

    def fit(self) -> Affine:
        """The affine map with the least squared error, by ridge regression."""
        mean, mean_added = self._contexts / self._count, self._added / self._count
        cross = self._cross / self._count - torch.outer(mean_added, mean)
        matrix = torch.linalg.solve(self.covariance(), cross.T).T
        return Affine(matrix, mean_added - matrix @ mean)

    def one(self) -> Tensor:
        """The row (width,) whose product with a context is 1, as nearly as a linear map can: see ``_RIDGE``."""
        row: Tensor = torch.linalg.solve(self.power(), self._contexts / self._count)
        return row


def _ridged(matrix: Tensor) -> Tensor:
    return matrix + _RIDGE * matrix.diagonal().mean() * torch.eye(len(matrix), dtype=matrix.dtype)
