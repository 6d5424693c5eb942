"""Which parts of a frozen model lie on its device, so that those that rest need not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

TEXT_ENCODERS, VAE = "text_encoders", "vae"
DENOISER = "unet"
"""The part that predicts noise; plans of memory call it so."""


class Placement:
    """Where the parts of a model lie: all on its device, or, after ``offload``, those alone that act or are kept.

    Moving a part changes no bit of it. Since frozen weights don't change, their copies in the CPU's memory stay there,
    and a part leaves the device by letting go of what it has on it.

    Args:
        parts: by name, the modules of each part.

    Attributes:
        keep: parts that stay on the device between their uses: they leave it only for one that wants it alone.
    """

    def __init__(self, parts: Mapping[str, Sequence[nn.Module]]) -> None:
        self.parts = parts
        self.keep: frozenset[str] = frozenset({DENOISER})
        self._device: torch.device | None = None
        self._resting: dict[str, list[Tensor]] = {}
        self._here: set[str] = set()
        self._acting: list[str] = []

    @property
    def offloading(self) -> bool:
        """Whether parts come and go."""
        return self._device is not None

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self._device or next(self.parts[DENOISER][0].parameters()).device

    def offload(self, device: torch.device | str) -> None:
        """From now on the model computes on ``device``, and its parts lie there only while they are needed.

        On a CPU nothing changes, since there is no other place to be.
        """
        self.forget()
        self._move_all("cpu")
        device = torch.device(device)
        if device.type != "cpu":
            self._device = device
            self._resting = {name: [owner[key] for owner, key in self._slots(name)] for name in self.parts}

    def forget(self) -> None:
        """Parts stay where they are from now on; to be called before they are moved or cast."""
        for name in tuple(self._here):
            self._leave(name)
        self._device, self._resting = None, {}

    @contextlib.contextmanager
    def acting(self, name: str, *, alone: bool = False) -> Iterator[None]:
        """Inside, the part ``name`` is on the device; ``alone``: and no other, not even those that are kept."""
        self._acting.append(name)
        try:
            if self.offloading:
                for other in self._here - set(self._acting) - (set() if alone else self.keep):
                    self._leave(other)
                self._come(name)
            yield
        finally:
            self._acting.remove(name)
            if self.offloading and name not in self.keep and name not in self._acting:
                self._leave(name)

    def _come(self, name: str) -> None:
        if name not in self._here:
            self._put(name, [_like(tensor, self.device) for tensor in self._resting[name]])
            self._here.add(name)

    def _leave(self, name: str) -> None:
        if name in self._here:
            self._put(name, self._resting[name])
            self._here.remove(name)

    def _put(self, name: str, tensors: Sequence[Tensor]) -> None:
        """New parameters take the place of the old ones: what an unfinished backward pass holds stays as it is."""
        for (owner, key), tensor in zip(self._slots(name), tensors, strict=True):
            owner[key] = tensor

    def _slots(self, name: str) -> list[tuple[dict[str, Tensor], str]]:
        """Where the parameters and buffers of a part stand: dictionaries and keys."""
        modules = [module for root in self.parts[name] for module in root.modules()]
        owners: list[Any] = [owner for module in modules for owner in (module._parameters, module._buffers)]
        return [(owner, key) for owner in owners for key, tensor in owner.items() if tensor is not None]

    def _move_all(self, device: str) -> None:
        for module in (module for modules in self.parts.values() for module in modules):
            # torch's own method: diffusers' one warns at every move about modules to keep in float32, and names none.
            nn.Module.to(module, device)


def _like(tensor: Tensor, device: torch.device) -> Tensor:
    moved = tensor.detach().to(device, non_blocking=True)
    return nn.Parameter(moved, requires_grad=False) if isinstance(tensor, nn.Parameter) else moved
