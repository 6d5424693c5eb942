"""A device with a memory of its own, played by the CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tincture.models.placement import Placement


class OwnMemory(Placement):
    """The CPU stands for a device with a memory of its own. A part that is not on it holds NaN, and so does what it
    leaves behind: whoever uses it all the same gets NaN.

    Attributes:
        told: what happened, as ``+vae`` and ``-vae``.
    """

    told: list[str]

    def offload(self, device: torch.device | str) -> None:
        self.told, self._device = [], torch.device(device)
        self._resting = {name: [owner[key] for owner, key in self._slots(name)] for name in self.parts}
        for name in self.parts:
            self._put(name, [poisoned(tensor) for tensor in self._resting[name]])

    def _come(self, name: str) -> None:
        if name not in self._here:
            self.told.append(f"+{name}")
            self._put(name, [nn.Parameter(tensor.clone(), False) for tensor in self._resting[name]])
            self._here.add(name)

    def _leave(self, name: str) -> None:
        if name in self._here:
            self.told.append(f"-{name}")
            for owner, key in self._slots(name):
                owner[key].data.copy_(poisoned(owner[key]))
                owner[key] = poisoned(owner[key])
            self._here.remove(name)

    def forget(self) -> None:
        self._device = None


def poisoned(tensor: Tensor) -> Tensor:
    return torch.full_like(tensor, float("nan") if tensor.is_floating_point() else 0)
