"""The run files in examples/ are read, planned and trained with, on a tiny model instead of picto."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import save_folder
from tincture import recipe
from tincture.adapters.embedding import Embedding
from tincture.adapters.hypernetwork import Hypernetwork
from tincture.models.stable_diffusion import StableDiffusion
from tincture.run.demo import random_scenes, write_pictures
from tincture.settings.toml import read_toml
from tincture.settings.train import TrainSettings
from tincture.sweeps.sweep_faults import checked
from tincture.sweeps.sweep_file import normalized, read_sweep, sweep_name
from tincture.workspace import Workspace

FOLDER = Path(__file__).parents[1] / "examples"
SWEEP = FOLDER / "sweep.toml"
EXAMPLES = sorted(path for path in FOLDER.glob("*.toml") if path != SWEEP)


def test_there_is_an_example_of_each_kind() -> None:
    assert {read_toml(path)["kind"] for path in EXAMPLES} == {"embedding", "hypernetwork"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_trains(
    path: Path, shared_model: StableDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # an example's paths start from the current directory
    workspace = Workspace.open(tmp_path)
    save_folder(shared_model, workspace.models / "tiny")
    settings = TrainSettings.from_toml(path, {"model": "tiny", "device": "cpu", "preview_every": 0})
    scenes = random_scenes(12, 0, "examples")
    write_pictures(tmp_path / settings.data, scenes, [scene.caption() for scene in scenes])
    kind: type[Embedding | Hypernetwork] = Embedding
    if settings.kind == "embedding":
        created = recipe.create_embedding(settings.name, workspace=workspace, model="tiny", num_vectors=4)
    else:
        kind = Hypernetwork
        created = recipe.create_hypernetwork(settings.name, workspace=workspace, model="tiny", activation_func="relu")
    for other in settings.others:
        recipe.create(other.kind, other.name, workspace=workspace, model="tiny", activation_func="relu")
    before = kind.load(created).state_dict()

    plan = recipe.plan(settings, workspace)
    result = recipe.train(settings.replace(steps=2), workspace)

    assert plan["steps"] == settings.steps and plan["pictures"] == 12
    trained = kind.load(result.adapter_path)
    assert (result.adapter_path, trained.step) == (created, 2)
    assert any((trained.state_dict()[key] != value).any() for key, value in before.items())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_commands_in_its_comments_fit_the_example(path: Path) -> None:
    text, settings = path.read_text(encoding="utf-8"), TrainSettings.from_toml(path)
    for kind, name in settings.adapters:
        assert f"#   tincture create {kind} {name} " in text
    assert f"#   tincture train --config examples/{path.name}\n" in text


def test_the_example_of_a_sweep_can_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = normalized(read_sweep(SWEEP), sweep_name(str(SWEEP)))
    scenes = random_scenes(2, 0, "examples")
    write_pictures(tmp_path / given["run"]["data"], scenes, [scene.caption() for scene in scenes])
    _, trials, faults = checked(given, Workspace.open(tmp_path))
    assert not faults and len(trials) == 9
