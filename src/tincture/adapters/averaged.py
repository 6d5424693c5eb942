"""Averages of what is trained: exponential, over the optimizer steps, of any adapter's weights.

After step n the average is ``d * average + (1 - d) * weights`` with the decay d of that step. With a warm-up d is at
most (1 + n) / (10 + n), n being the updates before, so that the first weights are soon forgotten (Polyak averaging as
in Karras et al. 2022, appendix F; the warm-up is that of diffusers' ``EMAModel`` and of TensorFlow before it).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Literal, Self

import torch
from torch import Tensor

from tincture.adapters.adapter import Adapter
from tincture.adapters.wrapper import Wrapper

Published = Literal["average", "raw"]
BESIDE: Mapping[Published, str] = {"average": "-raw", "raw": "-average"}
"""What is added to the name for the weights that are not published."""
WEIGHTS = "weights"
"""Key in a file's provenance: which of the two it holds."""


class Averaged(Wrapper):
    """Trains ``inner`` and keeps averages of its weights, which are what is published; an ``Adapter``.

    Args:
        inner: what is trained; it belongs to this one from now on.
        decay: of the optimizer step from ``step`` to ``step + 1``, 0 <= decay < 1.
        warmup: whether the decay warms up.
        publish: which weights bear the adapter's name; the others are ``NAME-raw`` or ``NAME-average``.
    """

    def __init__(
        self,
        inner: Adapter,
        decay: Callable[[int], float],
        *,
        warmup: bool = True,
        publish: Published = "average",
    ) -> None:
        super().__init__(inner)
        self.average = copy.deepcopy(inner)
        self.decay, self.warmup, self.publish = decay, warmup, publish
        self.updates = 0

    # --- training ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def advance(self) -> None:
        """Counts the step and brings the averages on."""
        decay = self.decay(self.step)
        if self.warmup:
            decay = min(decay, (1 + self.updates) / (10 + self.updates))
        averages = self.average.state_dict()
        for name, tensor in self.inner.state_dict().items():
            averages[name].lerp_(tensor, 1 - decay)
        self.updates += 1
        self.inner.advance()

    def train(self, mode: bool = True) -> Self:
        """Switches the inner one; the average is never in training mode."""
        self.inner.train(mode)
        return self

    def to(self, device: torch.device | str) -> Self:
        """Moves both."""
        self.inner.to(device)
        self.average.to(device)
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """The inner one's tensors, the averages, and how many updates these had."""
        trained = {f"trained.{name}": tensor for name, tensor in self.inner.state_dict().items()}
        averages = {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}
        return {**trained, **averages, "updates": torch.tensor(self.updates)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what ``state_dict`` gave."""
        self.inner.load_state_dict(_below("trained.", state))
        self.average.load_state_dict(_below("average.", state))
        self.updates = int(state["updates"])

    # --- files -------------------------------------------------------------------------------------------------------

    def published(self) -> Adapter:
        """The averages, or what is trained, as ``publish`` has it."""
        return self.files()[""]

    def files(self) -> Mapping[str, Adapter]:
        """Both: the published one by the name itself, the other beside it."""
        average, raw, beside = self.average, self.inner, BESIDE[self.publish]
        if self.publish == "average":
            return {"": self._labelled(average, "average"), beside: self._labelled(raw, "raw", beside)}
        return {"": self._labelled(raw, "raw"), beside: self._labelled(average, "average", beside)}

    @property
    def optimizer_beside(self) -> str:
        """The optimizer's state belongs to what is trained."""
        return BESIDE["average"] if self.publish == "average" else ""

    def _labelled(self, adapter: Adapter, weights: str, more: str = "") -> Adapter:
        """The same tensors, with what is to stand in the file."""
        labelled = copy.copy(adapter)
        labelled.name, labelled.step = self.name + more, self.step
        labelled.provenance = {**self.provenance, WEIGHTS: weights}
        return labelled


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
