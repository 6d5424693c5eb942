"""Files that are given as a model and are none: one sentence each says what they are."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from tests.checkpoints import Checkpoints, renamed, without
from tincture.adapters.embedding import Embedding
from tincture.adapters.hypernetwork import Hypernetwork
from tincture.errors import ModelError
from tincture.models.loading.load import load_model

UNET = "model.diffusion_model."
FIRST = f"{UNET}input_blocks.0.0.weight"
CONTEXT = f"{UNET}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
SIZES = f"{UNET}label_emb.0.0.weight"


def zeros(*size: int) -> Tensor:
    return torch.zeros(*size)


OTHERS: dict[str, tuple[dict[str, Tensor], str]] = {
    "Stable Diffusion 3": ({f"{UNET}joint_blocks.0.x_block.attn.qkv.weight": zeros(1)}, "a Stable Diffusion 3 model"),
    "Flux": ({"double_blocks.0.img_attn.norm.key_norm.scale": zeros(1)}, "a Flux model"),
    "Flux in a checkpoint": ({f"{UNET}double_blocks.0.img_attn.norm.key_norm.scale": zeros(1)}, "a Flux model"),
    "Flux 2": (
        {f"{UNET}single_stream_modulation.lin.weight": zeros(1), f"{UNET}double_blocks.0.a.weight": zeros(1)},
        "a Flux 2 model",
    ),
    "Chroma": (
        {f"{UNET}distilled_guidance_layer.in_proj.bias": zeros(1), f"{UNET}double_blocks.0.a": zeros(1)},
        "a Chroma model",
    ),
    "HunyuanVideo": (
        {
            "txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1.bias": zeros(1),
            "double_blocks.0.img_attn_qkv.weight": zeros(1),
        },
        "a HunyuanVideo model",
    ),
    "AuraFlow": ({"model.double_layers.0.attn.w1q.weight": zeros(1)}, "an AuraFlow model"),
    "Lumina": ({f"{UNET}cap_embedder.0.weight": zeros(1)}, "a Lumina or Z-Image model"),
    "Cascade C": ({f"{UNET}clip_txt_mapper.weight": zeros(1)}, "a Stable Cascade model"),
    "Cascade B": ({"down_blocks.1.0.channelwise.0.weight": zeros(1)}, "a Stable Cascade model"),
    "Hunyuan-DiT": ({f"{UNET}mlp_t5.0.weight": zeros(1)}, "a Hunyuan-DiT model"),
    "PixArt": ({"y_embedder.y_embedding": zeros(1)}, "a PixArt or Sana model"),
    "LTX": ({f"{UNET}patchify_proj.weight": zeros(1)}, "an LTX or PixArt model"),
    "Wan": ({f"{UNET}head.modulation": zeros(1)}, "a Wan model"),
    "Qwen-Image": ({f"{UNET}txt_norm.weight": zeros(1)}, "a Qwen-Image model"),
    "the refiner": (
        {FIRST: zeros(8, 4, 3, 3), SIZES: zeros(8, 2560), CONTEXT: zeros(8, 1280)},
        "the refiner of Stable Diffusion XL",
    ),
    "unCLIP": (
        {FIRST: zeros(8, 4, 3, 3), SIZES: zeros(8, 2048), CONTEXT: zeros(8, 1024)},
        "a Stable Diffusion 2 unCLIP model",
    ),
    "depth": ({FIRST: zeros(8, 5, 3, 3), CONTEXT: zeros(8, 1024)}, "a Stable Diffusion 2 depth model"),
    "upscaler": ({FIRST: zeros(8, 7, 3, 3), f"{UNET}label_emb.weight": zeros(9, 8)}, "an upscaler"),
    "pix2pix": ({FIRST: zeros(8, 8, 3, 3), CONTEXT: zeros(8, 768)}, "an InstructPix2Pix model"),
    "other channels": ({FIRST: zeros(8, 6, 3, 3)}, "a model whose U-Net takes 6 channels"),
    "Playground": ({FIRST: zeros(8, 4, 3, 3), "edm_mean": zeros(4)}, "a Playground 2.5 model"),
    "CosXL": ({FIRST: zeros(8, 4, 3, 3), "edm_vpred.sigma_max": zeros(1)}, r"a CosXL model \(EDM\)"),
    "video": (
        {FIRST: zeros(8, 8, 3, 3), f"{UNET}input_blocks.1.0.time_stack.in_layers.0.weight": zeros(1)},
        "a model of videos",
    ),
    "scaled float8": (
        {FIRST: zeros(8, 4, 3, 3), f"{UNET}time_embed.0.scale_weight": zeros(1)},
        "a checkpoint whose float8 weights have scales",
    ),
    "ControlNet": ({"control_model.time_embed.0.weight": zeros(1)}, "a ControlNet"),
    "ControlNet with its model": ({FIRST: zeros(8, 4, 3, 3), "control_model.x": zeros(1)}, "a ControlNet"),
    "IP-Adapter": ({"image_proj.norm.weight": zeros(1)}, "an IP-Adapter"),
    "AnimateDiff": ({"down_blocks.0.motion_modules.0.temporal_transformer.norm.weight": zeros(1)}, "a motion module"),
    "ESRGAN": ({"model.1.sub.0.RDB1.conv1.0.weight": zeros(1)}, "a model that enlarges pictures"),
    "kohya's LoRA": ({"lora_unet_mid_block.lora_down.weight": zeros(1, 2)}, "a LoRA"),
    "diffusers' LoRA": ({"unet.mid_block.attentions.0.to_k.lora_A.weight": zeros(1, 2)}, "a LoRA"),
    "LoHa": ({"lora_unet_mid_block.hada_w1_a": zeros(1, 2)}, r"a LyCORIS \(LoHa\), a kind of LoRA"),
    "LoKr": ({"lycoris_mid_block.lokr_w1": zeros(1, 2)}, r"a LyCORIS \(LoKr\), a kind of LoRA"),
    "T2I-Adapter": ({"adapter.body.0.resnets.0.block1.weight": zeros(1)}, "a T2I-Adapter"),
    "a tiny VAE": ({"decoder.layers.0.weight": zeros(1, 1, 1, 1)}, r"a tiny VAE \(TAESD\)"),
    "SwinIR": ({"layers.0.residual_group.blocks.0.norm1.weight": zeros(1)}, "a model that enlarges pictures"),
    "a U-Net alone": ({"input_blocks.0.0.weight": zeros(8, 4, 3, 3)}, "a U-Net alone, without text encoder"),
    "diffusers' U-Net": ({"down_blocks.0.resnets.0.conv1.weight": zeros(1)}, "a U-Net alone, as diffusers names it"),
    "diffusers' VAE": ({"encoder.down_blocks.0.resnets.0.conv1.weight": zeros(1)}, "a VAE"),
    "a VAE's decoder": ({"decoder.conv_in.weight": zeros(1)}, "a VAE without its encoder"),
    "a text encoder": (
        {
            "text_model.embeddings.position_embedding.weight": zeros(77, 8),
            "text_model.embeddings.token_embedding.weight": zeros(9, 8),
        },
        "a text encoder alone",
    ),
    "SDXL embedding": ({"clip_l": zeros(2, 768), "clip_g": zeros(2, 1280)}, "an embedding"),
    "unknown": ({"blocks.0.weight": zeros(3), "blocks.1.weight": zeros(3)}, "no checkpoint that is known"),
}


def refused(path: Path, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load_model(str(path))
    text = str(caught.value)
    assert str(path) in text and "\n" not in text and text.endswith(".")


@pytest.mark.parametrize("case", OTHERS)
def test_other_models_are_named(case: str, tmp_path: Path) -> None:
    tensors, words = OTHERS[case]
    save_file({name: value.half() for name, value in tensors.items()}, tmp_path / "model.safetensors")

    refused(tmp_path / "model.safetensors", f" is {words}.*; Stable Diffusion 1, 2 and XL checkpoints can be used")


def embedding(path: Path) -> None:
    Embedding("cat", {"clip_l": torch.ones(2, 768)}).save(path)


def hypernetwork(path: Path) -> None:
    Hypernetwork("ink", (768,), [1, 1]).save(path)


class Call:
    def __reduce__(self) -> Any:
        return print, ("pwned",)


Write = Callable[[Path], object]
FILES: dict[str, tuple[str, Write, str]] = {
    "embedding .pt": ("cat.pt", embedding, "is an embedding; Stable Diffusion 1, 2 and XL checkpoints"),
    "embedding .safetensors": ("cat.safetensors", embedding, "is an embedding; Stable Diffusion 1, 2"),
    "hypernetwork .pt": ("ink.pt", hypernetwork, "is a hypernetwork; Stable Diffusion 1, 2"),
    "hypernetwork .safetensors": ("ink.safetensors", hypernetwork, "is a hypernetwork; Stable Diffusion 1, 2"),
    "empty": ("a.safetensors", lambda path: path.touch(), r"is empty \(0 bytes\)"),
    "text": ("a.ckpt", lambda path: path.write_text("not found, and more"), "cannot be read as a torch"),
    "a web page": (
        "a.ckpt",
        lambda path: path.write_text("<!doctype html> not found"),
        "is a web page, as failed down",
    ),
    "a pointer": (
        "a.safetensors",
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4265380512\n"),
        "is a pointer of Git LFS, which stands for a file; download the file itself",
    ),
    "a picture": (
        "a.png",
        lambda path: Image.new("RGB", (9, 9)).save(path),
        "is a PNG picture; give a .safe",
    ),
    "an embedding in a picture": ("cat.png", embedding, "is an embedding; Stable Diffusion 1, 2 and XL checkpoints"),
    "a huge header": (
        "a.safetensors",
        lambda path: path.write_bytes(struct.pack("<Q", 99_000_000) + b"{" + b" " * 99),
        "claims a header of 99000000 bytes",
    ),
    "code": (
        "a.ckpt",
        lambda path: torch.save({"state_dict": {FIRST: torch.zeros(8, 4, 3, 3)}, "x": Call()}, path),
        "is not loaded: it holds the Python object .*print, which could run code",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_are_no_models_are_refused(case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    name, write, message = FILES[case]
    write(tmp_path / name)

    refused(tmp_path / name, message)
    assert capfd.readouterr().out == ""


Edit = Callable[[dict[str, Tensor]], dict[str, Tensor]]
CLIP = "cond_stage_model.transformer.text_model."
INCOMPLETE: dict[str, tuple[str, Edit, str]] = {
    "no text encoder": ("sd1", without("cond_stage_model."), "lacks a text encoder: Stable Diffusion 1 needs clip_l"),
    "one of two text encoders": (
        "sdxl",
        without("conditioner.embedders.1."),
        "Stable Diffusion XL needs clip_l and clip_g, and there is one of width 32; get the whole checkpoint",
    ),
    "neither text encoder nor VAE": (
        "sdxl",
        lambda state: {name: value for name, value in state.items() if name.startswith(UNET)},
        "lacks a text encoder: Stable Diffusion XL needs clip_l and clip_g, and there is none; get the whole",
    ),
    "no VAE": ("sdxl", without("first_stage_model."), "has no VAE; give the file of one for Stable Diffusion XL"),
    "a part of the VAE": ("sd1", without("first_stage_model.decoder.mid"), "The vae in .* lacks 26 weights"),
    "a layer of the U-Net": ("sd1", without(f"{UNET}middle_block.0.in_layers.2"), "The unet in .* lacks 2 weights"),
    "a block of the U-Net": ("sd1", without(f"{UNET}input_blocks.4."), "The unet in .*"),
    "the end of the U-Net": (
        "sdxl",
        without(f"{UNET}out."),
        "The unet in .* its weight out.2.weight is missing",
    ),
    "a layer of a text encoder": ("sd1", without(f"{CLIP}encoder.layers.1.mlp.fc1"), "The text_encoder in .* lacks 2"),
    "the norm of a text encoder": ("sd2", without("cond_stage_model.model.ln_final"), "The text_encoder in .* lacks 2"),
    "the projection": (
        "sdxl",
        without("conditioner.embedders.1.model.text_projection"),
        "The text_encoder_2 in .* lacks 1 weights, for example text_projection.weight",
    ),
    "names of the U-Net": ("sd1", renamed(f"{UNET}output_blocks.", f"{UNET}outputs."), "The unet in .* lacks"),
}


@pytest.mark.parametrize("case", INCOMPLETE)
def test_what_is_missing_is_named(case: str, checkpoints: Checkpoints, tmp_path: Path) -> None:
    kind, edit, message = INCOMPLETE[case]
    refused(checkpoints.edited(kind, tmp_path / "model.safetensors", edit), message)


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_truncated_checkpoint_is_refused(suffix: str, checkpoints: Checkpoints, tmp_path: Path) -> None:
    path = checkpoints.edited("sd1", tmp_path / f"model{suffix}", dict)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    refused(path, "truncated")


def test_parts_of_different_models_are_refused(checkpoints: Checkpoints, tmp_path: Path) -> None:
    def wider(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: torch.cat([value, value], 1) if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) else value
            for name, value in state.items()
        }

    path = checkpoints.edited("sd1", tmp_path / "model.safetensors", wider)

    refused(path, "the unet expects a text width of 64 and the text encoders of Stable Diffusion 1 give 32")
