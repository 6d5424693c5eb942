"""Adapters that wrap others: averages of what is trained, and two adapters trained as one."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from tests.unit.adapters.context_offset import ContextOffset
from tincture.adapters.adapter import Adapter, AuxiliaryLoss
from tincture.adapters.embedding import Embedding
from tincture.adapters.hypernetwork import Hypernetwork
from tincture.formats.files import atomic_torch_save, safe_torch_load
from tincture.kinds.embedding import EMBEDDING
from tincture.kinds.hypernetwork import HYPERNETWORK
from tincture.kinds.registry import AdapterKind


def _averaged(of: AdapterKind, implementation: str) -> AdapterKind:
    return AdapterKind(
        name=f"averaged-{of.name}",
        title=f"{of.title} of averaged weights",
        plural=f"averaged-{of.plural}",
        folder=f"averaged/{of.plural}",
        implementation=f"{__name__}:{implementation}",
        losses=f"averaged_{of.losses}",
        learning_rate=of.learning_rate,
        template=of.template,
        weight_decay=of.weight_decay,
        options=of.options,
        has_word=of.has_word,
        has_card=of.has_card,
    )


AVERAGED_EMBEDDING = _averaged(EMBEDDING, "AveragedEmbedding")
AVERAGED_HYPERNETWORK = _averaged(HYPERNETWORK, "AveragedHypernetwork")
PAIR = AdapterKind(
    name="pair",
    title="averaged embedding and constant, trained as one",
    plural="pairs",
    folder="pairs",
    implementation=f"{__name__}:Pair",
    losses="pair_loss.csv",
    learning_rate="1e-2",
    template="subject_filewords",
    has_word=True,
)


class Averaged(Adapter):
    """Trains ``inner``, and publishes exponential averages of its weights over the steps; files are the inner's."""

    inner_class: type[Adapter]
    DECAY = 0.75

    def __init__(self, inner: Adapter) -> None:
        self.inner, self.provenance, self.trains_text = inner, inner.provenance, inner.trains_text
        self.name, self.step = inner.name, inner.step
        self.averages = {name: tensor.clone() for name, tensor in inner.state_dict().items()}

    @classmethod
    def create(cls, name: str, model: Callable[[], Any], **options: Any) -> Averaged:
        return cls(cls.inner_class.create(name, model, **options))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        return cls(cls.inner_class.load(path))

    def published(self) -> Adapter:
        shown = copy.deepcopy(self.inner)
        shown.load_state_dict(self.averages)
        shown.name, shown.step, shown.provenance = self.name, self.step, self.provenance
        return shown

    @torch.no_grad()
    def advance(self) -> None:
        self.step += 1
        for name, tensor in self.inner.state_dict().items():
            self.averages[name].lerp_(tensor, 1 - self.DECAY)

    def attach(self, model: Any, multiplier: float = 1.0) -> AbstractContextManager[None]:
        self.inner.name = self.name
        return self.inner.attach(model, multiplier)

    def require_fit(self, model: Any) -> None:
        self.inner.require_fit(model)

    def check_run(self, settings: Mapping[str, Any], model: Any, lines: Sequence[str]) -> None:
        self.inner.check_run(settings, model, lines)

    def auxiliary_loss(
        self, settings: Mapping[str, Any], model: Any, masks: Callable[[], Sequence[Tensor | None]]
    ) -> AuxiliaryLoss | None:
        return self.inner.auxiliary_loss(settings, model, masks)

    def parameters(self) -> list[nn.Parameter]:
        return self.inner.parameters()

    def train(self, mode: bool = True) -> Self:
        self.inner.train(mode)
        return self

    def to(self, device: torch.device | str) -> Self:
        self.inner.to(device)
        self.averages = {name: tensor.to(device) for name, tensor in self.averages.items()}
        return self

    def state_dict(self) -> dict[str, Tensor]:
        trained = {f"trained.{name}": tensor for name, tensor in self.inner.state_dict().items()}
        return trained | {f"average.{name}": tensor for name, tensor in self.averages.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.inner.load_state_dict(_below("trained.", state))
        self.averages = {name: tensor.clone() for name, tensor in _below("average.", state).items()}

    def save(self, path: str | os.PathLike[str], **about: Any) -> None:
        self.published().save(path, **about)


class AveragedEmbedding(Averaged):
    kind = AVERAGED_EMBEDDING.name
    inner_class = Embedding


class AveragedHypernetwork(Averaged):
    kind = AVERAGED_HYPERNETWORK.name
    inner_class = Hypernetwork


class Pair(Adapter):
    """An averaged embedding and a context offset, in one file."""

    kind = PAIR.name
    trains_text = True

    def __init__(self, first: Adapter, second: Adapter, step: int = 0) -> None:
        self.parts, self.step, self.provenance = {"first": first, "second": second}, step, {}
        self.name = first.name

    @classmethod
    def create(cls, name: str, model: Callable[[], Any], **options: Any) -> Pair:
        return cls(AveragedEmbedding.create(name, model, num_vectors=2), ContextOffset.create(name, model, spread=0.1))

    def published(self) -> Adapter:
        shown = Pair(*(part.published() for part in self.parts.values()), self.step)
        shown.name = self.name
        return shown

    def advance(self) -> None:
        self.step += 1
        for part in self.parts.values():
            part.advance()

    @contextmanager
    def attach(self, model: Any, multiplier: float = 1.0) -> Iterator[None]:
        first, second = self.parts.values()
        first.name = self.name
        with first.attach(model), second.attach(model, multiplier):
            yield

    def require_fit(self, model: Any) -> None:
        for part in self.parts.values():
            part.require_fit(model)

    def parameters(self) -> list[nn.Parameter]:
        return [parameter for part in self.parts.values() for parameter in part.parameters()]

    def train(self, mode: bool = True) -> Self:
        for part in self.parts.values():
            part.train(mode)
        return self

    def to(self, device: torch.device | str) -> Self:
        for part in self.parts.values():
            part.to(device)
        return self

    def state_dict(self) -> dict[str, Tensor]:
        return {
            f"{key}.{name}": tensor for key, part in self.parts.items() for name, tensor in part.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for key, part in self.parts.items():
            part.load_state_dict(_below(f"{key}.", state))

    def save(self, path: str | os.PathLike[str], **about: Any) -> None:
        atomic_torch_save({"pair": self.published().state_dict(), "step": self.step}, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        read = safe_torch_load(path)
        vectors = Embedding("", _below("first.", read["pair"]))
        return cls(AveragedEmbedding(vectors), ContextOffset("", read["pair"]["second.offset"]), read["step"])


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
