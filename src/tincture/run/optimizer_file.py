"""The optimizer's state beside an adapter or a copy, ``NAME.pt.optim``: training it further starts as it ended.

A run that was stopped needs none of this: its own states hold everything.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tincture.adapters.adapter import Adapter


def save_optimizer(
    optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], adapter: Adapter, path: Path
) -> None:
    """Writes the sidecar of ``path``, the file of ``adapter`` as it was just saved, whose weights are the optimizer's.

    States stand there in the order of ``parameters``, those of the adapter that is trained, in one group: other
    programs know one only. What it cannot hold is not written, with a warning: see the adapter's ``save_optimizer``.

    Raises:
        StorageError: a full disk, no permission.
    """
    state, order = optimizer.state_dict(), _order(optimizer, parameters)
    numbers = [*range(len(order))]
    states = {number: state["state"][at] for number, at in enumerate(order) if at in state["state"]}
    whole = {**state, "state": states, "param_groups": [{**state["param_groups"][0], "params": numbers}]}
    adapter.save_optimizer(path, type(optimizer).__name__, whole)


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
    if name == type(optimizer).__name__ and state.get("state") == {}:
        return False  # of a file whose weights no step has changed
    order = _order(optimizer, adapter.parameters())
    if name != type(optimizer).__name__ or not _fits(optimizer, order, state):
        warnings.warn(f"{path}.optim holds the state of another optimizer and is not used.", stacklevel=2)
        return False
    now = optimizer.state_dict()
    states = {at: state["state"][number] for number, at in enumerate(order)}
    optimizer.load_state_dict({**now, "state": {**now["state"], **states}})  # others' may be there already
    return True


def _order(optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]) -> list[int]:
    """By which number the optimizer's ``state_dict`` calls each of ``parameters``; -1: it does not train it."""
    numbers = {id(parameter): number for number, parameter in enumerate(_parameters(optimizer))}
    return [numbers.get(id(parameter), -1) for parameter in parameters]


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _fits(optimizer: torch.optim.Optimizer, order: Sequence[int], state: Mapping[str, Any]) -> bool:
    """Whether there is a state for each parameter, with the names and shapes that this optimizer gives it."""
    parameters = _parameters(optimizer)
    saved = state.get("state")
    if not isinstance(saved, dict) or set(saved) != set(range(len(order))) or -1 in order:
        return False
    return all(
        isinstance(saved[number], dict) and all(_like(value, parameters[at]) for value in saved[number].values())
        for number, at in enumerate(order)
    )


def _like(value: object, parameter: torch.Tensor) -> bool:
    return not isinstance(value, torch.Tensor) or value.ndim == 0 or value.shape == parameter.shape
