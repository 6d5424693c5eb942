"""What the trainer knows of the thing it trains."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from tincture.models.stable_diffusion import StableDiffusion


class Adapter(Protocol):
    """A small trained part beside a frozen model.

    Attributes:
        kind: ``embedding`` or ``hypernetwork``.
        name: what prompts and files call it.
        step: optimizer steps trained so far, over all runs.
        provenance: JSON values about how it was made, as its file gave them.
        trains_text: whether ``encoder_hidden_states`` depend on trained parameters, so that they cannot be cached.
    """

    kind: str
    name: str
    step: int
    provenance: dict[str, Any]
    trains_text: bool

    def parameters(self) -> list[nn.Parameter]:
        """What is trained, float32, always in the same order."""
        ...

    def attach(self, model: StableDiffusion, multiplier: float = 1.0) -> AbstractContextManager[None]:
        """Acts on ``model`` inside the context; afterwards, also after an exception, the model is as it was."""
        ...

    def train(self, mode: bool = True) -> Self:
        """Switches what differs between training and use, such as dropout."""
        ...

    def to(self, device: torch.device | str) -> Self:
        """Moves the parameters, which stay the same objects."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """All trained tensors, not copied, for an exact resume."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what ``state_dict`` gave, into the same parameters."""
        ...

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        model_name: str = "",
        model_hash: str = "",
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes the portable file, whole or not at all, labelled with ``step``.

        Args:
            path: the file to write.
            model_name: the model trained on; "" keeps what is known.
            model_hash: first 10 hex digits of the model's hash; "" keeps what is known.
            provenance: JSON values about how the file was made; None keeps what is known.
        """
        ...
