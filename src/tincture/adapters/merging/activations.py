"""What an activation allows when modules are put together, found out from its values."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tincture.adapters.hypernetwork_module import build_activation

# Softplus takes its input itself where that is above 20, and is off by 2e-9 there.
_TOLERANCE = 1e-8
_SAME = {None: "linear", "hardswish": "swish"}


@dataclass(frozen=True)
class Activation:
    """An activation function.

    Attributes:
        name: as files have it; ``linear`` for none.
        layer: None for none.
        pointwise: whether each number depends on one number alone, by the same rule for all.
        carry: the number c with ``layer(x) - layer(-x) = c x`` for all x, by which a pair of units carries a number
            unchanged through the layer; None where there is none.
    """

    name: str
    layer: nn.Module | None
    pointwise: bool
    carry: float | None

    @classmethod
    def named(cls, name: str | None) -> Activation:
        """That of a file's ``activation_func``; UsageError for one that is unknown."""
        same = same_activation(name)
        layer = build_activation(same)
        if layer is None:
            return cls(same, None, True, 2.0)
        layer = layer.double().eval()
        pointwise = _is_pointwise(layer)
        return cls(same, layer, pointwise, _carry(layer) if pointwise else None)

    def __call__(self, x: Tensor) -> Tensor:
        if self.layer is None:
            return x
        result: Tensor = self.layer(x)
        return result


def same_activation(name: str | None) -> str:
    """One name for each activation, of the several that files have."""
    return _SAME.get(name, name or "linear")


@torch.no_grad()
def _is_pointwise(layer: nn.Module) -> bool:
    if any(True for _ in layer.parameters()):
        return False  # such as PReLU, whose slope is each module's own
    values = torch.linspace(-3, 3, 12, dtype=torch.float64).reshape(2, 2, 3)
    alone = [layer(value.reshape(1, 1, 1)).flatten() for value in values.flatten()]
    return torch.allclose(layer(values).flatten(), torch.cat(alone), rtol=0, atol=1e-12)


@torch.no_grad()
def _carry(layer: nn.Module) -> float | None:
    x = torch.logspace(-3, 4, 200, dtype=torch.float64)
    ratio = (layer(x) - layer(-x)) / x
    found = float(ratio[0])
    return found if found and torch.allclose(ratio, ratio[0].expand_as(ratio), rtol=_TOLERANCE, atol=0) else None
