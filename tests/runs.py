"""Small runs for tests: a workspace with both kinds of adapters, a few pictures, and the tiny model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tincture import recipe
from tincture.adapters.embedding import Embedding, create_embedding
from tincture.adapters.hypernetwork import Hypernetwork, create_hypernetwork
from tincture.events import Callback, Event, StepEnd
from tincture.formats.files import safe_torch_load
from tincture.models.stable_diffusion import StableDiffusion
from tincture.settings.train import TrainSettings
from tincture.training.checkpoint import list_states
from tincture.workspace import Workspace

NAMES = {"embedding": "cat", "hypernetwork": "ink"}
CAPTIONS = (
    "red, dotted moon, big",
    "blue, star",
    "green, plain heart, left, small",
    "white, ring, right",
    "black, square, top, dotted",
)

# All that can be random in a run: shuffled and dropped tags, latents, epochs that the batch does not divide.
RANDOM: dict[str, Any] = {
    "batch_size": 2,
    "gradient_accumulation_steps": 2,
    "shuffle_tags": True,
    "tag_drop_out": 0.3,
    "caption_drop_out": 0.2,
    "latent_sampling_method": "random",
    "template": "style_filewords",
}


def write_pictures(folder: Path, captions: Sequence[str] = CAPTIONS, side: int = 16) -> Path:
    """Pictures of noise, ``0.png`` and so on, with captions beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for index, caption in enumerate(captions):
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(caption)
    return folder


@dataclass
class Recorder:
    """Keeps every event."""

    events: list[Event] = field(default_factory=list)

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@dataclass(frozen=True)
class OnStep:
    """ModelProcess ``act`` after step ``global_step``."""

    global_step: int
    act: Callable[[], object]

    def on_event(self, event: Event) -> None:
        if isinstance(event, StepEnd) and event.global_step == self.global_step:
            self.act()


@dataclass(frozen=True)
class Bench:
    """A workspace to train in."""

    workspace: Workspace
    data: Path
    model: Path

    def path(self, kind: str) -> Path:
        return self.workspace.adapter_path(kind, NAMES[kind])

    def settings(self, kind: str, **changes: Any) -> TrainSettings:
        small = {"width": 16, "height": 16, "steps": 4, "preview_every": 0, "save_every": 0, "learning_rate": "1e-2"}
        own = {
            "kind": kind,
            "name": NAMES.get(kind, ""),
            "data": str(self.data),
            "model": str(self.model),
            "device": "cpu",
        }
        return TrainSettings.from_dict({**own, **small, **changes})

    def train(
        self, kind: str, *, stop_after: int = 0, callbacks: Sequence[Callback] = (), **changes: Any
    ) -> recipe.RunResult:
        stop = threading.Event()
        watchers = [OnStep(stop_after, stop.set), *callbacks]
        return recipe.train(self.settings(kind, **changes), self.workspace, watchers, stop)

    def resume(self, run_dir: Path, *, stop_after: int = 0, callbacks: Sequence[Callback] = ()) -> recipe.RunResult:
        stop = threading.Event()
        return recipe.resume(run_dir, callbacks=[OnStep(stop_after, stop.set), *callbacks], stop=stop)


def make_bench(root: Path, model: StableDiffusion, model_folder: Path, dropout: float = 0.3) -> Bench:
    """A workspace at ``root`` with the embedding ``cat`` and the hypernetwork ``ink``, and five pictures."""
    bench = Bench(Workspace(root), write_pictures(root / "pictures"), model_folder)
    create_embedding("cat", model, 2, "moon").save(bench.path("embedding"))
    network = create_hypernetwork(
        "ink", model.context_widths(), (1, 2, 1), "relu", add_layer_norm=True, dropout_structure=(0, dropout, 0)
    )
    network.save(bench.path("hypernetwork"))
    return bench


def trained(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of an adapter file."""
    loaded = Embedding.load(path) if "embeddings" in path.parts else Hypernetwork.load(path)
    return {key: value.clone() for key, value in loaded.state_dict().items()}


def equal(left: Any, right: Any) -> bool:
    """Whether two nested values are the same, tensors bit for bit."""
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(equal(one, other) for one, other in zip(left, right, strict=True))
    return bool(left == right)


def last_state(run_dir: Path) -> Any:
    """What the newest state file of a run holds, the optimizer's numbers among it."""
    return safe_torch_load(list_states(run_dir / "state")[0][1])


def csv_text(run_dir: Path) -> str:
    (path,) = (path for path in run_dir.glob("*_loss.csv") if path.name != "validation_loss.csv")
    return path.read_text()
