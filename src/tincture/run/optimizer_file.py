"""The optimizer's state beside an adapter or a copy, ``NAME.pt.optim``: training it further starts as it ended.

A run that was stopped needs none of this: its own states hold everything.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tincture.adapters.adapter import Adapter


def save_optimizer(optimizer: torch.optim.Optimizer, adapter: Adapter, path: Path) -> None:
    """Writes the sidecar of ``path``, the file of ``adapter`` as it was just saved, whose weights are the optimizer's.

    What it cannot hold is not written, with a warning: see the adapter's ``save_optimizer``.

    Raises:
        StorageError: a full disk, no permission.
    """
    adapter.save_optimizer(path, type(optimizer).__name__, optimizer.state_dict())


def load_optimizer(optimizer: torch.optim.Optimizer, adapter: Adapter, path: Path) -> bool:
    """Puts the sidecar of ``path`` into ``optimizer``, which keeps its own rates; whether there was one that fits.

    One that belongs to another optimizer is left alone, with a warning.

    Raises:
        FileFormatError: the sidecar is damaged.
    """
    found = adapter.published().load_optimizer(path)
    if found is None:
        return False
    name, state = found
    if name != type(optimizer).__name__ or not _fits(optimizer, state):
        warnings.warn(f"{path}.optim holds the state of another optimizer and is not used.", stacklevel=2)
        return False
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state["state"]})
    return True


def _fits(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> bool:
    """Whether there is a state for each parameter, with the names and shapes that this optimizer gives it."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    saved = state.get("state")
    if not isinstance(saved, dict) or set(saved) != set(range(len(parameters))):
        return False
    return all(
        isinstance(values, dict) and all(_like(value, parameters[index]) for value in values.values())
        for index, values in saved.items()
    )


def _like(value: object, parameter: torch.Tensor) -> bool:
    return not isinstance(value, torch.Tensor) or value.ndim == 0 or value.shape == parameter.shape
