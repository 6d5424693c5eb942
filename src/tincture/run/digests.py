"""Digests by which a run knows again what it reads: its adapters, its model, its pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from tincture.adapters.adapter import Adapter
from tincture.models.diffusion_model import DiffusionModel
from tincture.run.prior_pictures import PriorPictures
from tincture.run.split import Sides


def adapter_digest(adapter: Adapter) -> str:
    """SHA-256 (hexadecimal) of what an adapter's file tells it learned: its steps and its tensors, in any format."""
    total = hashlib.sha256(str(adapter.step).encode())
    for name, tensor in sorted(adapter.published().state_dict().items()):
        total.update(f" {name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        flat = tensor.detach().cpu().flatten().contiguous()
        total.update(flat.view(torch.uint8).numpy().tobytes())  # numpy has no bfloat16
    return total.hexdigest()


def pictures_digests(sides: Sides, prior: PriorPictures | None) -> dict[str, str]:
    """Those of the pictures that are read, by what a run's record calls them; empty texts for those there are none of.

    ``prior`` are the regularisation pictures.
    """
    return {
        "data_hash": sides.training.digest(),
        "validation_hash": sides.validation.digest() if sides.validation else "",
        "prior_hash": prior.dataset.digest() if prior else "",
    }


def all_digests(
    model: DiffusionModel, adapter: Adapter, sides: Sides, prior: PriorPictures | None, lines: Sequence[str]
) -> dict[str, str]:
    """By words for what they are of, those of all that a run reads.

    Args:
        lines: of its prompt templates.
    """
    pictures = pictures_digests(sides, prior)
    return {
        "adapters": " ".join(adapter_digest(one) for one in (*adapter.members(), *adapter.fixed)),
        "models": model.hash,
        "pictures, captions or masks": pictures["data_hash"],
        "pictures for validation": pictures["validation_hash"],
        "prior pictures": pictures["prior_hash"],
        "prompt templates": "\n".join(lines),
    }
