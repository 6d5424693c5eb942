"""What an optimizer keeps of each parameter, seen by a step that it makes on others of the same shapes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

Shape = tuple[int, ...]
_ENOUGH = 20
"""Steps in which arguments that cannot be meant show: a momentum far above 1, a mean whose share is 2."""


def sample_states(optimizer: torch.optim.Optimizer, longest: int | None = None) -> dict[Shape, dict[str, Any]]:
    """By shape of its parameters, the state that an optimizer like this one has after its first step, on the CPU.

    It is made anew from the arguments of this one, so that nothing changes but that some time passes.

    Args:
        longest: sides are cut to this length, where only errors are sought.
    """
    with _trying(optimizer, longest) as (other, parameters):
        _step(other, parameters)
        return {shape: dict(other.state.get(parameter, {})) for shape, parameter in parameters.items()}


def try_steps(optimizer: torch.optim.Optimizer, longest: int) -> None:
    """Some steps that an optimizer like this one makes, on the CPU; see ``sample_states``.

    Raises:
        ValueError: its arguments make numbers that are not finite.
    """
    with _trying(optimizer, longest) as (other, parameters):
        for _ in range(_ENOUGH):
            _step(other, parameters)
        if not all(parameter.isfinite().all() for parameter in parameters.values()):
            raise ValueError(f"with these arguments weights are not finite after {_ENOUGH} steps")


@contextmanager
def _trying(
    optimizer: torch.optim.Optimizer, longest: int | None
) -> Iterator[tuple[torch.optim.Optimizer, dict[Shape, nn.Parameter]]]:
    """One like this, of parameters by their shapes; the global random state is as it was afterwards."""
    shapes = {tuple(parameter.shape) for group in optimizer.param_groups for parameter in group["params"]}
    cut = sorted({tuple(min(side, longest or side) for side in shape) for shape in shapes})
    takes = inspect.signature(type(optimizer)).parameters
    values = {**vars(optimizer), **optimizer.defaults}
    arguments = {name: values[name] for name in takes if name in values and name != "params"}
    with _disable_current_modes(), torch.random.fork_rng(devices=[]), torch.enable_grad():
        numbers = {shape: torch.linspace(-1, 1, max(1, _count(shape))).reshape(shape) for shape in cut}
        parameters = {shape: nn.Parameter(tensor) for shape, tensor in numbers.items()}
        yield type(optimizer)([*parameters.values()], **arguments), parameters


def _step(optimizer: torch.optim.Optimizer, parameters: Mapping[Shape, nn.Parameter]) -> None:
    for parameter in parameters.values():
        parameter.grad = parameter.detach().cos()
    optimizer.step()


def keeps_something(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it has a state of any parameter; plain gradient descent has none."""
    return any(sample_states(optimizer, 2).values())


class StandIn(torch.optim.Optimizer):
    """Takes the memory that ``optimizer`` would take, and computes nothing: some look at numbers that are not there."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._states = sample_states(optimizer)
        super().__init__([{**group} for group in optimizer.param_groups], {"lr": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Allocates states where there are none yet, and passes by two tensors of each parameter's size."""
        for group in self.param_groups:
            for parameter in group["params"]:
                state: Mapping[str, Any] = self._states[tuple(parameter.shape)]
                if not self.state[parameter]:
                    self.state[parameter] = {name: _emptied(value) for name, value in state.items()}
                torch.empty_like(parameter).add_(torch.empty_like(parameter))


def _emptied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.empty(value.shape, dtype=value.dtype)
    if isinstance(value, list | tuple):
        return [_emptied(each) for each in value]
    if isinstance(value, dict):
        return {name: _emptied(each) for name, each in value.items()}
    return value


def _count(shape: Shape) -> int:
    count = 1
    for side in shape:
        count *= side
    return count
