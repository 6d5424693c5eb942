"""A third adapter in a file of its own: a trained constant, added to what the denoiser is told of the text."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from tincture.adapters.adapter import Adapter
from tincture.errors import FileFormatError, ModelError, UsageError
from tincture.formats.files import atomic_torch_save, safe_torch_load
from tincture.kinds.registry import AdapterKind, Option
from tincture.randomness import torch_generator


def _check(values: Mapping[str, Any]) -> Sequence[str]:
    skipped = values.get("clip_skip", 1)
    return () if skipped == 1 else (f"clip_skip is {skipped}, but a context offset is added to the last layer",)


CONTEXT_OFFSET = AdapterKind(
    name="context-offset",
    title="constant added to the text context",
    plural="context-offsets",
    folder="models/context-offsets",
    implementation=f"{__name__}:ContextOffset",
    losses="context_offset_loss.csv",
    learning_rate="1e-2",
    template="style_filewords",
    weight_decay=0.0,
    options=(
        Option(name="spread", default=0.0, help="Spread of the first numbers.", request_bounds={"ge": 0, "le": 10}),
        Option(name="range", default=(-1, 1), help="Least and most of them.", several=float, most=2),
        Option(name="seed", default=0, help="Seed of the first numbers."),
    ),
    tag="offset",
    check=_check,
)


class ContextOffset(Adapter):
    """One number for each channel of ``encoder_hidden_states``, the same for all tokens: (1, text_width) float32."""

    kind = CONTEXT_OFFSET.name
    trains_text = False

    def __init__(
        self,
        name: str,
        offset: Tensor,
        step: int = 0,
        model_name: str = "",
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.name, self.step, self.model_name = name, step, model_name
        self.provenance = dict(provenance or {})
        self.offset = nn.Parameter(offset.detach().to(torch.float32, copy=True))

    @classmethod
    def create(cls, name: str, model: Callable[[], Any], **options: Any) -> ContextOffset:
        spread, (least, most) = options.get("spread", 0.0), options.get("range", (-1, 1))
        if least >= most:
            raise UsageError(f"The range of a context offset is {least} to {most}; give the lesser one first.")
        drawn = torch.randn(1, model().text_width, generator=torch_generator(options.get("seed", 0)))
        return cls(name, (drawn * spread).clamp(least, most), model_name=model().name)

    @contextmanager
    def attach(self, model: Any, multiplier: float = 1.0) -> Iterator[None]:
        self.require_fit(model)
        self.to(model.device)

        def add(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            text = kwargs["encoder_hidden_states"]
            return args, {**kwargs, "encoder_hidden_states": text + multiplier * self.offset.to(text.dtype)}

        handle = model.denoiser.register_forward_pre_hook(add, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def require_fit(self, model: Any) -> None:
        if self.offset.shape[1] != model.text_width:
            raise ModelError(f"The context offset {self.name!r} is not for {model.called}.")

    def parameters(self) -> list[nn.Parameter]:
        return [self.offset]

    def train(self, mode: bool = True) -> Self:
        return self

    def to(self, device: torch.device | str) -> Self:
        self.offset.data = self.offset.data.to(device)
        return self

    def state_dict(self) -> dict[str, Tensor]:
        return {"offset": self.offset.detach()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.offset.copy_(state["offset"])

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        model_name: str = "",
        model_hash: str = "",
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        about = {"step": self.step, "model_name": model_name or self.model_name}
        about["provenance"] = dict(self.provenance if provenance is None else provenance)
        atomic_torch_save({"context_offset": self.offset.detach().cpu(), **about}, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        read = safe_torch_load(path)
        if not isinstance(read, dict) or "context_offset" not in read:
            raise FileFormatError(f"{os.fspath(path)} holds no context offset.")
        made = cls("", read["context_offset"], read["step"], read["model_name"])
        made.provenance = read["provenance"]
        return made
