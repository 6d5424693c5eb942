"""Weights that an optimizer averages by itself, as schedule-free ones do: they are what is published."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from tincture.adapters.adapter import Adapter
from tincture.adapters.wrapper import Wrapper


class HasModes(Protocol):
    """What is needed of such an optimizer: which of its weights lie in the parameters."""

    @property
    def param_groups(self) -> list[dict[str, Any]]: ...

    def train(self) -> object:
        """Those that gradients are taken at."""
        ...

    def eval(self) -> object:
        """The averages."""
        ...


class Evaluated(Wrapper):
    """Trains ``inner`` and publishes the optimizer's averages of its weights; an ``Adapter``.

    States hold what is trained, and the optimizer's own what the averages are made of.

    Args:
        inner: what is trained; it belongs to this one from now on. Its weights are the averages, too, as it is given.
        optimizer: over its parameters, among others.
    """

    def __init__(self, inner: Adapter, optimizer: HasModes) -> None:
        super().__init__(inner)
        self._average, self._optimizer, self._is_current = copy.deepcopy(inner), optimizer, True

    def advance(self) -> None:
        self._is_current = False
        self.inner.advance()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._is_current = False
        self.inner.load_state_dict(state)

    def to(self, device: torch.device | str) -> Self:
        """Moves both."""
        self._average.to(device)
        self.inner.to(device)
        return self

    def published(self) -> Adapter:
        """The averages."""
        return self.files()[""]

    def files(self) -> Mapping[str, Adapter]:
        """The averages alone: what is trained is of no use without the optimizer."""
        self._bring_on()
        shown = copy.copy(self._average)
        shown.name, shown.step, shown.provenance = self.name, self.step, self.provenance
        return {"": shown}

    @torch.no_grad()
    def _bring_on(self) -> None:
        """Takes the averages. What is trained stays as it is to the last bit, unlike by the optimizer's own way."""
        if self._is_current:
            return
        parameters = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        trained = [parameter.detach().clone() for parameter in parameters]
        self._optimizer.eval()
        try:
            self._average.load_state_dict(self.inner.state_dict())
        finally:
            self._optimizer.train()
            for parameter, value in zip(parameters, trained, strict=True):
                parameter.copy_(value)
        self._is_current = True
