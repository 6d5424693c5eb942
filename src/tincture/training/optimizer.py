"""Optimizers by name: any of torch.optim that works from gradients alone."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tincture.errors import UsageError
from tincture.settings.schedule import Schedule

_NEEDS_MORE = {"LBFGS": "needs the loss re-evaluated within a step", "SparseAdam": "works on sparse gradients only"}


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are trained with a rate and a weight decay of their own.

    Attributes:
        parameters: at least one.
        name: what messages call it.
        learning_rate: the rate of every step; None: the run's.
        weight_decay: None: what holds for all.
    """

    parameters: Sequence[nn.Parameter]
    name: str = ""
    learning_rate: Schedule | None = None
    weight_decay: float | None = None


def optimizer_names() -> list[str]:
    """The names that :func:`create_optimizer` takes."""
    found = vars(torch.optim).items()
    classes = {name for name, value in found if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer)}
    return sorted(classes - {"Optimizer"} - set(_NEEDS_MORE))


def create_optimizer(
    name: str,
    parameters: Sequence[nn.Parameter] | Sequence[ParameterGroup],
    learning_rate: float,
    weight_decay: float | None = None,
) -> torch.optim.Optimizer:
    """Makes ``torch.optim.NAME`` (upper and lower case are alike) for ``parameters``.

    Args:
        parameters: all in one group, or groups, which the optimizer's ``param_groups`` then are in their order.
        weight_decay: of groups without one of their own; None leaves the optimizer's own default.

    Raises:
        UsageError: there is no such optimizer, it takes no weight decay, or it cannot train these parameters.
    """
    optimizer_class = _find(name)
    takes = inspect.signature(optimizer_class).parameters
    groups = [one if isinstance(one, ParameterGroup) else ParameterGroup([one]) for one in parameters]
    if not any(isinstance(one, ParameterGroup) for one in parameters):
        groups = [ParameterGroup([parameter for group in groups for parameter in group.parameters])]
    # One kernel for all tensors: with SD 1.5's hypernetwork a sixth of the default's time on a CPU.
    arguments: dict[str, Any] = {"fused": True} if "fused" in takes else {}
    arguments |= _weight_decay(optimizer_class, weight_decay)
    options = [
        {"params": [*group.parameters], **_weight_decay(optimizer_class, group.weight_decay)} for group in groups
    ]
    try:
        optimizer: torch.optim.Optimizer = optimizer_class(options, lr=learning_rate, **arguments)
    except ValueError as error:  # Muon takes matrices only, for one
        raise UsageError(
            f"Optimizer {optimizer_class.__name__} cannot be used here: {error} AdamW always can."
        ) from error
    return optimizer


def _find(name: str) -> Any:
    """The class of that name; UsageError when there is none that can be used."""
    names = optimizer_names()
    known = {known.lower(): known for known in names}.get(name.lower())
    if known is None:
        reason = next((f": it {why}" for other, why in _NEEDS_MORE.items() if other.lower() == name.lower()), "")
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(f"Optimizer {name!r} cannot be used{reason}.{hint} Choose one of {', '.join(names)}.")
    return getattr(torch.optim, known)


def _weight_decay(optimizer_class: Any, weight_decay: float | None) -> dict[str, float]:
    """The argument that gives it; UsageError where there is none such."""
    if weight_decay is None:
        return {}
    if "weight_decay" in inspect.signature(optimizer_class).parameters:
        return {"weight_decay": weight_decay}
    if weight_decay > 0:
        known = optimizer_class.__name__
        raise UsageError(f"Optimizer {known} takes no weight decay, but {weight_decay:g} was given; leave it out.")
    return {}
