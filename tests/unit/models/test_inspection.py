"""What inspect and doctor say of models' files, without loading them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoints import Checkpoints, adding, without
from tests.support import save_folder, tiny_model, tiny_sdxl
from tincture.adapters.embedding import Embedding
from tincture.adapters.files.inspection import inspect_file
from tincture.cli import main
from tincture.models.inspection import describe_model, inspect_model
from tincture.models.loading.sources import short_hash


def expected(kind: str) -> dict[str, Any]:
    family = "sdxl" if kind.startswith("sdxl") else kind[:3]
    return {
        "kind": "checkpoint",
        "format": family,
        "container": "safetensors",
        "inpainting": kind.endswith("inpainting"),
        "prediction_type": "v_prediction" if "-v" in kind else "epsilon",
        "prediction_told_by": "its metadata",
        "zero_terminal_snr": False,
        "text_encoders": {"sd1": {"clip_l": 32}, "sd2": {"clip_h": 32}, "sdxl": {"clip_l": 32, "clip_g": 48}}[family],
        "dtype": "float16",
        "notes": [],
    }


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sd2-v", "sdxl", "sd1-inpainting", "sdxl-inpainting"])
def test_a_checkpoint_of_every_family(kind: str, checkpoints: Checkpoints) -> None:
    path = checkpoints.path(kind)

    report = inspect_file(path)

    assert report.items() >= expected(kind).items()
    assert report["short_hash"] == short_hash(path) and report["bytes"] == path.stat().st_size
    assert report["parameters"] == sum(value.numel() for value in load_file(path).values() if value.ndim)
    assert "Tincture" in report["read_by"]
    assert json.loads(json.dumps(report)) == report


def test_a_ckpt_has_no_metadata(checkpoints: Checkpoints, tmp_path: Path) -> None:
    for kind, told_by in (("sd1", "usual for its family"), ("sd2", None)):
        report = inspect_file(checkpoints.edited(kind, tmp_path / f"{kind}.ckpt", dict))
        assert (report["container"], report["prediction_told_by"]) == ("torch", told_by)
    assert report["notes"] == ["It does not say what it predicts; a trial of its U-Net tells when it is loaded."]


def test_what_is_odd_about_a_checkpoint(checkpoints: Checkpoints, tmp_path: Path) -> None:
    marked = adding(v_pred=torch.tensor([]), ztsnr=torch.tensor([]))
    zero = inspect_file(checkpoints.edited("sdxl", tmp_path / "a.safetensors", marked))
    assert (zero["prediction_type"], zero["zero_terminal_snr"]) == ("v_prediction", True)
    bare = inspect_file(checkpoints.edited("sd1", tmp_path / "b.safetensors", without("first_stage_model.")))
    assert bare["notes"] == ["It has no VAE; give the file of one by --vae."] and bare["read_by"] == []
    bare = inspect_file(checkpoints.edited("sd1", tmp_path / "c.safetensors", without("cond_stage_model.")))
    assert bare["notes"] == ["It has no text encoder; get the whole checkpoint."]


def test_a_vae(checkpoints: Checkpoints, tmp_path: Path) -> None:
    state = load_file(checkpoints.path("sd1"))
    vae = {name: value for name, value in state.items() if name.startswith("first_stage_model.")}
    save_file(vae, tmp_path / "a.safetensors")
    save_file(
        {**vae, "first_stage_model.decoder.conv_in.weight": torch.zeros(32, 16, 3, 3)}, tmp_path / "b.safetensors"
    )
    save_folder(tiny_model(), tmp_path / "model")

    good, other = (inspect_file(tmp_path / name) for name in ("a.safetensors", "b.safetensors"))
    named = inspect_file(tmp_path / "model/vae/diffusion_pytorch_model.safetensors")

    assert (good["kind"], good["format"], good["latent_channels"], good["notes"]) == ("vae", "original", 4, [])
    assert other["notes"] == ["Stable Diffusion 1, 2 and XL need a VAE of 4 latent channels."]
    assert (named["kind"], named["format"], named["latent_channels"]) == ("vae", "diffusers", 4)


def test_a_vae_without_its_encoder(checkpoints: Checkpoints, tmp_path: Path) -> None:
    state = load_file(checkpoints.path("sd1"))
    encoder = ("first_stage_model.encoder.", "first_stage_model.quant_conv.")
    whole = {name: value for name, value in state.items() if not name.startswith(encoder)}
    save_file({name: value for name, value in whole.items() if name.startswith("first_")}, tmp_path / "vae.safetensors")
    save_file(whole, tmp_path / "model.safetensors")

    vae, model = (inspect_file(tmp_path / name) for name in ("vae.safetensors", "model.safetensors"))

    assert (vae["kind"], vae["format"], vae["read_by"]) == ("vae", "original", [])
    assert vae["notes"] == ["It has only its decoder: without the encoder no picture can be encoded for training."]
    assert model["notes"] == ["It has no encoder of the VAE; give the file of a whole VAE by --vae."]


def test_models_of_other_families(tmp_path: Path) -> None:
    save_file({"double_blocks.0.img_attn.norm.key_norm.scale": torch.zeros(1)}, tmp_path / "a.safetensors")

    report = inspect_file(tmp_path / "a.safetensors")

    assert (report["kind"], report["format"], report["read_by"]) == ("model", "Flux model", [])
    assert report["notes"] == ["It is a Flux model, which Tincture cannot use."]


def test_files_of_adapters_are_none_of_models(tmp_path: Path) -> None:
    for suffix in (".pt", ".safetensors", ".png"):
        Embedding("cat", {"clip_l": torch.ones(2, 768)}).save(tmp_path / f"cat{suffix}")
        assert inspect_model(tmp_path / f"cat{suffix}") is None
        assert inspect_file(tmp_path / f"cat{suffix}")["kind"] == "embedding"
    save_file({"lora_unet_a.lora_down.weight": torch.zeros(1, 2)}, tmp_path / "lora.safetensors")
    assert inspect_model(tmp_path / "lora.safetensors") is None


def test_models_in_a_few_words(checkpoints: Checkpoints, tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_text("hello")
    save_file({"joint_blocks.0.x": torch.zeros(1)}, tmp_path / "b.safetensors")
    save_folder(tiny_sdxl(), tmp_path / "xl")

    assert describe_model(checkpoints.path("sd1-inpainting")) == "Stable Diffusion 1 for inpainting"
    assert describe_model(checkpoints.path("sd2-v")) == "Stable Diffusion 2, predicts v"
    assert describe_model(tmp_path / "xl") == "Stable Diffusion XL, a diffusers folder"
    assert describe_model(tmp_path / "b.safetensors") == "cannot be used: it is a Stable Diffusion 3 model"
    assert describe_model(tmp_path / "a.ckpt").startswith("cannot be used: ")
    assert describe_model(tmp_path).startswith("cannot be used: The model folder")


def test_the_command_shows_a_checkpoint(checkpoints: Checkpoints, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(checkpoints.path("sdxl"))]) == 0

    shown = capsys.readouterr().out
    for line in (
        "kind                checkpoint",
        "family              Stable Diffusion XL",
        "prediction type     epsilon",
    ):
        assert line in shown
