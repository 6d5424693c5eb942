"""A newcomer's way with a checkpoint of every family: create, train, preview, stop, resume, generate."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tools.make_checkpoint import FAMILY_KINDS, KINDS

from tests.checkpoints import Checkpoints
from tests.runs import OnStep, write_pictures
from tincture import recipe
from tincture.adapters.embedding import Embedding
from tincture.adapters.hypernetwork import Hypernetwork
from tincture.drawing.generation import generate_pictures
from tincture.errors import ModelError
from tincture.models.stable_diffusion import StableDiffusion
from tincture.settings.drawing import Drawing
from tincture.settings.train import TrainSettings
from tincture.workspace import Workspace

WIDTHS = {"sd1": {"clip_l"}, "sd2": {"clip_h"}, "sdxl": {"clip_l", "clip_g"}}


def create(kind: str, workspace: Workspace, model: Path) -> Path:
    if kind == "embedding":
        return recipe.create_embedding("zork", workspace=workspace, model=str(model), num_vectors=2, init_text="moon")
    return recipe.create_hypernetwork("ink", workspace=workspace, model=str(model))


def settings(kind: str, model: Path, data: Path, **changes: Any) -> TrainSettings:
    return TrainSettings(
        kind=kind,  # type: ignore[arg-type]
        name="zork" if kind == "embedding" else "ink",
        model=str(model),
        data=str(data),
        width=64,
        height=64,
        learning_rate="0.01",
        template="subject" if kind == "embedding" else "hypernetwork",
        device="cpu",
        **{"steps": 2, "preview_every": 0, "save_every": 0, "batch_size": 2, **changes},
    )


def grid() -> Iterator[Any]:
    """Every checkpoint with every kind; half of them, with each family and each kind, are quick enough for always."""
    for row, checkpoint in enumerate(KINDS):
        for column, kind in enumerate(("embedding", "hypernetwork")):
            always = (row + row // len(FAMILY_KINDS) + column) % 2 == 0
            yield pytest.param(checkpoint, kind, marks=() if always else pytest.mark.slow)


def drawn(prompt: str, workspace: Workspace, model: Path) -> bytes:
    """The pixels of a picture of 64 × 64."""
    drawing = Drawing(steps=2, width=64, height=64, guidance_scale=1.0)
    (path,) = generate_pictures(
        [prompt],
        workspace=workspace,
        out=workspace.root / "out",
        seeds=[1],
        model=str(model),
        device="cpu",
        drawing=drawing,
    )
    picture = Image.open(path)
    assert picture.size == (64, 64)
    return picture.tobytes()


@pytest.mark.parametrize(("checkpoint", "kind"), [*grid()])
def test_both_adapters_are_trained_and_used(
    checkpoint: str, kind: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    model, workspace, empty = checkpoints.path(checkpoint), Workspace(tmp_path), Workspace(tmp_path / "empty")
    empty.root.mkdir()
    data = write_pictures(tmp_path / "pictures", side=80)
    path = create(kind, workspace, model)
    # without the file the name is text like any other, and a tag for a hypernetwork would be refused
    prompt, without = ("a zork", "a zork") if kind == "embedding" else ("a moon <hypernet:ink:1.0>", "a moon")
    before, new = path.read_bytes(), drawn(prompt, workspace, model)

    result = recipe.train(
        settings(kind, model, data, preview_every=2, preview_steps=1, preview_prompts=("a zork",)), workspace
    )

    assert result.global_step == 2 and np.isfinite(result.loss)
    assert path.read_bytes() != before
    assert [picture.name for picture in sorted((result.run_dir / "images").glob("*-2-0.png"))]
    trained = Embedding.load(path) if kind == "embedding" else Hypernetwork.load(path)
    assert trained.step == 2
    if isinstance(trained, Embedding):
        assert set(trained.vectors) == WIDTHS[checkpoint.split("-")[0]]
    used, unused = drawn(prompt, workspace, model), drawn(without, empty, model)
    assert len({used, new, unused}) == 3
    if kind == "hypernetwork":
        assert drawn(without, workspace, model) == unused


@pytest.mark.parametrize("kind", ["embedding", "hypernetwork"])
def test_an_xl_run_that_was_stopped_goes_on_bit_for_bit(kind: str, checkpoints: Checkpoints, tmp_path: Path) -> None:
    model = checkpoints.path("sdxl")
    data = write_pictures(tmp_path / "pictures", side=80)
    trained = []
    for name in ("whole", "stopped"):
        workspace = Workspace(tmp_path / name)
        workspace.root.mkdir()
        path = create(kind, workspace, model)
        if name == "whole":
            recipe.train(settings(kind, model, data, steps=4, save_every=2), workspace)
        else:
            stop = threading.Event()
            first = recipe.train(settings(kind, model, data, steps=4), workspace, [OnStep(2, stop.set)], stop)
            assert first.interrupted
            recipe.resume(first.run_dir)
        loaded = Embedding.load(path) if kind == "embedding" else Hypernetwork.load(path)
        trained.append(loaded.state_dict())
    assert trained[0].keys() == trained[1].keys()
    assert all(torch.equal(value, trained[1][key]) for key, value in trained[0].items())


def test_an_embedding_of_another_family_is_refused_by_name_and_width(checkpoints: Checkpoints, tmp_path: Path) -> None:
    workspace, data = Workspace(tmp_path), write_pictures(tmp_path / "pictures", side=80)
    create("embedding", workspace, checkpoints.path("sdxl"))
    with pytest.raises(ModelError, match=r"'zork' .*clip_l 32, clip_g 48.* clip_l 32 \(Stable Diffusion 1\)"):
        recipe.train(settings("embedding", checkpoints.path("sd1"), data), workspace)


@pytest.mark.filterwarnings("ignore:Of a picture")
def test_an_xl_model_is_told_the_size_and_the_crop_of_each_picture(
    checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(height, width) of the picture, (top, left) of the crop, (height, width) as trained: Podell et al. 2023."""
    workspace, data, told = Workspace(tmp_path), tmp_path / "pictures", list[list[float]]()
    data.mkdir()
    Image.new("RGB", (256, 128), "red").save(data / "wide.png")
    create("hypernetwork", workspace, checkpoints.path("sdxl"))
    predict = StableDiffusion.predict_noise

    def recorded(self: StableDiffusion, *args: Any) -> torch.Tensor:
        told.extend(args[3].tolist())
        return predict(self, *args)

    monkeypatch.setattr(StableDiffusion, "predict_noise", recorded)
    recipe.train(
        settings("hypernetwork", checkpoints.path("sdxl"), data, steps=1, batch_size=1, resize="crop"), workspace
    )

    assert told == [[128, 256, 0, 32, 64, 64]]
