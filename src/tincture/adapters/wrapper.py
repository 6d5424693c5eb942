"""An adapter around another: it does what that one does, but for what it is there for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from tincture.adapters.adapter import Adapter, AuxiliaryLoss

if TYPE_CHECKING:
    from tincture.models.diffusion_model import DiffusionModel


class Wrapper(Adapter):
    """Does what ``inner`` does, by whatever an ``Adapter`` can be asked for; a base for those that change some of it.

    It is one adapter with one file, of the name and provenance of ``inner``.

    Args:
        inner: what is trained; it belongs to this one from now on.
    """

    def __init__(self, inner: Adapter) -> None:
        self.inner = inner
        self.kind, self.trains_text = inner.kind, inner.trains_text
        self.name, self.provenance = inner.name, inner.provenance

    @property
    def word(self) -> str:
        """What takes the place of [name] in prompts."""
        return self.inner.word

    @property
    def step(self) -> int:
        """Optimizer steps trained so far."""
        return self.inner.step

    @step.setter
    def step(self, step: int) -> None:
        self.inner.step = step

    @classmethod
    def create(cls, name: str, model: Callable[[], DiffusionModel], **options: Any) -> Self:
        """It goes around an adapter that is there: TypeError."""
        raise TypeError(f"{name!r} is to be made by the class of its kind, and given to {cls.__name__} then.")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """A file holds what is inside: TypeError."""
        raise TypeError(
            f"{os.fspath(path)} is to be loaded by the class of its kind, and given to {cls.__name__} then."
        )

    def attach(self, model: DiffusionModel, multiplier: float = 1.0) -> AbstractContextManager[None]:
        """See ``Adapter``; so are all below."""
        return self.inner.attach(model, multiplier)

    def require_fit(self, model: DiffusionModel) -> None:
        self.inner.require_fit(model)

    def check_run(self, settings: Mapping[str, Any], model: DiffusionModel, lines: Sequence[str]) -> None:
        self.inner.check_run(settings, model, lines)

    def is_taught_by(self, prompts: Sequence[str], model: DiffusionModel) -> bool:
        return self.inner.is_taught_by(prompts, model)

    def parameters(self) -> list[nn.Parameter]:
        return self.inner.parameters()

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        return self.inner.parameter_groups()

    def biases_and_norms(self) -> Mapping[str, Sequence[nn.Parameter]]:
        return self.inner.biases_and_norms()

    def token_vectors(self) -> Sequence[tuple[str, nn.Parameter]]:
        return self.inner.token_vectors()

    def train(self, mode: bool = True) -> Self:
        self.inner.train(mode)
        return self

    def to(self, device: torch.device | str) -> Self:
        self.inner.to(device)
        return self

    def advance(self) -> None:
        self.inner.advance()

    def auxiliary_loss(
        self, settings: Mapping[str, Any], model: DiffusionModel, masks: Callable[[], Sequence[Tensor | None]]
    ) -> AuxiliaryLoss | None:
        return self.inner.auxiliary_loss(settings, model, masks)

    def state_dict(self) -> dict[str, Tensor]:
        return self.inner.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.inner.load_state_dict(state)

    @property
    def suffix(self) -> str:
        return self.inner.suffix

    def save(self, path: str | os.PathLike[str], **about: Any) -> None:
        """Writes what is published."""
        self.published().save(path, **about)
