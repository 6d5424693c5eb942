"""Several adapters trained at once: one to the trainer, each with a file of its own to all who write."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from tincture.adapters.adapter import Adapter, AuxiliaryLoss, ask_each
from tincture.kinds.registry import word_of

if TYPE_CHECKING:
    from tincture.models.diffusion_model import DiffusionModel

_STEPS = "steps"
MEMBER = "member"
"""Key in a file's provenance: which of the adapters that were trained together it is, ``kind`` and ``name``."""


def joined(members: Sequence[Adapter]) -> Adapter:
    """One adapter of ``members``, of which there is at least one: the lone one itself, or a ``Joint``."""
    return members[0] if len(members) == 1 else Joint(members)


class Joint(Adapter):
    """Trains ``members`` together; an ``Adapter``. Its name, kind, steps and provenance are the first one's.

    Args:
        members: two or more, none of them a ``Joint``; they belong to this one from now on. Each acts on what those
            before it left.
    """

    def __init__(self, members: Sequence[Adapter]) -> None:
        self._members = tuple(members)
        first = self._members[0]
        self.kind, self.name, self.provenance = first.kind, first.name, first.provenance
        self.trains_text = any(member.trains_text for member in self._members)

    def members(self) -> Sequence[Adapter]:
        """In the order of their groups of parameters."""
        return self._members

    def with_members(self, members: Sequence[Adapter]) -> Adapter:
        """These joined."""
        return Joint(members)

    @property
    def word(self) -> str:
        """The name of the first one that prompts name by a word."""
        return word_of([(member.kind, member.name) for member in self._members])

    @property
    def step(self) -> int:
        """Of the first; the others are set with it, since all count alike."""
        return self._members[0].step

    @step.setter
    def step(self, step: int) -> None:
        further = step - self.step
        for member in self._members:
            member.step += further

    @classmethod
    def create(cls, name: str, model: Callable[[], DiffusionModel], **options: Any) -> Self:
        """Its members are made each by itself: TypeError."""
        raise TypeError(f"{name!r} is to be made by the class of its kind, and given to Joint then.")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Each member has a file of its own: TypeError."""
        raise TypeError(f"{os.fspath(path)} is to be loaded by the class of its kind, and given to Joint then.")

    def save(self, path: str | os.PathLike[str], **about: Any) -> None:
        """Each member has a file of its own: TypeError."""
        raise TypeError(f"{os.fspath(path)} can hold one adapter; save the members, each in a file of its own.")

    # --- acting ------------------------------------------------------------------------------------------------------

    @contextmanager
    def attach(self, model: DiffusionModel, multiplier: float = 1.0) -> Iterator[None]:
        """All act, in their order."""
        with ExitStack() as acting:
            for member in self._members:
                acting.enter_context(member.attach(model, multiplier))
            yield

    def require_fit(self, model: DiffusionModel) -> None:
        """Each must; one message names all that do not."""
        ask_each(lambda member: member.require_fit(model), self._members)

    def check_run(self, settings: Mapping[str, Any], model: DiffusionModel, lines: Sequence[str]) -> None:
        """Each must be fit for it; one message names all that are not.

        A line need not name every one of them. Whether each is named, in a line or a caption, is to be seen by whoever
        knows both.
        """
        ask_each(lambda member: member.check_run(settings, model, ()), self._members)

    def is_taught_by(self, prompts: Sequence[str], model: DiffusionModel) -> bool:
        """Whether any of them is."""
        return any(member.is_taught_by(prompts, model) for member in self._members)

    # --- training ----------------------------------------------------------------------------------------------------

    def parameters(self) -> list[nn.Parameter]:
        """All, member by member."""
        return [parameter for member in self._members for parameter in member.parameters()]

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Those of each, behind its number."""
        return {
            f"{number}.{name}": parameters
            for number, member in enumerate(self._members)
            for name, parameters in member.parameter_groups().items()
        }

    def train(self, mode: bool = True) -> Self:
        """Switches all."""
        for member in self._members:
            member.train(mode)
        return self

    def to(self, device: torch.device | str) -> Self:
        """Moves all."""
        for member in self._members:
            member.to(device)
        return self

    def advance(self) -> None:
        """Each counts the step."""
        for member in self._members:
            member.advance()

    def auxiliary_loss(
        self, settings: Mapping[str, Any], model: DiffusionModel, masks: Callable[[], Sequence[Tensor | None]]
    ) -> AuxiliaryLoss | None:
        """The sum of those that the members have."""
        found = [member.auxiliary_loss(settings, model, masks) for member in self._members]
        terms = [term for term in found if term is not None]
        return _Sum(terms) if len(terms) > 1 else next(iter(terms), None)

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors, behind the number of their member, and how many steps each has."""
        tensors = {
            f"{number}.{name}": tensor
            for number, member in enumerate(self._members)
            for name, tensor in member.state_dict().items()
        }
        return {**tensors, _STEPS: torch.tensor([member.step for member in self._members])}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what ``state_dict`` gave."""
        for number, (member, step) in enumerate(zip(self._members, state[_STEPS].tolist(), strict=True)):
            below = f"{number}."
            own = {name.removeprefix(below): tensor for name, tensor in state.items() if name.startswith(below)}
            member.load_state_dict(own)
            member.step = int(step)

    # --- what others get of it ---------------------------------------------------------------------------------------

    def published(self) -> Adapter:
        """Of each what it gives: itself where no member wraps what is trained."""
        shown = [member.published() for member in self._members]
        own = all(one is other for one, other in zip(shown, self._members, strict=True))
        return self if own else Joint(shown)


class _Sum:
    """An ``AuxiliaryLoss`` of several."""

    def __init__(self, terms: Sequence[AuxiliaryLoss]) -> None:
        self._terms, self._global_step = terms, 0

    @property
    def global_step(self) -> int:
        return self._global_step

    @global_step.setter
    def global_step(self, step: int) -> None:
        self._global_step = step
        for term in self._terms:
            term.global_step = step

    @contextmanager
    def watching(self) -> Iterator[None]:
        with ExitStack() as watching:
            for term in self._terms:
                watching.enter_context(term.watching())
            yield

    def value(self, indices: Sequence[int], prompts: Sequence[str]) -> Tensor:
        return torch.stack([term.value(indices, prompts) for term in self._terms]).sum()
