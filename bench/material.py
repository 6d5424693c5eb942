"""What is measured on: a workspace with pictures and new adapters, and SD 1.5's anatomy with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from tools.make_checkpoint import write_checkpoint

from tincture import recipe
from tincture.models.picto import world
from tincture.workspace import Workspace

NAME = "glimmer"
TEMPLATES = {"embedding": "a picture of [name], [filewords]", "hypernetwork": "a picture of [filewords]"}
"""One line each, so that an epoch meets every prompt: what is cached is then in the cache once it is over."""


def make_workspace(root: Path, pictures: int) -> Workspace:
    """An empty workspace at ``root`` with ``pictures`` pictures of 64 x 64, no two captions alike, in ``data``."""
    workspace = Workspace(root)
    workspace.templates.mkdir(parents=True)
    for kind, line in TEMPLATES.items():
        (workspace.templates / f"{kind}-bench.txt").write_text(line + "\n", encoding="utf-8")
    data = root / "data"
    data.mkdir()
    scenes: dict[str, world.Scene] = {}
    rng = np.random.default_rng(0)
    while len(scenes) < pictures:
        scene = world.random_scene(rng)
        scenes.setdefault(scene.caption(), scene)
    for number, (caption, scene) in enumerate(scenes.items()):
        Image.fromarray(world.render(scene)).save(data / f"{number:02}.png")
        (data / f"{number:02}.txt").write_text(caption + "\n", encoding="utf-8")
    return workspace


def create_adapter(workspace: Workspace, kind: str, model: str) -> None:
    """A new adapter called NAME, as the demo makes them: 4 vectors, or a pair (1, 2, 1) with relu for every width."""
    if kind == "embedding":
        recipe.create_embedding(NAME, workspace=workspace, model=model, num_vectors=4, overwrite=True)
    else:
        recipe.create_hypernetwork(NAME, workspace=workspace, model=model, activation_func="relu", overwrite=True)


def write_random_sd15(path: Path) -> Path:
    """Writes a checkpoint of Stable Diffusion 1.5's anatomy with random weights, half precision, 2.1 GB."""
    write_checkpoint("sd1", path, full=True)
    return path
