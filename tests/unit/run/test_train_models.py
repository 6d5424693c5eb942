"""Runs on a checkpoint in one file: what is told of it, what the user overrules, and what a resume holds on to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.checkpoints import Checkpoints
from tests.runs import Bench, Recorder, make_bench, trained, write_pictures
from tincture import recipe
from tincture.errors import ModelError
from tincture.events import ModelLoaded
from tincture.models.loading.load import load_model

SIDES = {"width": 64, "height": 64, "steps": 3}


@pytest.fixture
def file_bench(checkpoints: Checkpoints, tmp_path: Path) -> Bench:
    """A workspace whose models folder has the checkpoint ``webui/anime.ckpt``, which says nothing of itself."""
    path = tmp_path / "workspace" / "models" / "Stable-diffusion" / "webui" / "anime.ckpt"
    path.parent.mkdir(parents=True)
    checkpoints.edited("sd1", path, dict)
    bench = make_bench(tmp_path / "workspace", load_model(str(path)), Path("anime"))
    write_pictures(bench.data, side=80)  # large enough for a U-Net of four levels
    return bench


def test_a_run_finds_its_checkpoint_by_name_and_tells_of_it(file_bench: Bench) -> None:
    recorder = Recorder()

    result = file_bench.train("embedding", callbacks=[recorder], **SIDES)

    (event,) = recorder.of(ModelLoaded)
    model = load_model(str(file_bench.workspace.find_model("anime")))
    assert event.description == f"anime [{model.hash}]: Stable Diffusion 1, predicts noise (usual for its family)"
    assert result.global_step == 3
    record = json.loads((result.run_dir / "run.json").read_text())
    assert (record["model_name"], record["model_hash"]) == ("anime", model.hash)
    assert record["settings"]["model"] == str(file_bench.workspace.find_model("anime").resolve())


def test_what_the_user_says_reaches_the_model(file_bench: Bench, checkpoints: Checkpoints) -> None:
    vae = file_bench.workspace.vaes / "soft.safetensors"
    vae.parent.mkdir(parents=True)
    shutil.copy(checkpoints.path("sd1-inpainting"), vae)
    wishes = {**SIDES, "vae": "soft", "prediction_type": "v_prediction", "zero_terminal_snr": True}

    with pytest.raises(ModelError, match="There is no VAE 'sift'"):
        file_bench.train("embedding", vae="sift", **SIDES)
    with pytest.raises(ModelError, match="lacks a text encoder: Stable Diffusion XL"):
        file_bench.train("embedding", family="sdxl", **SIDES)
    plan = recipe.plan(file_bench.settings("embedding", **wishes), file_bench.workspace)
    result = file_bench.train("embedding", **wishes)

    assert plan["model"]["predicts"] == "v with zero terminal SNR (as given)"
    assert (plan["model"]["family"], plan["model"]["inpainting"]) == ("Stable Diffusion 1", False)
    settings = json.loads((result.run_dir / "run.json").read_text())["settings"]
    assert (settings["vae"], settings["prediction_type"], settings["zero_terminal_snr"]) == (
        str(vae.resolve()),
        "v_prediction",
        True,
    )


def test_a_resume_holds_on_to_what_was_found_out(file_bench: Bench) -> None:
    config = file_bench.workspace.find_model("anime").with_suffix(".yaml")
    config.write_text("model:\n  params:\n    parameterization: v\n")
    whole = file_bench.train("hypernetwork", log_dir=str(file_bench.workspace.root / "a"), **SIDES)
    expected = trained(file_bench.path("hypernetwork"))
    shutil.copy(whole.run_dir / "start.pt", file_bench.path("hypernetwork"))
    stopped = file_bench.train("hypernetwork", stop_after=2, log_dir=str(file_bench.workspace.root / "b"), **SIDES)
    config.unlink()

    result = file_bench.resume(stopped.run_dir)

    assert (stopped.interrupted, result.global_step) == (True, 3)
    assert all(torch.equal(value, expected[key]) for key, value in trained(file_bench.path("hypernetwork")).items())
