"""Optimizers by name: any of torch.optim that works from gradients alone."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Sequence

import torch
from torch import nn

from tincture.errors import UsageError

_NEEDS_MORE = {"LBFGS": "needs the loss re-evaluated within a step", "SparseAdam": "works on sparse gradients only"}


def optimizer_names() -> list[str]:
    """The names that :func:`create_optimizer` takes."""
    found = vars(torch.optim).items()
    classes = {name for name, value in found if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer)}
    return sorted(classes - {"Optimizer"} - set(_NEEDS_MORE))


def create_optimizer(
    name: str, parameters: Sequence[nn.Parameter], learning_rate: float, weight_decay: float | None = None
) -> torch.optim.Optimizer:
    """Makes ``torch.optim.NAME`` (upper and lower case are alike) for ``parameters``.

    Args:
        weight_decay: None leaves the optimizer's own default.

    Raises:
        UsageError: there is no such optimizer, it takes no weight decay, or it cannot train these parameters.
    """
    names = optimizer_names()
    known = {known.lower(): known for known in names}.get(name.lower())
    if known is None:
        reason = next((f": it {why}" for other, why in _NEEDS_MORE.items() if other.lower() == name.lower()), "")
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(f"Optimizer {name!r} cannot be used{reason}.{hint} Choose one of {', '.join(names)}.")
    optimizer_class = getattr(torch.optim, known)
    takes = inspect.signature(optimizer_class).parameters
    # One kernel for all tensors: with SD 1.5's hypernetwork a sixth of the default's time on a CPU.
    arguments: dict[str, float] = {"fused": True} if "fused" in takes else {}
    if weight_decay is not None:
        if "weight_decay" in takes:
            arguments["weight_decay"] = weight_decay
        elif weight_decay > 0:
            raise UsageError(f"Optimizer {known} takes no weight decay, but {weight_decay:g} was given; leave it out.")
    try:
        optimizer: torch.optim.Optimizer = optimizer_class(parameters, lr=learning_rate, **arguments)
    except ValueError as error:  # Muon takes matrices only, for one
        raise UsageError(f"Optimizer {known} cannot be used here: {error} AdamW always can.") from error
    return optimizer
