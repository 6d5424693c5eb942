"""From prompts to conditions, each distinct prompt encoded once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch

from tincture.models.conditions import Conditions
from tincture.models.diffusion_model import DiffusionModel
from tincture.models.placement import TEXT_ENCODERS


class Conditioning:
    """Encodes the prompts of a micro-batch.

    Where the text side is not trained, an encoding is kept for as long as it may be used again; where it is, it is
    made anew in every step with gradients, though only once for prompts that are alike. Kept ones are encoded one by
    one: the last bits of an encoding depend on what shares its batch, and a resumed run finds other prompts missing.

    Args:
        trains_text: whether hidden states depend on what is trained.
        capacity: encodings to keep; with shuffled or dropped tags there may be very many prompts.
        known: prompts that are encoded when the first one is asked for, so that the text encoders may rest afterwards;
            they and the empty one must be within ``capacity``. For text that is not trained.

    Attributes:
        on_progress: is told how many of the known prompts are encoded, from 0 on, and how many there are.
    """

    def __init__(
        self,
        model: DiffusionModel,
        *,
        trains_text: bool,
        clip_skip: int = 1,
        capacity: int = 4096,
        known: Sequence[str] = (),
    ) -> None:
        self.model, self.trains_text, self.clip_skip, self.capacity = model, trains_text, clip_skip, capacity
        self.on_progress: Callable[[int, int], object] = lambda done, total: None
        self.encoded = 0
        self._known = list(known)
        self._encoded: OrderedDict[str, Conditions] = OrderedDict()

    def __call__(self, prompts: Sequence[str], beside: Sequence[str] = ()) -> Conditions:
        """What the denoiser is told of B prompts, which become equally long as the model has it.

        Args:
            beside: prompts that another process has of the same micro-batch, which count for the length.
        """
        distinct = list(dict.fromkeys(prompts))
        if self.trains_text:
            rows = torch.tensor([distinct.index(prompt) for prompt in prompts])
            at_least = max(self.model.text.lengths(beside)) if beside else 0
            return self._encode(distinct, at_least)[rows.to(self.model.device, non_blocking=True)]
        if self._known:
            self._encode_known()
        joined = [*prompts, *self._longest(beside)]
        encodings = {prompt: self._keep(prompt) for prompt in dict.fromkeys(joined)}
        conditions = self.model.text.join([encodings[prompt] for prompt in joined], lambda: self._keep(""))
        if beside:
            conditions = conditions[: len(prompts)]
        while len(self._encoded) > self.capacity:
            self._encoded.popitem(last=False)
        return conditions

    def _encode_known(self) -> None:
        with self.model.placement.acting(TEXT_ENCODERS, alone=True):
            known = ["", *self._known]
            self.on_progress(0, len(known))
            for done, prompt in enumerate(known, start=1):
                self._keep(prompt)
                self.on_progress(done, len(known))
        self._known.clear()

    def _keep(self, prompt: str) -> Conditions:
        if prompt not in self._encoded:
            with torch.no_grad():
                self._encoded[prompt] = self._encode([prompt])
        self._encoded.move_to_end(prompt)
        return self._encoded[prompt]

    def _longest(self, prompts: Sequence[str]) -> list[str]:
        """One of the longest of them, if there are any."""
        lengths = self.model.text.lengths(prompts) if prompts else []
        return [prompts[lengths.index(max(lengths))]] if lengths else []

    def _encode(self, prompts: list[str], at_least: int = 0) -> Conditions:
        self.encoded += len(prompts)
        return self.model.encode_prompts(prompts, clip_skip=self.clip_skip, at_least=at_least)
