"""Single-file checkpoints of every family with random weights, some megabytes each, for tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tools.make_checkpoint import metadata_of, write_checkpoint
from torch import Tensor

from tincture.models.stable_diffusion import StableDiffusion

Edit = Callable[[dict[str, Tensor]], dict[str, Tensor]]


class Checkpoints:
    """A folder of checkpoints, each made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, kind: str) -> Path:
        """The file of a ``kind`` of tools/make_checkpoint.py, which tests must not change."""
        path = self.folder / f"{kind}.safetensors"
        if not path.exists():
            write_checkpoint(kind, path)
        return path

    def edited(self, kind: str, path: Path, edit: Edit, metadata: Mapping[str, str] | None = None) -> Path:
        """Writes to ``path`` what ``edit`` makes of the tensors, with the kind's metadata or the given."""
        state = edit(load_file(self.path(kind)))
        if path.suffix == ".safetensors":
            own = {name: value.clone().contiguous() for name, value in state.items()}
            save_file(own, path, dict(metadata_of(kind) if metadata is None else metadata))
        else:
            torch.save({"state_dict": state}, path)
        return path


def write_head(path: Path) -> Path:
    """A file whose header is that of a checkpoint of Stable Diffusion 1, without any numbers behind it."""
    text = "cond_stage_model.transformer.text_model.embeddings"
    shapes = {
        "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3),
        f"{text}.position_embedding.weight": (77, 768),
        f"{text}.token_embedding.weight": (49408, 768),
    }
    entries = {name: {"dtype": "F16", "shape": shape, "data_offsets": (0, 0)} for name, shape in shapes.items()}
    header = json.dumps(entries).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return path


def renamed(old: str, new: str) -> Edit:
    """Puts ``new`` for ``old`` at the start of names."""

    def edit(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {new + name.removeprefix(old) if name.startswith(old) else name: value for name, value in state.items()}

    return edit


def without(prefix: str) -> Edit:
    """Leaves out the tensors whose names begin with ``prefix``."""
    return lambda state: {name: value for name, value in state.items() if not name.startswith(prefix)}


def adding(**tensors: Tensor) -> Edit:
    """Adds tensors."""
    return lambda state: {**state, **tensors}


def modules(model: StableDiffusion) -> dict[str, torch.nn.Module]:
    """The parts of ``model`` that have weights."""
    encoders = {encoder.spec.component: encoder.module for encoder in model.text_encoders}
    return {**encoders, "vae": model.vae, "unet": model.unet}
