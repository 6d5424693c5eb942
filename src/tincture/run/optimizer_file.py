"""The optimizer's state beside an adapter or a copy, ``NAME.pt.optim``: training it further starts as it ended.

A run that was stopped needs none of this: its own states hold everything.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tincture.adapters.adapter import Adapter
from tincture.errors import UsageError
from tincture.settings.optimizers import USUAL, argument_text, arguments_faults, parse_arguments
from tincture.settings.train import TrainSettings
from tincture.training.optimizer import create_optimizer, is_known, optimizer_class
from tincture.training.optimizer_state import keeps_something, sample_states

_OWN = ("params", "lr", "initial_lr")
"""Of a group of parameters, what is the run's whatever a sidecar says."""
_NOT_TAKEN = ("params", "lr", "weight_decay", "foreach", "fused", "maximize", "capturable", "differentiable")


def with_optimizer(settings: TrainSettings, adapter: Adapter, paths: Sequence[Path]) -> tuple[TrainSettings, str]:
    """The settings with an optimizer, and why it is that one where none is named.

    It is that of the state beside a file, with the arguments that it was made with, or AdamW.

    Args:
        paths: the files of the adapter's members.

    Raises:
        FileFormatError: the file with the state is damaged.
    """
    if settings.optimizer:
        return settings, ""
    for member, path in zip(adapter.members(), paths, strict=True):
        found = member.published().load_optimizer(path)
        if found is None or not found[0]:
            continue
        name, state = found
        if not is_known(name):
            warnings.warn(
                f"{path}.optim names the optimizer {name!r}, which is not known: AdamW is used.", stacklevel=3
            )
            break
        given = settings.optimizer_args or _arguments(name, state)
        return settings.replace(optimizer=name, optimizer_args=given), f"that of {path.name}.optim"
    return settings.replace(optimizer=USUAL), "the usual one"


def _arguments(name: str, state: Mapping[str, Any]) -> str:
    """Arguments that a state was made with, as far as they are not the optimizer's usual ones."""
    usual = create_optimizer(name, [nn.Parameter(torch.zeros(2, 2))], 0.1).param_groups[0]
    group = next(iter(state.get("param_groups") or [{}]))
    takes = set(inspect.signature(optimizer_class(name)).parameters) - set(_NOT_TAKEN)
    other = {key: value for key, value in group.items() if key in takes and value != usual.get(key)}
    text = argument_text({key: tuple(value) if isinstance(value, list) else value for key, value in other.items()})
    with contextlib.suppress(UsageError):  # values that nobody could type
        if not arguments_faults(text):
            create_optimizer(name, [nn.Parameter(torch.zeros(2, 2))], 0.1, None, parse_arguments(text))
            return text
    return ""


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
    states |= _of_no_parameter(state)
    group = next(group for group in state["param_groups"] if order[0] in group["params"])
    adapter.save_optimizer(
        path, type(optimizer).__name__, {**state, "state": states, "param_groups": [{**group, "params": numbers}]}
    )


def load_optimizer(optimizer: torch.optim.Optimizer, adapter: Adapter, path: Path) -> bool:
    """Puts the sidecar of ``path`` into ``optimizer``, which keeps its own rates; whether there was one that fits.

    What the optimizer has learned beside its states, such as Prodigy's d, comes along. One that belongs to another
    optimizer is left alone, with a warning.

    Raises:
        FileFormatError: the sidecar is damaged.
    """
    found = adapter.published().load_optimizer(path)
    if found is None:
        return False
    name, state = found
    order = _order(optimizer, adapter.parameters())
    if name == type(optimizer).__name__ and state.get("state") == {} and keeps_something(optimizer):
        return False  # of a file whose weights no step has changed
    if name != type(optimizer).__name__ or not _fits(optimizer, order, state):
        warnings.warn(f"{path}.optim holds the state of another optimizer and is not used.", stacklevel=2)
        return False
    now = optimizer.state_dict()
    states = {at: state["state"][number] for number, at in enumerate(order) if number in state["state"]}
    states |= _of_no_parameter(state)
    groups = [
        {**group, **_learned(optimizer, group, state)} if set(group["params"]) & set(order) else group
        for group in now["param_groups"]
    ]
    beside = {key: state[key] for key in now if type(state.get(key)) is type(now[key])}
    # Others' states may be there already.
    optimizer.load_state_dict({**beside, "state": {**now["state"], **states}, "param_groups": groups})
    if hasattr(optimizer, "eval"):  # the file has the averages, from which it goes to where it trains
        optimizer.train()  # type: ignore[attr-defined]
    return True


def _of_no_parameter(state: Mapping[str, Any]) -> dict[Any, Any]:
    """What stands among the states by a name: some count their steps there."""
    return {key: value for key, value in state["state"].items() if isinstance(key, str)}


def _learned(optimizer: torch.optim.Optimizer, group: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in a saved group of parameters and is no argument, of the types that it has here."""
    if type(optimizer).__module__.partition(".")[0] == "torch":
        return {}
    takes = inspect.signature(type(optimizer)).parameters
    saved = next(iter(state.get("param_groups") or [{}]))
    learned = {
        key: value
        for key, value in saved.items()
        if key not in takes and key not in _OWN and _alike(value, group.get(key, value))
    }
    return {**learned, "train_mode": False} if "train_mode" in group else learned


def _alike(value: object, usual: object) -> bool:
    if isinstance(value, torch.Tensor):
        return value.numel() == 1 and isinstance(usual, torch.Tensor | float)
    return isinstance(value, bool | int | float) and (
        isinstance(usual, torch.Tensor) or isinstance(value, bool) == isinstance(usual, bool)
    )


def _order(optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]) -> list[int]:
    """By which number the optimizer's ``state_dict`` calls each of ``parameters``; -1: it does not train it."""
    numbers = {id(parameter): number for number, parameter in enumerate(_parameters(optimizer))}
    return [numbers.get(id(parameter), -1) for parameter in parameters]


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _fits(optimizer: torch.optim.Optimizer, order: Sequence[int], state: Mapping[str, Any]) -> bool:
    """Whether there is a state for each parameter, with the names and shapes that this optimizer gives it."""
    parameters, saved = _parameters(optimizer), state.get("state")
    if not isinstance(saved, dict) or -1 in order:
        return False
    if not {key for key in saved if not isinstance(key, str)} <= set(range(len(order))):
        return False
    expected = sample_states(optimizer)
    return all(_holds(saved.get(number, {}), expected[tuple(parameters[at].shape)]) for number, at in enumerate(order))


def _holds(values: object, expected: Mapping[str, Any]) -> bool:
    if not isinstance(values, dict):
        return False
    return expected.keys() <= values.keys() and all(_like(values[key], value) for key, value in expected.items())


def _like(value: object, expected: object) -> bool:
    """Whether a saved value is of the shape that is expected; a count of steps may be a number or a tensor."""
    if isinstance(expected, torch.Tensor) and expected.ndim:
        return isinstance(value, torch.Tensor) and value.shape == expected.shape
    return not isinstance(value, torch.Tensor) or value.ndim == 0
