"""Writes a checkpoint with random weights of a family's anatomy, in the original key layout.

    python tools/make_checkpoint.py sd1 tiny.safetensors
    python tools/make_checkpoint.py sdxl-inpainting tiny.ckpt
    python tools/make_checkpoint.py sdxl full.safetensors --full

Kinds: sd1, sd2 (predicts noise), sd2-v, sdxl, each also with -inpainting behind it. Without ``--full`` widths and
depths are shrunken to some megabytes, the structure stays. ``--full`` writes the published sizes, tensor after tensor,
for measuring speed and memory. Weights are in half precision. Equal arguments give equal files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors import safe_open
from torch import Tensor
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection

from tincture.formats.safetensors_file import modelspec
from tincture.models.families import FAMILIES

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # when run as a program
from tools.original_layout import original_state_dict

FAMILY_KINDS = {"sd1": ("sd1", "epsilon"), "sd2": ("sd2", "epsilon"), "sd2-v": ("sd2", "v_prediction")}
FAMILY_KINDS |= {"sdxl": ("sdxl", "epsilon")}
KINDS = (*FAMILY_KINDS, *(f"{kind}-inpainting" for kind in FAMILY_KINDS))
_CROSS, _PLAIN = "CrossAttn", ""
_SAFE_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("out", type=Path, help="a .safetensors or .ckpt file")
    parser.add_argument("--full", action="store_true", help="the published sizes, in half precision")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write_checkpoint(args.kind, args.out, full=args.full, seed=args.seed)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB", file=sys.stderr)
    return 0


def write_checkpoint(
    kind: str, path: Path, *, full: bool = False, seed: int = 0, dtype: torch.dtype = torch.float16
) -> None:
    """Writes a checkpoint of ``kind`` to ``path``; a .ckpt has its tensors under ``state_dict``, and no metadata."""
    shapes = shapes_of(kind, full)
    if path.suffix == ".ckpt":
        between = path.with_suffix(".partial")
        _write_safetensors(between, shapes, metadata_of(kind), seed, dtype)
        with safe_open(between, "pt") as file:
            torch.save({"global_step": 0, "state_dict": {name: file.get_tensor(name) for name in shapes}}, path)
        between.unlink()
    else:
        _write_safetensors(path, shapes, metadata_of(kind), seed, dtype)


def random_state(kind: str, seed: int = 0, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """The shrunken checkpoint's tensors by name."""
    return {name: random_tensor(name, shape, seed).to(dtype) for name, shape in shapes_of(kind).items()}


def metadata_of(kind: str) -> dict[str, str]:
    """What a safetensors file of ``kind`` says of itself."""
    family, prediction_type = FAMILY_KINDS[kind.removesuffix("-inpainting")]
    stated = "v" if prediction_type == "v_prediction" else "epsilon"
    architecture = FAMILIES[family].modelspec[prediction_type]
    return modelspec(architecture=architecture, implementation="sgm", title=kind, prediction_type=stated)


def shapes_of(kind: str, full: bool = False) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a checkpoint of ``kind``."""
    family, _ = FAMILY_KINDS[kind.removesuffix("-inpainting")]
    made = anatomy(family, full)
    channels = 9 if kind.endswith("-inpainting") else 4
    with torch.device("meta"):
        unet = UNet2DConditionModel(**made["unet"], in_channels=channels)
        vae = AutoencoderKL(**made["vae"])
        encoders = [
            (CLIPTextModelWithProjection if spec.projected else CLIPTextModel)(CLIPTextConfig(**config))
            for spec, config in zip(FAMILIES[family].text_encoders, made["text"], strict=True)
        ]
        state = original_state_dict(family, unet, vae, encoders)
    width = made["text"][-1]["hidden_size"]
    return {**{name: tuple(value.shape) for name, value in state.items()}, **_unused(family, width)}


def _unused(family: str, width: int) -> dict[str, tuple[int, ...]]:
    """What OpenCLIP's text encoder has in published checkpoints, and what no picture needs."""
    unused: dict[str, dict[str, tuple[int, ...]]] = {
        "sd1": {},
        "sd2": {"cond_stage_model.model.text_projection": (width, width), "cond_stage_model.model.logit_scale": ()},
        "sdxl": {"conditioner.embedders.1.model.logit_scale": ()},
    }
    return unused[family]


# --- anatomies --------------------------------------------------------------------------------------------------------


def anatomy(family: str, full: bool) -> dict[str, Any]:
    """Configurations: the published ones, or the same with less of everything."""
    texts = {
        "sd1": [_text(768, 12) if full else _text(32, 2)],
        "sd2": [_text(1024, 23, "gelu") if full else _text(32, 2, "gelu")],
        "sdxl": [
            _text(768, 12) if full else _text(32, 2),
            _text(1280, 32, "gelu") if full else _text(48, 3, "gelu"),
        ],
    }[family]
    return {
        "unet": _unet(family, full, sum(text["hidden_size"] for text in texts), texts[-1]["projection_dim"]),
        "vae": _vae(full),
        "text": texts,
    }


def _text(width: int, layers: int, activation: str = "quick_gelu") -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // 64),
        "projection_dim": width,
        "hidden_act": activation,
    }


def _unet(family: str, full: bool, context: int, pooled: int) -> dict[str, Any]:
    if family == "sdxl":
        channels = [320, 640, 1280] if full else [32, 32, 64]
        cross, depths = [_PLAIN, _CROSS, _CROSS], [1, 2, 10] if full else [1, 1, 2]
        time = 256 if full else 8
        told = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": time,
            "projection_class_embeddings_input_dim": 6 * time + pooled,
        }
    else:
        channels = [320, 640, 1280, 1280] if full else [32, 32, 64, 64]
        cross, depths, told = [_CROSS, _CROSS, _CROSS, _PLAIN], [1, 1, 1, 1], {}
    return {
        "block_out_channels": channels,
        "down_block_types": [f"{kind}DownBlock2D" for kind in cross],
        "up_block_types": [f"{kind}UpBlock2D" for kind in reversed(cross)],
        "transformer_layers_per_block": depths,
        "layers_per_block": 2,
        "cross_attention_dim": context,
        "attention_head_dim": 8 if family == "sd1" else [max(1, width // 64) for width in channels],
        "use_linear_projection": family != "sd1",
        **told,
    }


def _vae(full: bool) -> dict[str, Any]:
    return {
        "block_out_channels": [128, 256, 512, 512] if full else [32, 32, 32, 32],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
    }


# --- values -----------------------------------------------------------------------------------------------------------


def random_tensor(name: str, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Values such that signals keep about their size: float32, drawn for ``name`` and ``seed``."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    values = torch.randn(shape, generator=torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1))
    if "embedding" in name:
        return values * 0.02
    if len(shape) < 2:
        return values * 0.01 + (1 if name.endswith("weight") else 0)
    scale: float = values[0].numel() ** -0.5
    return values * scale


def _write_safetensors(
    path: Path, shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str], seed: int, dtype: torch.dtype
) -> None:
    """Tensor after tensor, so that no more than one is in memory."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + dtype.itemsize * int(torch.Size(shape).numel())
        header[name] = {"dtype": _SAFE_NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for part in _bytes(shapes, seed, dtype):
            file.write(part)


def _bytes(shapes: Mapping[str, tuple[int, ...]], seed: int, dtype: torch.dtype) -> Iterator[bytes]:
    for name, shape in shapes.items():
        tensor = random_tensor(name, shape, seed).to(dtype)
        yield tensor.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()


if __name__ == "__main__":
    raise SystemExit(main())
