"""From prompts to hidden states, each distinct prompt encoded once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from tincture.models.stable_diffusion import StableDiffusion


class Conditioning:
    """Encodes the prompts of a micro-batch: (B, chunks * 77, width), with empty chunks behind shorter prompts.

    Where the text side is not trained, an encoding is kept for as long as it may be used again; where it is, it is
    made anew in every step with gradients, though only once for prompts that are alike. Kept ones are encoded one by
    one: the last bits of an encoding depend on what shares its batch, and a resumed run finds other prompts missing.

    Args:
        trains_text: whether hidden states depend on what is trained.
        capacity: encodings to keep; with shuffled or dropped tags there may be very many prompts.
    """

    def __init__(self, model: StableDiffusion, *, trains_text: bool, clip_skip: int = 1, capacity: int = 4096) -> None:
        self.model, self.trains_text, self.clip_skip, self.capacity = model, trains_text, clip_skip, capacity
        self.encoded = 0
        self._kept: OrderedDict[str, Tensor] = OrderedDict()

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        distinct = list(dict.fromkeys(prompts))
        if self.trains_text:
            rows = torch.tensor([distinct.index(prompt) for prompt in prompts])
            return self._encode(distinct)[rows.to(self.model.device, non_blocking=True)]
        encodings = {prompt: self._keep(prompt) for prompt in distinct}
        longest = max(len(states) for states in encodings.values())
        states = torch.stack([self._lengthen(encodings[prompt], longest) for prompt in prompts])
        while len(self._kept) > self.capacity:
            self._kept.popitem(last=False)
        return states

    def _keep(self, prompt: str) -> Tensor:
        if prompt not in self._kept:
            with torch.no_grad():
                self._kept[prompt] = self._encode([prompt])[0]
        self._kept.move_to_end(prompt)
        return self._kept[prompt]

    def _lengthen(self, states: Tensor, length: int) -> Tensor:
        """``states`` with encodings of empty chunks behind them, as a batch with a longer prompt gives them."""
        if len(states) == length:
            return states
        empty = self._keep("")
        return torch.cat([states, *[empty] * ((length - len(states)) // len(empty))])

    def _encode(self, prompts: list[str]) -> Tensor:
        self.encoded += len(prompts)
        return self.model.encode_prompts(prompts, clip_skip=self.clip_skip)
