"""diffusers' and transformers' configurations of a checkpoint in the original layout, read from its tensors' shapes.

So every width and depth is the checkpoint's own, and slimmed models load. What shapes do not tell stands in a table: it
is taken from the published configurations of runwayml/stable-diffusion-v1-5, stabilityai/stable-diffusion-2-1 and
stabilityai/stable-diffusion-xl-base-1.0.

Names of tensors are those of the original repositories (CompVis/stable-diffusion, Stability-AI/generative-models),
without the prefix of their part.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

Sizes = Mapping[str, tuple[int, ...]]
"""Sizes of tensors by name."""

_TRANSFORMER = re.compile(
    r"((?:input_blocks\.\d+|output_blocks\.\d+|middle_block)\.1)\.transformer_blocks\.(\d{1,3})\."
)


@dataclass(frozen=True)
class Published:
    """What the shapes of a family's tensors do not tell.

    Attributes:
        heads: of every attention of the U-Net; None where a head has 64 channels instead.
        text_activations: of the text encoders, in their order.
        scaling_factor: latents of the VAE times this have a standard deviation of about 1.
        sides: in pixels, of the pictures the models were made for, by prediction type.
        usual_prediction: prediction type of a model that says nothing; None where both are usual.
        last_layers_unused: of OpenCLIP's text encoder: stored, but not a part of transformers' model.
        text_layers: of OpenCLIP's text encoder, those that are used. Files that were written from a diffusers folder
            store no others.
        upcast_attention: whether half precision overflows in the plainest kind of attention.
    """

    heads: int | None
    text_activations: tuple[str, ...]
    scaling_factor: float
    sides: Mapping[str, int]
    usual_prediction: str | None = "epsilon"
    last_layers_unused: int = 0
    text_layers: int | None = None
    upcast_attention: bool = False


PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {
        "sd1": Published(8, ("quick_gelu",), 0.18215, {"epsilon": 512, "v_prediction": 512}),
        "sd2": Published(
            None,
            ("gelu",),
            0.18215,
            {"epsilon": 512, "v_prediction": 768},
            usual_prediction=None,
            last_layers_unused=1,
            text_layers=23,
            upcast_attention=True,
        ),
        "sdxl": Published(None, ("quick_gelu", "gelu"), 0.13025, {"epsilon": 1024, "v_prediction": 1024}),
    }
)
SCHEDULER: Mapping[str, Any] = MappingProxyType(
    {
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "steps_offset": 1,
    }
)
"""The noise of all three families."""
_HEAD_DIM = 64


class ShapeError(Exception):
    """Why shapes are not those of such a part, as words that follow the file's name."""


# --- U-Net ------------------------------------------------------------------------------------------------------------


def unet_config(sizes: Sizes, family: str, pooled_width: int | None) -> dict[str, Any]:
    """Of diffusers' UNet2DConditionModel, but for ``sample_size``.

    Args:
        sizes: of the U-Net's tensors.
        family: see ``PUBLISHED``.
        pooled_width: numbers of the pooled text where the U-Net is told it, and sizes; else None.

    Raises:
        ShapeError: the blocks do not make up levels of equal depth.
    """
    downsamplers = _count(sizes, r"input_blocks\.(\d+)\.0\.op\.weight")
    blocks = _count(sizes, r"input_blocks\.(\d+)\.")
    levels = downsamplers + 1
    layers, rest = divmod(blocks - 1 - downsamplers, levels)
    if layers < 1 or rest:
        raise ShapeError(f"its U-Net has {blocks} input blocks on {levels} levels, as no Stable Diffusion model has")
    first = [1 + level * (layers + 1) for level in range(levels)]
    channels = [_size(sizes, f"input_blocks.{block}.0.out_layers.3.weight")[0] for block in first]
    attention = _attention(sizes, layers, levels)
    config = {
        "in_channels": _size(sizes, "input_blocks.0.0.weight")[1],
        "out_channels": _size(sizes, "out.2.weight")[0],
        "block_out_channels": channels,
        "layers_per_block": layers,
        "cross_attention_dim": _size(sizes, _name(sizes, r".*attn2\.to_k\.weight"))[1],
        "attention_head_dim": PUBLISHED[family].heads or [max(1, width // _HEAD_DIM) for width in channels],
        "use_linear_projection": has_linear_projection(sizes),
        "upcast_attention": PUBLISHED[family].upcast_attention,
        **attention,
    }
    if pooled_width is not None:
        embedded = _size(sizes, "label_emb.0.0.weight")[1]
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": (embedded - pooled_width) // 6,
            "projection_class_embeddings_input_dim": embedded,
        }
    return config


def has_linear_projection(sizes: Sizes) -> bool:
    """Whether the U-Net's attentions have linear layers where Stable Diffusion 1 has 1 x 1 convolutions."""
    return len(sizes.get(_name(sizes, r"input_blocks\.\d+\.1\.proj_in\.weight"), ())) == 2


def _attention(sizes: Sizes, layers: int, levels: int) -> dict[str, Any]:
    """Where the U-Net attends, and how many transformer layers there are in each place."""
    found = {match.groups() for name in sizes if (match := _TRANSFORMER.match(name))}
    depths = Counter(place for place, _ in found)
    step = layers + 1
    down = [[depths[f"input_blocks.{1 + level * step + n}.1"] for n in range(layers)] for level in range(levels)]
    up = [[depths[f"output_blocks.{level * step + n}.1"] for n in range(step)] for level in range(levels)]
    middle = depths["middle_block.1"]
    if any(any(level) != all(level) for level in [*down, *up]):
        raise ShapeError("its U-Net has a level of which only a part has attention")
    config = {
        "down_block_types": ["CrossAttnDownBlock2D" if any(level) else "DownBlock2D" for level in down],
        "up_block_types": ["CrossAttnUpBlock2D" if any(level) else "UpBlock2D" for level in up],
        "mid_block_type": "UNetMidBlock2DCrossAttn" if middle else "UNetMidBlock2D",
    }
    if middle and middle != (down[-1][0] or 1):
        raise ShapeError("its U-Net has another number of layers in the middle than on its last level")
    if all(set(level) == set(other) and len(set(level)) == 1 for level, other in zip(down, reversed(up), strict=True)):
        return {**config, "transformer_layers_per_block": [level[0] or 1 for level in down]}
    return {
        **config,
        "transformer_layers_per_block": [level if any(level) else 1 for level in down],
        "reverse_transformer_layers_per_block": [level if any(level) else 1 for level in up],
    }


# --- VAE --------------------------------------------------------------------------------------------------------------


def vae_config(sizes: Sizes, family: str) -> dict[str, Any]:
    """Of diffusers' AutoencoderKL.

    Raises:
        ShapeError: a tensor is missing that tells a width.
    """
    levels = _count(sizes, r"encoder\.down\.(\d+)\.block\.0\.conv1\.weight")
    widths = [_size(sizes, f"encoder.down.{n}.block.0.conv1.weight")[0] for n in range(levels)]
    layers = _count(sizes, r"encoder\.down\.0\.block\.(\d+)\.conv1\.weight")
    return _vae_config(sizes, family, widths, layers, "encoder.mid.attn_1.q.weight" in sizes)


def diffusers_vae_config(sizes: Sizes, family: str) -> dict[str, Any]:
    """The same of a VAE whose tensors have diffusers' own names."""
    levels = _count(sizes, r"encoder\.down_blocks\.(\d+)\.resnets\.0\.conv1\.weight")
    widths = [_size(sizes, f"encoder.down_blocks.{n}.resnets.0.conv1.weight")[0] for n in range(levels)]
    layers = _count(sizes, r"encoder\.down_blocks\.0\.resnets\.(\d+)\.conv1\.weight")
    has_attention = any(name.startswith("encoder.mid_block.attentions.0.") for name in sizes)
    return _vae_config(sizes, family, widths, layers, has_attention)


def _vae_config(sizes: Sizes, family: str, widths: list[int], layers: int, has_attention: bool) -> dict[str, Any]:
    return {
        "sample_size": max(PUBLISHED[family].sides.values()),
        "in_channels": _size(sizes, "encoder.conv_in.weight")[1],
        "out_channels": _size(sizes, "decoder.conv_out.weight")[0],
        "latent_channels": latent_channels(sizes),
        "block_out_channels": widths,
        "layers_per_block": layers,
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "mid_block_add_attention": has_attention,
        "use_quant_conv": "quant_conv.weight" in sizes,
        "use_post_quant_conv": "post_quant_conv.weight" in sizes,
        "scaling_factor": PUBLISHED[family].scaling_factor,
    }


def latent_channels(sizes: Sizes) -> int:
    """Channels of the latents of a VAE, in either layout; ShapeError where its decoder's first layer is missing."""
    return _size(sizes, "decoder.conv_in.weight")[1]


# --- text encoders ----------------------------------------------------------------------------------------------------


def clip_config(sizes: Sizes, activation: str) -> dict[str, Any]:
    """Of transformers' CLIPTextModel; ``sizes`` are those of its own tensors, names without ``text_model.``.

    Raises:
        ShapeError: a tensor is missing that tells a width.
    """
    vocabulary, _ = _size(sizes, "embeddings.token_embedding.weight")[:2]
    positions, width = _size(sizes, "embeddings.position_embedding.weight")[:2]
    return {
        "vocab_size": vocabulary,
        "max_position_embeddings": positions,
        "hidden_size": width,
        "intermediate_size": _size(sizes, "encoder.layers.0.mlp.fc1.weight")[0],
        "num_hidden_layers": _count(sizes, r"encoder\.layers\.(\d+)\.layer_norm1\.weight"),
        "num_attention_heads": max(1, width // _HEAD_DIM),
        "projection_dim": sizes.get("text_projection.weight", (width,))[0],
        "hidden_act": activation,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
    }


# --- names ------------------------------------------------------------------------------------------------------------


def _numbers(sizes: Sizes, pattern: str) -> set[int]:
    """The numbers that the one group of ``pattern`` finds at the start of names."""
    compiled = re.compile(pattern)
    return {int(match[1]) for name in sizes if (match := compiled.match(name))}


def _count(sizes: Sizes, pattern: str) -> int:
    return len(_numbers(sizes, pattern))


def _name(names: Iterable[str], pattern: str) -> str:
    """The first name that fits ``pattern``, "" where none does."""
    compiled = re.compile(pattern)
    return next((name for name in names if compiled.fullmatch(name)), "")


def _size(sizes: Sizes, name: str) -> tuple[int, ...]:
    size = sizes.get(name, ())
    if len(size) < 2:
        raise ShapeError(f"its weight {name or 'of cross-attention'} is missing")
    return size
