"""Where a U-Net's attentions make their keys and values."""

from __future__ import annotations

from torch import nn

from tincture.errors import ModelError


def projections(unet: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """``to_k`` and ``to_v`` of every attention, self and cross, in the order of ``unet.modules()``.

    Every attention processor of diffusers calls them as modules, whatever kernel it uses, unless they are fused.

    Raises:
        ModelError: they are fused.
    """
    found = []
    for module in unet.modules():
        to_k, to_v = getattr(module, "to_k", None), getattr(module, "to_v", None)
        if not isinstance(to_k, nn.Module) or not isinstance(to_v, nn.Module):
            continue
        if getattr(module, "fusedprojections", False):
            raise ModelError(
                "The attention projections of this model are fused, so a hypernetwork cannot act on them; "
                "call unfuse_qkvprojections() on its U-Net first."
            )
        found.append((to_k, to_v))
    return found


def context_width(projection: nn.Module) -> int:
    """The width of what ``projection`` makes keys or values from; 0 when it does not say."""
    return int(getattr(projection, "in_features", 0))
