"""Optimizers by name: those of torch.optim, and of pytorch-optimizer, that work from gradients alone."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tincture.errors import UsageError
from tincture.settings.optimizers import EXAMPLE, LIBRARY, NEVER_GIVEN, ONE_RATE, REFUSED, USUAL, known_name
from tincture.settings.schedule import Schedule
from tincture.training.optimizer_state import sample_states, try_steps

_SAMPLE = 4
"""The longest side of the weights with which arguments are tried."""


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
    return sorted({*_of_torch(), *LIBRARY})


def is_known(name: str) -> bool:
    """Whether there is an optimizer of that name, upper and lower case being alike."""
    return known_name(name).lower() in {known.lower() for known in optimizer_names()}


def require_optimizer(name: str, arguments: Mapping[str, Any]) -> None:
    """UsageError where there is no optimizer of that name, or it does not take these arguments."""
    _checked(optimizer_class(name), arguments)


def create_optimizer(
    name: str,
    parameters: Sequence[nn.Parameter] | Sequence[ParameterGroup],
    learning_rate: float,
    weight_decay: float | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> torch.optim.Optimizer:
    """Makes ``torch.optim.NAME``, or that of pytorch-optimizer (upper and lower case are alike), for ``parameters``.

    Args:
        parameters: all in one group, or groups, which the optimizer's ``param_groups`` then are in their order.
        weight_decay: of groups without one of their own; None leaves the optimizer's own default.
        arguments: further ones of its class, by name.

    Raises:
        UsageError: there is no such optimizer, it takes no weight decay or not these arguments, or it cannot train
            these parameters.
    """
    found = optimizer_class(name)
    groups = [one if isinstance(one, ParameterGroup) else ParameterGroup([one]) for one in parameters]
    if not any(isinstance(one, ParameterGroup) for one in parameters):
        groups = [ParameterGroup([parameter for group in groups for parameter in group.parameters])]
    _check_rates(found, groups)
    given = _checked(found, arguments or {})
    # One kernel for all tensors: with SD 1.5's hypernetwork a sixth of the default's time on a CPU.
    is_fusible = found.__name__ not in LIBRARY and _takes(found, "fused") and not {"fused", "foreach"} & given.keys()
    chosen = {"fused": True} if is_fusible else {}
    given = {**chosen, **_weight_decay(found, weight_decay), **given}
    options = [{"params": [*group.parameters], **_weight_decay(found, group.weight_decay)} for group in groups]
    if "weight_decay" in (arguments or {}):  # stands for all
        options = [{"params": group["params"]} for group in options]
    try:
        optimizer: torch.optim.Optimizer = found(options, lr=learning_rate, **given)
        if arguments:
            try_steps(optimizer, _SAMPLE)
        elif found.__name__ in LIBRARY:
            sample_states(optimizer, _SAMPLE)
    except Exception as error:  # Muon takes matrices only, for one; libraries raise what they like
        instead = "Give other arguments, or none." if found.__name__ == USUAL else f"{USUAL} always can."
        fault = str(error).rstrip(".") or type(error).__name__
        raise UsageError(f"Optimizer {found.__name__} cannot be used here: {fault}. {instead}") from error
    return optimizer


def effective_rate(optimizer: torch.optim.Optimizer) -> float | None:
    """The rate of the next step, of the first group, by an optimizer that finds its own: of Prodigy, d times the rate.

    None where it is the rate that was set.
    """
    group = optimizer.param_groups[0]
    if "d" in group:
        return float(group["d"]) * float(group["lr"])
    warmup = group.get("warmup_steps") or 0
    return float(group["lr"]) * min(1.0, (group.get("step", 0) + 1) / warmup) if warmup else None


# --- finding ---------------------------------------------------------------------------------------------------------


def _of_torch() -> dict[str, Any]:
    found = vars(torch.optim).items()
    classes = {name: value for name, value in found if inspect.isclass(value)}
    usable = {name: value for name, value in classes.items() if issubclass(value, torch.optim.Optimizer)}
    return {name: value for name, value in usable.items() if name != "Optimizer" and name not in REFUSED}


def optimizer_class(name: str) -> Any:
    """The class of that name; UsageError when there is none that can be used."""
    name, own = name.strip(), _of_torch()
    known = {known.lower(): known for known in (*LIBRARY, *own)}.get(known_name(name).lower())  # torch's own wins
    if known is None:
        reason = next((f": it {why}" for other, why in REFUSED.items() if other.lower() == name.lower()), "")
        near = difflib.get_close_matches(name.lower(), {each.lower(): each for each in optimizer_names()}, 1, 0.5)
        hint = next((f" Did you mean {each}?" for each in optimizer_names() if each.lower() in near), "")
        names = ", ".join(optimizer_names())
        raise UsageError(f"Optimizer {name!r} cannot be used{reason}.{hint} Choose one of {names}.")
    return own[known] if known in own else _of_library(known)


def _of_library(name: str) -> Any:
    try:
        import pytorch_optimizer  # takes a second: only those who name such an optimizer wait for it
    except ImportError as error:
        raise UsageError(f"Optimizer {name} is of a library that is missing: pip install pytorch-optimizer.") from error
    return getattr(pytorch_optimizer, name)


# --- arguments -------------------------------------------------------------------------------------------------------


def _takes(of: Any, name: str) -> bool:
    return name in inspect.signature(of).parameters


def _check_rates(of: Any, groups: Sequence[ParameterGroup]) -> None:
    rates = {group.learning_rate for group in groups}
    if len(rates) > 1 and of.__name__ in ONE_RATE:
        raise UsageError(
            f"Optimizer {of.__name__} takes one learning rate for all that is trained together, but "
            "several were given; give all the same, or choose another optimizer."
        )


def _checked(of: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments with the values that the class takes; UsageError names all that are wrong."""
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(of).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and name not in ("params", "lr")
    }
    faults, values = [], {}
    for name, value in arguments.items():
        if name not in parameters:
            near = difflib.get_close_matches(name, parameters, n=1, cutoff=0.5)
            known = near or [each for each in parameters if each not in NEVER_GIVEN]
            faults.append(f"there is no {name}; {'the nearest is' if near else 'known are'} {', '.join(known)}")
        elif fault := _fault(parameters[name], value):
            faults.append(f"{name} is {value!r}, but must be {fault}")
        else:
            values[name] = value
    if faults:
        raise UsageError(
            f"Optimizer {of.__name__} does not take these arguments: {'; '.join(faults)}. Example: {EXAMPLE!r}."
        )
    return values


def _fault(parameter: inspect.Parameter, value: Any) -> str | None:
    """What is allowed of a class's parameter, going by its default, where ``value`` is not."""
    default, annotation = parameter.default, str(parameter.annotation)
    is_number = _is_number(value)
    if value is None:
        return None if default is None or "None" in annotation else "given"
    if isinstance(default, bool) or (default is None and "bool" in annotation):
        return None if isinstance(value, bool) else "true or false"
    if isinstance(default, tuple | list):
        fits = isinstance(value, tuple) and len(value) == len(default)
        fits = fits and all(
            _is_number(each) or each is usual is None for each, usual in zip(value, default, strict=True)
        )
        return None if fits else f"{len(default)} numbers such as {tuple(default)}"
    if isinstance(default, int) and "float" not in annotation:
        return None if is_number and isinstance(value, int) else "a whole number"
    if isinstance(default, int | float) or (default is None and ("float" in annotation or "int" in annotation)):
        return None if is_number else "a number"
    return None if isinstance(value, str) == isinstance(default, str) or default is None else "a text in quotes"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _weight_decay(of: Any, weight_decay: float | None) -> dict[str, float]:
    """The argument that gives it; UsageError where there is none such."""
    if weight_decay is None:
        return {}
    if _takes(of, "weight_decay"):
        return {"weight_decay": weight_decay}
    if weight_decay > 0:
        known = of.__name__
        raise UsageError(f"Optimizer {known} takes no weight decay, but {weight_decay:g} was given; leave it out.")
    return {}
