"""Where a denoiser's attentions, such as a U-Net's, make their keys and values."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from tincture.errors import ModelError


class KeyValue(NamedTuple):
    """The projections of one attention."""

    to_k: nn.Module
    to_v: nn.Module

    @property
    def context_width(self) -> int:
        """Of what they make keys and values from; 0 when they do not say."""
        return int(getattr(self.to_k, "in_features", 0))


def projections(denoiser: nn.Module) -> list[KeyValue]:
    """``to_k`` and ``to_v`` of every attention, self and cross, in the order of ``denoiser.modules()``.

    Every attention processor of diffusers calls them as modules, whatever kernel it uses, unless they are fused.

    Raises:
        ModelError: they are fused.
    """
    found = []
    for module in denoiser.modules():
        to_k, to_v = getattr(module, "to_k", None), getattr(module, "to_v", None)
        if not isinstance(to_k, nn.Module) or not isinstance(to_v, nn.Module):
            continue
        if _is_fused(module):
            raise ModelError(
                "The attention projections of this model are fused, so a hypernetwork cannot act on them; "
                "call unfuse_qkv_projections() on its U-Net first."
            )
        found.append(KeyValue(to_k, to_v))
    return found


def cross_attentions(denoiser: nn.Module) -> list[nn.Module]:
    """The attentions that look at the text, in the order of ``denoiser.modules()``.

    Every attention processor of diffusers calls their ``to_q`` and ``to_k`` as modules, unless they are fused.

    Raises:
        ModelError: they are fused, or there are none.
    """
    found = [module for module in denoiser.modules() if getattr(module, "is_cross_attention", False)]
    if not found:
        raise ModelError("This model has no cross-attention, so it cannot be seen where it looks for a word.")
    if any(_is_fused(attention) for attention in found):
        raise ModelError(
            "The attention projections of this model are fused, so it cannot be seen where it looks for a word; call "
            "unfuse_qkv_projections() on its U-Net first."
        )
    return found


def _is_fused(attention: nn.Module) -> bool:
    # diffusers' unfuse_qkv_projections() puts the processors back and leaves the flag, so the processor decides.
    processor = getattr(attention, "processor", None)
    if processor is None:
        return bool(getattr(attention, "fused_projections", False))
    return "Fused" in type(processor).__name__
