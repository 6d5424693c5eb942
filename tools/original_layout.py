"""The names that the original repositories give to the weights of Stable Diffusion 1, 2 and XL.

The layout is that of CompVis/stable-diffusion and Stability-AI/generative-models: ``model.diffusion_model.*`` (U-Net),
``first_stage_model.*`` (VAE), and the text encoders under ``cond_stage_model.transformer.`` (1),
``cond_stage_model.model.`` (2, OpenCLIP's names) or ``conditioner.embedders.N.`` (XL, one of each). Everything here
works on tensors without values too (``device="meta"``), where only shapes matter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

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
OPEN_CLIP: Rules = (
    (r"^embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^embeddings\.token_embedding\.", "token_embedding."),
    (r"^final_layer_norm\.", "ln_final."),
    (r"^encoder\.layers\.", "transformer.resblocks."),
    (r"\.layer_norm(\d)\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"\.self_attn\.", ".attn."),
)
TEXT_PLACES: Mapping[str, Sequence[tuple[str, bool]]] = {
    "sd1": [("cond_stage_model.transformer.", False)],
    "sd2": [("cond_stage_model.model.", True)],
    "sdxl": [("conditioner.embedders.0.transformer.", False), ("conditioner.embedders.1.model.", True)],
}
"""By family, for each text encoder: the prefix, and whether it has OpenCLIP's names."""
UNUSED_LAYERS = {"sd2": 1}
"""Layers of OpenCLIP's text encoder that the original stores and never uses, so that transformers leaves them out."""


def original_state_dict(family: str, unet: Any, vae: Any, text_encoders: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Every weight of a model's parts (diffusers' and transformers' modules) under its original name."""
    state = {**original_unet(unet), **original_vae(vae)}
    for module, (prefix, is_open_clip) in zip(text_encoders, TEXT_PLACES[family], strict=True):
        names = _open_clip(module, UNUSED_LAYERS.get(family, 0)) if is_open_clip else _clip(module)
        state |= {prefix + name: value for name, value in names.items()}
    return state


def original_unet(unet: Any) -> dict[str, Tensor]:
    """The U-Net's weights, with their prefix."""
    return _renamed(unet.state_dict(), _unet_rules(unet.config), "model.diffusion_model.")


def original_vae(vae: Any) -> dict[str, Tensor]:
    """The VAE's weights, with their prefix."""
    renamed = _renamed(vae.state_dict(), _vae_rules(len(vae.config.block_out_channels)), "first_stage_model.")
    # Its attention is made of 1 x 1 convolutions where diffusers has linear layers.
    linear = re.compile(r"attn_1\.(q|k|v|proj_out)\.weight$")
    return {key: value[:, :, None, None] if linear.search(key) else value for key, value in renamed.items()}


def _renamed(state: Mapping[str, Tensor], rules: Rules, prefix: str) -> dict[str, Tensor]:
    """``state`` with each key rewritten by all rules in turn, a rule being (regular expression, replacement)."""
    renamed = {}
    rules = list(rules)
    for key, value in state.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        renamed[prefix + key] = value
    return renamed


def _unet_rules(config: Any) -> Rules:
    """Blocks are numbered through: block 0 is the first convolution, and a change of resolution ends each level."""
    level = config.layers_per_block + 1
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
        place = 2 if config.up_block_types[int(match[1])].startswith("CrossAttn") else 1
        return f"output_blocks.{level * int(match[1]) + level - 1}.{place}.conv"

    return [
        (r"^time_embedding\.linear_1", "time_embed.0"),
        (r"^time_embedding\.linear_2", "time_embed.2"),
        (r"^add_embedding\.linear_1", "label_emb.0.0"),
        (r"^add_embedding\.linear_2", "label_emb.0.2"),
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


def _clip(module: nn.Module) -> dict[str, Tensor]:
    # transformers 5.6 dropped the level text_model, which the original has.
    return _renamed(module.state_dict(), [(r"^(?!text_model\.|text_projection\.)", "text_model.")], "")


def _open_clip(module: nn.Module, unused_layers: int) -> dict[str, Tensor]:
    """OpenCLIP keeps queries, keys and values of a layer in one tensor, and the projection as a matrix."""
    state = {name.removeprefix("text_model."): value for name, value in module.state_dict().items()}
    names: dict[str, Tensor] = {}
    projection = state.pop("text_projection.weight", None)
    if projection is not None:
        names["text_projection"] = projection.T
    for name in [name for name in state if ".q_proj." in name]:
        joined = torch.cat([state.pop(name.replace(".q_proj.", f".{part}_proj.")) for part in "qkv"])
        state[name.replace(".q_proj.", ".in_proj_")] = joined
    names |= _renamed(state, OPEN_CLIP, "")
    layers = 1 + max(int(name.split(".")[2]) for name in names if name.startswith("transformer.resblocks."))
    last = f"transformer.resblocks.{layers - 1}."
    copied = {
        name.replace(last, f"transformer.resblocks.{layers + extra}."): value
        for extra in range(unused_layers)
        for name, value in names.items()
        if name.startswith(last)
    }
    return {**names, **copied}
