"""What sets the families of Stable Diffusion apart, as one table: nothing else asks which family a model is of.

Facts from the published configurations of runwayml/stable-diffusion-v1-5, stabilityai/stable-diffusion-2-1 and
stabilityai/stable-diffusion-xl-base-1.0, and from the SDXL report (Podell et al. 2023, arXiv:2307.01952, section 2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

MAX_VECTORS = 75
"""Of an embedding for any of these: what CLIP's 77 tokens have room for between begin and end."""


@dataclass(frozen=True)
class TextEncoderSpec:
    """How a family uses one of its text encoders.

    Attributes:
        name: its key in ``Embedding.vectors``: ``clip_l`` (OpenAI's ViT-L/14), ``clip_h`` (OpenCLIP's ViT-H/14) or
            ``clip_g`` (OpenCLIP's ViT-bigG/14).
        component: its part's name in a diffusers folder; ``tokenizer`` likewise.
        width: of its hidden states, in the published model.
        projected: whether its end token, projected, is a condition too: the pooled text.
        layers_left_out: layers at the end whose output is not used; clip skip counts from there.
        final_layer_norm: whether the final norm follows the layer that is used.
        pad_token: what prompts are filled up with; None for the end token.
        open_clip: whether texts are read as OpenCLIP's own tokenizer does, see ``loading/text_cleaning.py``.
    """

    name: str
    component: str = "text_encoder"
    tokenizer: str = "tokenizer"
    width: int = 768
    projected: bool = False
    layers_left_out: int = 0
    final_layer_norm: bool = True
    pad_token: str | None = None
    open_clip: bool = False


@dataclass(frozen=True)
class Family:
    """Models of one anatomy.

    Attributes:
        name: in settings and files.
        title: for people.
        text_encoders: in the order in which their hidden states are joined.
        context_widths: of its attentions: what a hypernetwork has layers for unless told otherwise.
        modelspec: by prediction type, its name in the metadata standard of that name.
        knows_sizes: whether the U-Net is told a picture's original size, crop and size ("time ids"), and the pooled
            text.
        blank_is_zero: whether an empty negative prompt stands for hidden states and pooled text of zeros.
    """

    name: str
    title: str
    text_encoders: tuple[TextEncoderSpec, ...]
    context_widths: tuple[int, ...]
    modelspec: Mapping[str, str]
    knows_sizes: bool = False
    blank_is_zero: bool = False

    @property
    def text_width(self) -> int:
        """Width of the joined hidden states, in the published model."""
        return sum(spec.width for spec in self.text_encoders)


def _spec(epsilon: str, v_prediction: str) -> Mapping[str, str]:
    return MappingProxyType({"epsilon": epsilon, "v_prediction": v_prediction})


SD1 = Family(
    "sd1",
    "Stable Diffusion 1",
    (TextEncoderSpec("clip_l"),),
    context_widths=(768, 320, 640, 1280),
    modelspec=_spec("stable-diffusion-v1", "stable-diffusion-v1"),
)
# diffusers and transformers keep 23 of its 24 layers: the last one is not used, so its configuration leaves it out.
SD2 = Family(
    "sd2",
    "Stable Diffusion 2",
    (TextEncoderSpec("clip_h", width=1024, pad_token="!", open_clip=True),),
    context_widths=(1024, 320, 640, 1280),
    modelspec=_spec("stable-diffusion-v2-512", "stable-diffusion-v2-768-v"),
)
SDXL = Family(
    "sdxl",
    "Stable Diffusion XL",
    (
        TextEncoderSpec("clip_l", layers_left_out=1, final_layer_norm=False),
        TextEncoderSpec(
            "clip_g",
            "text_encoder_2",
            "tokenizer_2",
            width=1280,
            projected=True,
            layers_left_out=1,
            final_layer_norm=False,
            pad_token="!",
            open_clip=True,
        ),
    ),
    context_widths=(2048, 640, 1280),
    knows_sizes=True,
    blank_is_zero=True,
    modelspec=_spec("stable-diffusion-xl-v1-base", "stable-diffusion-xl-v1-base"),
)
FAMILIES: Mapping[str, Family] = MappingProxyType({family.name: family for family in (SD1, SD2, SDXL)})
