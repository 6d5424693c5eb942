"""An adapter that is trained while others act that are not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch

from tincture.adapters.adapter import Adapter, ask_each
from tincture.adapters.wrapper import Wrapper

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tincture.models.diffusion_model import DiffusionModel


class Fixed(NamedTuple):
    """One that acts, and how strongly."""

    adapter: Adapter
    multiplier: float


class WithFixed(Wrapper):
    """Trains ``inner`` below ``fixed``: these act on what it leaves, and its gradients come through them.

    In pictures it is the same as a prompt that names ``inner`` first, then them. Files are the inner one's, and hold
    nothing of them.

    Args:
        fixed: none of them is trained; they belong to this one from now on.
    """

    def __init__(self, inner: Adapter, fixed: Sequence[Fixed]) -> None:
        super().__init__(inner)
        self._fixed = tuple(fixed)
        for one in self._fixed:
            one.adapter.train(False)
            for parameter in one.adapter.parameters():
                parameter.requires_grad_(False)

    @property
    def fixed(self) -> Sequence[Adapter]:
        """See ``Adapter``."""
        return [one.adapter for one in self._fixed]

    def members(self) -> Sequence[Adapter]:
        """Those of the inner one."""
        return self.inner.members()

    def with_members(self, members: Sequence[Adapter]) -> Adapter:
        """The same, with these inside."""
        return WithFixed(self.inner.with_members(members), self._fixed)

    @contextmanager
    def attach(self, model: DiffusionModel, multiplier: float = 1.0) -> Iterator[None]:
        """The inner one acts, then the others, each as strongly as it is meant to."""
        with ExitStack() as acting:
            acting.enter_context(self.inner.attach(model, multiplier))
            for one in self._fixed:
                acting.enter_context(one.adapter.attach(model, one.multiplier))
            yield

    def require_fit(self, model: DiffusionModel) -> None:
        """All must."""
        self.inner.require_fit(model)
        ask_each(lambda one: one.require_fit(model), self.fixed)

    def check_run(self, settings: Mapping[str, Any], model: DiffusionModel, lines: Sequence[str]) -> None:
        """The inner one must be fit for it, and the others must fit the model."""
        self.inner.check_run(settings, model, lines)
        ask_each(lambda one: one.require_fit(model), self.fixed)

    def to(self, device: torch.device | str) -> Self:
        """Moves all."""
        for one in self._fixed:
            one.adapter.to(device)
        return super().to(device)

    def published(self) -> Adapter:
        """The inner one's, with the same others."""
        shown = self.inner.published()
        return self if shown is self.inner else WithFixed(shown, self._fixed)
