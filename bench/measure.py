"""Training steps per second of ``recipe.train``, with the floors in between, and how often things are encoded."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import torch
from bench.floor import Floors, Step, gflop
from bench.material import NAME, create_adapter
from bench.peers import Peers, Ready
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

from tincture import recipe
from tincture.events import Callback, Event, StepEnd
from tincture.models.allocation import usual_memory
from tincture.models.devices import PRECISIONS
from tincture.models.loading.load import load_model
from tincture.models.stable_diffusion import StableDiffusion
from tincture.settings.train import TrainSettings
from tincture.training.conditioning import Conditioning
from tincture.workspace import Workspace

Kind = Literal["embedding", "hypernetwork"]


@dataclasses.dataclass(frozen=True)
class Case:
    """One thing to measure. ``size``: side of the pictures in pixels; ``steps``: in a round; ``warmup``: before."""

    model: str
    kind: Kind
    size: int
    batch_size: int
    rounds: int
    steps: int
    warmup: int
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    device: str = "cpu"
    gradient_checkpointing: bool = False

    def settings(self, workspace: Workspace, steps: int) -> TrainSettings:
        """What a user would give: nothing is saved or previewed in between."""
        return TrainSettings(
            kind=self.kind,
            name=NAME,
            model=self.model,
            data=str(workspace.root / "data"),
            width=self.size,
            height=self.size,
            template=f"{self.kind}-bench",
            steps=steps,
            batch_size=self.batch_size,
            precision=self.precision,
            device=self.device,
            gradient_checkpointing=self.gradient_checkpointing,
            save_every=0,
            preview_every=0,
        )

    def load(self, workspace: Workspace) -> StableDiffusion:
        """The model as ``recipe.train`` loads it, for the floors."""
        dtype = PRECISIONS[self.precision]
        model = load_model(self.model, workspace=workspace, device=self.device, dtype=dtype)
        if self.gradient_checkpointing:
            model.enable_gradient_checkpointing()
        return model


class Rounds:
    """A callback of a run that times its steps, and after every so many of them those of floors and peers.

    They all take turns within seconds, and what changes on the machine meanwhile meets them alike. Of each turn the
    first step does not count: it finds caches and memory as another left them. Freed memory is kept for the product
    only, as it is by itself.

    Args:
        others: what else is timed, by name.

    Attributes:
        results: by round and name (``product`` and the others'), steps per second.
    """

    def __init__(self, case: Case, others: Mapping[str, Ready]) -> None:
        self.case, self.others = case, others
        self.results: list[dict[str, float]] = []
        self._started = 0.0

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return self.case.warmup + self.case.rounds * (self.case.steps + 1)

    def on_event(self, event: Event) -> None:
        if not isinstance(event, StepEnd) or event.global_step <= self.case.warmup:
            return
        turn = (event.global_step - self.case.warmup) % (self.case.steps + 1)
        if turn == 1:
            self._started = self._now()
        if turn == 0:
            rates = {"product": self.case.steps / (self._now() - self._started)}
            with usual_memory():
                rates.update({name: self._rate(ready) for name, ready in self.others.items()})
            self.results.append(rates)

    def _rate(self, ready: Ready) -> float:
        with ready() as step, torch.enable_grad():
            step()
            started = self._now()
            for _ in range(self.case.steps):
                step()
            return self.case.steps / (self._now() - started)

    def _now(self) -> float:
        return now(self.case.device)


def now(device: str) -> float:
    """Seconds, once the device has done what it was told to."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def train(case: Case, workspace: Workspace, steps: int, callbacks: list[Callback]) -> None:
    """One run of ``steps`` from a new adapter, through the library's own entry."""
    create_adapter(workspace, case.kind, case.model)
    recipe.train(case.settings(workspace, steps), workspace, callbacks)


def measure_speed(case: Case, workspace: Workspace) -> dict[str, Any]:
    """Steps per second of the product, its floors and its peers, all rounds and their spread, and ratios by round."""
    model = case.load(workspace)
    floors = Floors(model, case.batch_size, case.size).of(case.kind)
    arithmetic = {name: gflop(floor) for name, floor in floors.items()}
    others: dict[str, Ready] = {name: _at_hand(floor) for name, floor in floors.items()}
    others |= Peers(model, case.batch_size, case.size).of(case.kind)
    rounds = Rounds(case, others)
    train(case, workspace, rounds.steps, [rounds])
    ratios = {f"product/{name}": spread([each["product"] / each[name] for each in rounds.results]) for name in others}
    return {
        **_described(case),
        "steps_per_second": {name: spread([rates[name] for rates in rounds.results]) for name in ("product", *others)},
        "ratio": ratios,
        "gflop_per_step": arithmetic,
        "all_rounds": rounds.results,
    }


def _at_hand(step: Step) -> Ready:
    return lambda: nullcontext(step)


def measure_attention(case: Case, workspace: Workspace) -> dict[str, Any]:
    """Steps per second of the bare floor with diffusers' two attention processors, in turn."""
    model = case.load(workspace)
    step = Floors(model, case.batch_size, case.size).of(case.kind)["floor"]
    processors: dict[str, Callable[[], Any]] = {
        "AttnProcessor2_0": AttnProcessor2_0,
        "AttnProcessor": AttnProcessor,
    }
    results: list[dict[str, float]] = []
    for number in range(case.rounds + 1):
        rates = {}
        for name, processor in processors.items():
            model.unet.set_attn_processor(processor())
            started = now(case.device)
            for _ in range(case.steps if number else 1):
                step()
            rates[name] = case.steps / (now(case.device) - started)
        # The round before the first is for warming up.
        if number:
            results.append(rates)
    ratio = spread([rates["AttnProcessor"] / rates["AttnProcessor2_0"] for rates in results])
    rates_by_name = {name: spread([rates[name] for rates in results]) for name in processors}
    return {
        **_described(case),
        "steps_per_second": rates_by_name,
        "ratio": {"AttnProcessor/AttnProcessor2_0": ratio},
        "all_rounds": results,
    }


def count_encodings(case: Case, workspace: Workspace, epochs: int = 2) -> dict[str, Any]:
    """How often the VAE encodes a picture, and the text encoder a distinct prompt, in a run of some epochs."""
    pictures, prompts, met = 0, 0, set[str]()
    encode_pictures, encode_prompts = StableDiffusion.encode_pictures, StableDiffusion.encode_prompts
    ask = Conditioning.__call__

    def count_pictures(self: StableDiffusion, pixels: torch.Tensor) -> Any:
        nonlocal pictures
        pictures += len(pixels)
        return encode_pictures(self, pixels)

    def count_prompts(self: StableDiffusion, texts: list[str], *args: Any, **kwargs: Any) -> Any:
        nonlocal prompts
        prompts += len(texts)
        return encode_prompts(self, texts, *args, **kwargs)

    def note(self: Conditioning, texts: list[str], *args: Any) -> Any:
        met.update(texts)
        return ask(self, texts, *args)

    samples = len(list((workspace.root / "data").glob("*.png")))
    steps = epochs * -(-samples // case.batch_size)
    with (
        patch.object(StableDiffusion, "encode_pictures", count_pictures),
        patch.object(StableDiffusion, "encode_prompts", count_prompts),
        patch.object(Conditioning, "__call__", note),
    ):
        train(case, workspace, steps, [])
    return {
        **_described(case),
        "steps": steps,
        "pictures": samples,
        "encodings_per_picture": pictures / samples,
        "distinct_prompts": len(met),
        "encodings_per_prompt": prompts / len(met),
    }


def measure_memory(case: Case, workspace: Workspace, steps: int = 3) -> float:
    """Peak MiB on the CUDA device of a run of its own, with no floor beside it; loading and encoding are left out."""

    class Forget:
        def on_event(self, event: Event) -> None:
            if isinstance(event, StepEnd) and event.global_step == 1:
                torch.cuda.reset_peak_memory_stats()

    torch.cuda.empty_cache()
    train(case, workspace, steps, [Forget()])
    return torch.cuda.max_memory_allocated() / 2**20


def _described(case: Case) -> dict[str, Any]:
    # Where a model's folder lies on this machine is nobody's business.
    return {**dataclasses.asdict(case), "model": Path(case.model).name}
