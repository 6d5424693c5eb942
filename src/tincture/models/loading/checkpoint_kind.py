"""What the names and shapes of a file's tensors say it is: a checkpoint of a known family, or something else.

Names are those of the original repositories: ``model.diffusion_model.*`` (U-Net), ``first_stage_model.*`` (VAE),
``cond_stage_model.*`` or ``conditioner.embedders.N.*`` (text encoders), ``model_ema.*`` (a running mean of the U-Net's
weights). Text encoders are found under any prefix.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from tincture.formats.file_kinds import DECODER_ALONE, OTHER_NAMES, UNET_EXTENSIONS, describe_names
from tincture.models.loading.configs import Sizes, has_linear_projection


class Sized(Protocol):
    """What is known of a tensor: at least its size."""

    @property
    def size(self) -> tuple[int, ...]: ...


Shapes = Mapping[str, Sized]

UNET_PREFIX = "model.diffusion_model."
_EMA_PREFIX = "model_ema.diffusion_model"
_VAE_PREFIXES = ("first_stage_model.", "vae.", "")
_VAE_MARK = "encoder.down.0.block.0.norm1.weight"
DIFFUSERS_VAE_MARK = "encoder.down_blocks.0.resnets.0.conv1.weight"
_FIRST_LAYER = "input_blocks.0.0.weight"
_SIZE_EMBEDDING = "label_emb.0.0.weight"
_CLIP_MARK, CLIP_TABLE = "embeddings.position_embedding.weight", "embeddings.token_embedding.weight"
_OPEN_CLIP_MARK, _OPEN_CLIP_TABLE = "positional_embedding", "token_embedding.weight"

_CHANNELS = {5: "a Stable Diffusion 2 depth model", 7: "an upscaler", 8: "an InstructPix2Pix model"}


@dataclass(frozen=True)
class FoundTextEncoder:
    """A text encoder in a file.

    Attributes:
        prefix: what its tensors' names begin with, ``text_model.`` included where they have it.
        layout: ``clip`` (OpenAI's, as transformers has it) or ``open_clip``.
        width: of its hidden states.
    """

    prefix: str
    layout: str
    width: int


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that can be used.

    Attributes:
        family: ``sd1``, ``sd2`` or ``sdxl``.
        in_channels: of the U-Net: 4, or 9 of one for inpainting.
        uses_ema: whether only the running mean of the U-Net's weights is there.
        text_encoders: narrow ones first, which is the families' order.
        vae_prefix: what the names of the VAE's tensors begin with; None without a VAE.
    """

    family: str
    in_channels: int
    uses_ema: bool
    text_encoders: tuple[FoundTextEncoder, ...]
    vae_prefix: str | None


def find_checkpoint(shapes: Shapes) -> Checkpoint | None:
    """The checkpoint whose tensors these are; None where they are not those of Stable Diffusion 1, 2 or XL."""
    unet = sizes_under(shapes, unet_names(shapes))
    if not _is_convolution(unet.get(_FIRST_LAYER)) or describe_other(shapes) is not None:
        return None
    return Checkpoint(
        family="sdxl" if _SIZE_EMBEDDING in unet else "sd2" if has_linear_projection(unet) else "sd1",
        in_channels=unet[_FIRST_LAYER][1],
        uses_ema=not any(name.startswith(UNET_PREFIX) for name in shapes),
        text_encoders=tuple(sorted(_text_encoders(shapes), key=lambda found: (found.width, found.prefix))),
        vae_prefix=vae_prefix(shapes),
    )


def describe_other(shapes: Shapes) -> str | None:
    """What a file is that is no checkpoint of a known family, in words such as ``a LoRA``.

    None when it may be one, and for a file of which nothing is known.
    """
    unet = sizes_under(shapes, unet_names(shapes))
    if _is_convolution(unet.get(_FIRST_LAYER)):
        return describe_names(shapes, UNET_EXTENSIONS) or _special_unet(unet)
    if words := describe_names(shapes, OTHER_NAMES):
        return words
    if _FIRST_LAYER in shapes:
        return "a U-Net alone, without text encoder and VAE"
    if vae_prefix(shapes) is not None:
        return "a VAE"
    if lacks_encoder(shapes):
        return DECODER_ALONE
    return "a text encoder alone" if next(_text_encoders(shapes), None) else None


def _is_convolution(size: tuple[int, ...] | None) -> bool:
    return size is not None and len(size) == 4


def _special_unet(unet: Sizes) -> str | None:
    """What a U-Net of Stable Diffusion's make is for, if not for pictures from text alone."""
    channels = unet[_FIRST_LAYER][1]
    if channels not in (4, 9):
        return _CHANNELS.get(channels, f"a model whose U-Net takes {channels} channels")
    contexts = {size[1] for name, size in unet.items() if name.endswith("attn2.to_k.weight") and len(size) == 2}
    if _SIZE_EMBEDDING in unet and contexts == {1280}:
        return "the refiner of Stable Diffusion XL"
    if _SIZE_EMBEDDING in unet and contexts == {1024}:
        return "a Stable Diffusion 2 unCLIP model"
    return "an upscaler" if "label_emb.weight" in unet else None


def sizes_under(shapes: Shapes, names: Mapping[str, str]) -> Sizes:
    """The sizes of the tensors ``names``, by the names' keys."""
    return {inner: shapes[name].size for inner, name in names.items()}


def names_under(shapes: Shapes, prefix: str) -> dict[str, str]:
    """The names that begin with ``prefix``, by what follows it."""
    return {name[len(prefix) :]: name for name in shapes if name.startswith(prefix)}


def vae_prefix(shapes: Shapes) -> str | None:
    """What the names of a VAE's tensors begin with; None without a VAE in the original layout."""
    return next((prefix for prefix in _VAE_PREFIXES if f"{prefix}{_VAE_MARK}" in shapes), None)


def lone_decoder_prefix(shapes: Shapes) -> str | None:
    """What the names of a VAE's decoder, in either layout, begin with; None where there is none, or an encoder too."""
    if vae_prefix(shapes) is not None or DIFFUSERS_VAE_MARK in shapes:
        return None
    return next((prefix for prefix in _VAE_PREFIXES if f"{prefix}decoder.conv_in.weight" in shapes), None)


def lacks_encoder(shapes: Shapes) -> bool:
    """Whether there is the decoder of a VAE, and not its encoder."""
    return lone_decoder_prefix(shapes) is not None


def _text_encoders(shapes: Shapes) -> Iterator[FoundTextEncoder]:
    marks = (("clip", _CLIP_MARK, CLIP_TABLE), ("open_clip", _OPEN_CLIP_MARK, _OPEN_CLIP_TABLE))
    for name, shape in shapes.items():
        for layout, mark, table in marks:
            prefix = name.removesuffix(mark)
            # A picture encoder has positions too, but no table of tokens.
            if name.endswith(mark) and len(shape.size) == 2 and f"{prefix}{table}" in shapes:
                yield FoundTextEncoder(prefix, layout, shape.size[1])


# --- the U-Net's names ------------------------------------------------------------------------------------------------

_WORD = re.compile(
    r"input_blocks|output_blocks|middle_block|time_embed|label_emb|transformer_blocks|in_layers|out_layers|emb_layers|"
    r"skip_connection|proj_in|proj_out|to_q|to_k|to_v|to_out|attn[12]|norm[123]|norm|ff|net|proj|conv|out|op|"
    r"weight|bias|\d+"
)
_OF_TWO_NUMBERS = ("input_blocks", "output_blocks", "label_emb")


def unet_names(shapes: Shapes) -> dict[str, str]:
    """The names of the U-Net's tensors by their names in it; those of the running mean where the plain are missing."""
    plain = names_under(shapes, UNET_PREFIX)
    return plain or {with_dots(inner): name for inner, name in names_under(shapes, _EMA_PREFIX).items()}


def with_dots(name: str) -> str:
    """``input_blocks.11.0.in_layers.0.weight`` from ``input_blocks110in_layers0weight``: names of the running mean.

    It has lost the dots. Of two numbers side by side the second one has a single digit.
    """
    words: list[str] = []
    for word in _WORD.findall(name):
        is_pair = word.isdecimal() and len(word) > 1 and bool(words) and words[-1] in _OF_TWO_NUMBERS
        words += [word[:-1], word[-1]] if is_pair else [word]
    return ".".join(words) if "".join(words) == name else name
