"""Checkpoints on the command line: by name and hash, and one sentence for what is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.checkpoints import Checkpoints, without
from tincture.cli import main
from tincture.models.loading.sources import short_hash
from tincture.workspace import Workspace

SMALL = ["--width", "64", "--height", "64", "--steps", "2", "--device", "cpu"]


@pytest.fixture
def workspace(checkpoints: Checkpoints, tmp_path: Path) -> Workspace:
    """One with the checkpoint ``anime/a.safetensors`` and the VAE ``soft``."""
    found = Workspace(tmp_path)
    for kind, path in (("sdxl", found.models / "anime" / "a.safetensors"), ("sdxl", found.vaes / "soft.safetensors")):
        path.parent.mkdir(parents=True)
        shutil.copy(checkpoints.path(kind), path)
    return found


def test_pictures_come_from_a_checkpoint_by_name_or_hash(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    model = workspace.models / "anime" / "a.safetensors"
    for name in ("a", f"a.safetensors [{short_hash(model)}]", short_hash(model)):
        words = ["generate", "a cat", "--model", name, "--vae", "soft", "--prediction-type", "v_prediction", *SMALL]
        assert main([*words, "--root", str(workspace.root), "--json"]) == 0
        (picture,) = json.loads(capsys.readouterr().out)["pictures"]
        text = Image.open(picture).text["parameters"]
        assert f"Model hash: {short_hash(model)}" in text and "Model: a" in text


def test_an_embedding_is_created_for_a_checkpoint(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["create", "embedding", "cat", "--model", "anime/a", "--root", str(workspace.root)]) == 0
    assert main(["inspect", str(workspace.embeddings / "cat.safetensors"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert report["widths"] == {"clip_l": 32, "clip_g": 48}


def test_what_is_no_model_gives_one_sentence(
    workspace: Workspace, checkpoints: Checkpoints, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file({"lora_unet_a.lora_down.weight": torch.zeros(1, 2)}, workspace.models / "lora.safetensors")
    bare = checkpoints.edited("sd1", workspace.models / "bare.safetensors", without("first_stage_model."))
    wrong = {
        ("--model", "lora"): "lora.safetensors is a LoRA; Stable Diffusion 1, 2 and XL checkpoints can be used.",
        ("--model", "bare"): "bare.safetensors has no VAE; give the file of one for Stable Diffusion 1 by --vae.",
        ("--model", str(bare), "--vae", "soft"): "is of Stable Diffusion XL; give a VAE for Stable Diffusion 1.",
        ("--model", "a", "--vae", "lora"): "lora.safetensors is a LoRA; give the file or folder of a VAE for",
        ("--model", "b"): "There is no model 'b'; give 'picto', the path of a .safetensors or .ckpt file",
        ("--model", "a", "--zero-terminal-snr"): "Zero terminal SNR was given for a model that predicts noise",
    }
    for words, message in wrong.items():
        code = main(["generate", "a cat", *words, *SMALL, "--root", str(workspace.root)])
        shown = capsys.readouterr().err.strip()
        assert code == (2 if "--zero-terminal-snr" in words else 1)
        assert shown.startswith("error: ") and message in shown and "\n" not in shown
