"""A tiny model goes into the original layout and comes back through diffusers' own converters."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    load_single_file_checkpoint,
)
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from tools import write_single_file

from tests.support import UNET, save_folder, tiny_model
from tincture.models.loading.load import load_model
from tincture.models.stable_diffusion import StableDiffusion


def assert_same(converted: dict[str, torch.Tensor], module: torch.nn.Module) -> None:
    expected = module.state_dict()
    assert converted.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(converted[key], value), key


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_diffusers_reads_back_every_tensor(suffix: str, shared_model: StableDiffusion, tmp_path: Path) -> None:
    path = tmp_path / f"tiny{suffix}"

    write_single_file.write_single_file(shared_model, path)

    state = load_single_file_checkpoint(str(path))
    assert_same(convert_ldm_unet_checkpoint(dict(state), shared_model.unet.config), shared_model.unet)
    assert_same(convert_ldm_vae_checkpoint(dict(state), shared_model.vae.config), shared_model.vae)
    text = convert_ldm_clip_checkpoint(dict(state))
    plain = {key.removeprefix("text_model."): value for key, value in text.items()}
    assert_same(plain, shared_model.text_encoders[0].module)
    assert all(key.startswith("text_model.") for key in text)


def test_stable_diffusion_1_layout_with_levels_that_have_no_attention() -> None:
    """Stable Diffusion 1 has attention in three of its four levels and two layers per level."""
    model = tiny_model()
    blocks = {
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    }
    model.unet = UNet2DConditionModel(**{**UNET, **blocks, "block_out_channels": (32, 32, 64), "layers_per_block": 2})

    state = write_single_file.state_of(model)

    assert_same(convert_ldm_unet_checkpoint(state, model.unet.config), model.unet)
    assert "model.diffusion_model.output_blocks.2.1.conv.weight" in state
    assert "model.diffusion_model.output_blocks.5.2.conv.weight" in state


def test_the_program_writes_a_folder_in_half_precision(
    shared_model: StableDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = save_folder(shared_model, tmp_path / "tiny"), tmp_path / "tiny.safetensors"
    monkeypatch.setattr(sys, "argv", ["write_single_file.py", str(folder), str(out), "--half"])

    assert write_single_file.main() == 0

    state = load_single_file_checkpoint(str(out))
    weight = state["model.diffusion_model.input_blocks.0.0.weight"]
    assert torch.equal(weight, shared_model.unet.conv_in.weight.half())


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_picto_in_half_precision_loads_again(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / f"small{suffix}"
    monkeypatch.setattr(sys, "argv", ["write_single_file.py", "picto", str(out), "--half"])

    assert write_single_file.main() == 0

    model, picto = load_model(str(out)), load_model("picto")
    for part in ("unet", "vae"):
        own = getattr(model, part).state_dict()
        assert all(
            torch.equal(value.half(), own[name].half()) for name, value in getattr(picto, part).state_dict().items()
        )
        assert getattr(model, part).config.norm_num_groups == getattr(picto, part).config.norm_num_groups
    assert torch.equal(model.text.tokenize(["a red moon"]), picto.text.tokenize(["a red moon"]))
    states = [m.encode_prompts(["a red moon"]).hidden_states for m in (model, picto)]
    assert torch.allclose(*states, atol=0.02)


def test_the_program_fails_with_a_sentence_for_a_missing_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["write_single_file.py", str(tmp_path / "none"), str(tmp_path / "a.ckpt")])

    assert write_single_file.main() == 1

    assert "There is no model" in capsys.readouterr().err
