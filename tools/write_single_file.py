"""Writes a model as one file in Stable Diffusion 1's original key layout, for tests of loaders and for other programs.

    python tools/write_single_file.py picto picto.safetensors
    python tools/write_single_file.py FOLDER model.ckpt --half

The layout is that of the original repository's state dict (CompVis/stable-diffusion): ``model.diffusion_model.*``
(U-Net), ``first_stage_model.*`` (VAE) and ``cond_stage_model.transformer.text_model.*`` (text encoder). A .ckpt is a
torch file with the tensors under ``state_dict``.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tincture.errors import TinctureError
from tincture.models.loading import load_model
from tincture.models.stable_diffusion import StableDiffusion

Rules = Iterable[tuple[str, str | Callable[[re.Match[str]], str]]]

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="picto, or a diffusers folder of Stable Diffusion 1's anatomy")
    parser.add_argument("out", type=Path, help="a .safetensors or .ckpt file")
    parser.add_argument("--half", action="store_true", help="write half precision")
    args = parser.parse_args()
    try:
        model = load_model(args.model)
    except TinctureError as error:
        print(error, file=sys.stderr)
        return 1
    write_single_file(model, args.out, torch.float16 if args.half else torch.float32)
    return 0


def write_single_file(model: StableDiffusion, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Writes ``model`` to ``path``, a .safetensors or .ckpt file, in ``dtype``."""
    state = {key: value.to("cpu", dtype).contiguous() for key, value in original_state_dict(model).items()}
    if path.suffix == ".safetensors":
        save_file(state, path)
    elif path.suffix == ".ckpt":
        torch.save({"global_step": 0, "state_dict": state}, path)
    else:
        raise ValueError(f"The file name {path.name} is not known; it must end in .safetensors or .ckpt.")


def original_state_dict(model: StableDiffusion) -> dict[str, Tensor]:
    """Every weight of ``model`` under its original name."""
    unet, vae = model.unet, model.vae
    return {
        **_renamed(unet.state_dict(), _unet_rules(unet), "model.diffusion_model."),
        **_as_convolutions(
            _renamed(vae.state_dict(), _vae_rules(len(vae.config.block_out_channels)), "first_stage_model.")
        ),
        # transformers 5.6 dropped the level text_model, which the original has.
        **_renamed(
            model.text_encoders[0].module.state_dict(),
            [(r"^(?!text_model\.)", "text_model.")],
            "cond_stage_model.transformer.",
        ),
    }


def _renamed(state: dict[str, Tensor], rules: Rules, prefix: str) -> dict[str, Tensor]:
    """``state`` with each key rewritten by all rules in turn, a rule being (regular expression, replacement)."""
    renamed = {}
    rules = list(rules)
    for key, value in state.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        renamed[prefix + key] = value
    return renamed


def _unet_rules(unet: Any) -> Rules:
    """Blocks are numbered through: block 0 is the first convolution, and a change of resolution ends each level."""
    level = unet.config.layers_per_block + 1
    resnet = re.compile("|".join(RESNET))

    def inner(match: re.Match[str]) -> str:
        return match[1] + resnet.sub(lambda part: RESNET[part[0]], match[2])

    def down(match: re.Match[str]) -> str:
        return f"input_blocks.{1 + level * int(match[1]) + int(match[3])}.{int(match[2] == 'attentions')}."

    def up(match: re.Match[str]) -> str:
        return f"output_blocks.{level * int(match[1]) + int(match[3])}.{int(match[2] == 'attentions')}."

    def middle(match: re.Match[str]) -> str:
        return f"middle_block.{2 * int(match[2]) + int(match[1] == 'attentions')}."

    def upsampler(match: re.Match[str]) -> str:
        # It stands behind the last resnet of its level, and behind the attention if there is one.
        place = 2 if hasattr(unet.up_blocks[int(match[1])], "attentions") else 1
        return f"output_blocks.{level * int(match[1]) + level - 1}.{place}.conv"

    return [
        (r"^time_embedding\.linear_1", "time_embed.0"),
        (r"^time_embedding\.linear_2", "time_embed.2"),
        (r"^conv_in", "input_blocks.0.0"),
        (r"^conv_norm_out", "out.0"),
        (r"^conv_out", "out.2"),
        (r"(.*resnets\.\d+\.)(.*)", inner),
        (r"^down_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.", down),
        (r"^down_blocks\.(\d+)\.downsamplers\.0\.conv", lambda m: f"input_blocks.{level * (int(m[1]) + 1)}.0.op"),
        (r"^mid_block\.(resnets|attentions)\.(\d+)\.", middle),
        (r"^up_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.", up),
        (r"^up_blocks\.(\d+)\.upsamplers\.0\.conv", upsampler),
    ]


def _vae_rules(levels: int) -> Rules:
    """The decoder's levels are counted from the finest one."""

    def up(match: re.Match[str]) -> str:
        return f"decoder.up.{levels - 1 - int(match[1])}."

    attention = re.compile("|".join(VAE_ATTENTION))
    return [
        (r"conv_norm_out", "norm_out"),
        (r"conv_shortcut", "nin_shortcut"),
        (
            r"mid_block\.attentions\.0\.(.*)",
            lambda m: "mid.attn_1." + attention.sub(lambda p: VAE_ATTENTION[p[0]], m[1]),
        ),
        (r"mid_block\.resnets\.(\d+)", lambda m: f"mid.block_{int(m[1]) + 1}"),
        (r"^encoder\.down_blocks\.(\d+)\.", r"encoder.down.\1."),
        (r"^decoder\.up_blocks\.(\d+)\.", up),
        (r"downsamplers\.0", "downsample"),
        (r"upsamplers\.0", "upsample"),
        (r"\.resnets\.", ".block."),
    ]


def _as_convolutions(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The original VAE's attention is made of 1 x 1 convolutions where diffusers has linear layers."""
    linear = re.compile(r"attn_1\.(q|k|v|proj_out)\.weight$")
    return {key: value[:, :, None, None] if linear.search(key) else value for key, value in state.items()}


if __name__ == "__main__":
    raise SystemExit(main())
