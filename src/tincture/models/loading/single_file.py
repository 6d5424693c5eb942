"""A checkpoint in one file, in the key layout of the original repositories: names and shapes in, a model's parts out.

diffusers' converters rename the tensors; configurations come from their shapes (``configs``), the tokenizer ships with
the package. Nothing is downloaded.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_open_clip_checkpoint
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor
from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection

from tincture.errors import ModelError
from tincture.formats.tensor_file import Shape, TensorFile
from tincture.models.families import FAMILIES, Family, TextEncoderSpec
from tincture.models.loading.building import build, cannot_be_loaded, clip_text_config
from tincture.models.loading.checkpoint_kind import (
    UNET_PREFIX,
    Checkpoint,
    FoundTextEncoder,
    lacks_encoder,
    names_under,
    sizes_under,
    unet_names,
)
from tincture.models.loading.clip_tokenizer import clip_tokenizer, load_tokenizer
from tincture.models.loading.config_files import config_of, read_config
from tincture.models.loading.configs import PUBLISHED, SCHEDULER, Published, clip_config, unet_config
from tincture.models.loading.model_file import (
    open_model_file,
    pictos_configs,
    require_checkpoint,
    require_text_encoders,
)
from tincture.models.loading.parts import LoadOptions, Parts
from tincture.models.loading.prediction import EPSILON, Prediction, find_prediction, override, probe
from tincture.models.loading.vae_file import original_vae
from tincture.models.text_encoder import TextEncoder

_PIXELS_PER_LATENT = 8
_PROJECTION = "text_projection.weight"
_RESBLOCK = re.compile(r"transformer\.resblocks\.(\d{1,4})\.")
_NO_SHAPE = Shape((), None)
_CLIP_PARTS = ("embeddings.", "encoder.", "final_layer_norm.")


def load_single_file(path: Path, options: LoadOptions, load_other_vae: Callable[[Family], Any] | None = None) -> Parts:
    """The parts of the checkpoint ``path``, a .safetensors or .ckpt file.

    Args:
        path: the file.
        options: see ``LoadOptions``.
        load_other_vae: gives the VAE to take instead of the checkpoint's own, for a family.

    Raises:
        ModelError: the file is no checkpoint, of a family that is not known, or lacks something.
        UsageError: the options do not go together.
    """
    file = open_model_file(path)
    found = require_checkpoint(file)
    family = FAMILIES[options.family or found.family]
    require_text_encoders(file, found, family)
    options = dataclasses.replace(options, configs=options.configs or pictos_configs(file, found))
    if load_other_vae is None and lacks_encoder(file.shapes):
        raise ModelError(
            f"{path} has only the decoder of its VAE: without the encoder no picture can be encoded for training. Give "
            f"the file of a whole VAE for {family.title} by --vae."
        )
    if load_other_vae is None and found.vae_prefix is None:
        raise ModelError(f"{path} has no VAE; give the file of one for {family.title} by --vae.")
    stated = find_prediction(path, file.shapes, file.metadata)
    encoders = _text_encoders(file, found, family, options)
    if load_other_vae:
        vae = load_other_vae(family)
    else:
        vae = original_vae(file, found.vae_prefix or "", family, options.picture_device, options.configs)
    unet, unused = _unet(file, family, encoders, options)
    prediction = override(
        stated or _unstated(family, unet, encoders, options), options.prediction_type, options.zero_terminal_snr
    )
    if options.configs is None:
        side = PUBLISHED[family.name].sides[prediction.prediction_type]
        unet.register_to_config(sample_size=side // _PIXELS_PER_LATENT)
    return Parts(
        family=family,
        text_encoders=tuple(encoders),
        vae=vae,
        unet=unet,
        scheduler_config=prediction.scheduler_config(_scheduler(options)),
        prediction=prediction,
        notes=tuple(_notes(found, unused)),
    )


def _scheduler(options: LoadOptions) -> Mapping[str, Any]:
    return SCHEDULER if options.configs is None else read_config(options.configs / "scheduler/scheduler_config.json")


def _notes(found: Checkpoint, unused: list[str]) -> list[str]:
    notes = []
    if found.uses_ema:
        notes.append("The plain weights of its U-Net are missing; the running mean of them (EMA) is used.")
    if unused:
        notes.append(f"Its U-Net has {len(unused)} weights that are not used, for example {sorted(unused)[0]}.")
    return notes


def _unstated(family: Family, unet: Any, encoders: list[TextEncoder], options: LoadOptions) -> Prediction:
    """What a model predicts that says nothing of it."""
    usual = options.prediction_type or PUBLISHED[family.name].usual_prediction
    if usual is not None:
        return Prediction(usual, False, "usual for its family")
    if options.text_only:
        return Prediction(EPSILON, False, "not tried")
    tokenizer = encoders[0].tokenizer
    padding = [tokenizer.pad_token_id] * (tokenizer.model_max_length - 2)
    ids = torch.tensor([[tokenizer.bos_token_id, tokenizer.eos_token_id, *padding]], device=options.device)
    with torch.no_grad():
        hidden_states, _ = encoders[0].encode(ids)
    return probe(unet, hidden_states)


# --- U-Net ------------------------------------------------------------------------------------------------------------


def _unet(file: TensorFile, family: Family, encoders: list[TextEncoder], options: LoadOptions) -> tuple[Any, list[str]]:
    """The U-Net, and the names of weights that it has no place for."""
    names = unet_names(file.shapes)
    place = f"The unet in {file.path}"
    pooled = encoders[-1].module.config.projection_dim if family.knows_sizes else None
    sizes = sizes_under(file.shapes, names)
    config = config_of("unet", options.configs, place, lambda: unet_config(sizes, family.name, pooled))
    originals = {f"{UNET_PREFIX}{inner}": file.tensor(name) for inner, name in names.items()}
    try:
        weights: dict[str, Tensor] = convert_ldm_unet_checkpoint(originals, config)
    except (KeyError, ValueError) as error:
        raise cannot_be_loaded(place, error) from error
    unet = build(
        lambda: UNet2DConditionModel.from_config(config), weights, place, options.picture_device, options.dtype
    )
    return unet, list(weights)


# --- text encoders ----------------------------------------------------------------------------------------------------


def _text_encoders(file: TensorFile, found: Checkpoint, family: Family, options: LoadOptions) -> list[TextEncoder]:
    activations = PUBLISHED[family.name].text_activations
    return [
        _text_encoder(file, encoder, spec, activation, family, options)
        for encoder, spec, activation in zip(found.text_encoders, family.text_encoders, activations, strict=False)
    ]


def _text_encoder(
    file: TensorFile,
    found: FoundTextEncoder,
    spec: TextEncoderSpec,
    activation: str,
    family: Family,
    options: LoadOptions,
) -> TextEncoder:
    place = f"The {spec.component} in {file.path}"
    if found.layout == "clip":
        weights = _clip_weights(file, found.prefix)
    else:
        weights = _open_clip_weights(file, found.prefix, PUBLISHED[family.name])
    sizes = {name: tuple(weight.shape) for name, weight in weights.items()}
    values = config_of(spec.component, options.configs, place, lambda: clip_config(sizes, activation))
    config = clip_text_config(values, place)
    if spec.projected:
        weights = {name if name == _PROJECTION else f"text_model.{name}": weight for name, weight in weights.items()}
    kind = CLIPTextModelWithProjection if spec.projected else CLIPTextModel
    module = build(lambda: kind(config), weights, place, options.device, options.dtype)
    positions = config.max_position_embeddings
    if options.configs is None:
        return TextEncoder(spec, clip_tokenizer(spec.pad_token, positions, open_clip=spec.open_clip), module)
    tokenizer = load_tokenizer(options.configs / spec.tokenizer, positions, open_clip=spec.open_clip)
    return TextEncoder(spec, tokenizer, module)


def _clip_weights(file: TensorFile, prefix: str) -> dict[str, Tensor]:
    names = names_under(file.shapes, prefix)
    weights = {inner: file.tensor(name) for inner, name in names.items() if inner.startswith(_CLIP_PARTS)}
    return {**weights, **_projection(file, prefix.removesuffix("text_model."))}


def _projection(file: TensorFile, prefix: str) -> dict[str, Tensor]:
    """The projection of the pooled text, stored as a linear layer's weight or as the matrix, which is its transpose."""
    if f"{prefix}{_PROJECTION}" in file.shapes:
        return {_PROJECTION: file.tensor(f"{prefix}{_PROJECTION}")}
    if len(file.shapes.get(f"{prefix}text_projection", _NO_SHAPE).size) == 2:
        return {_PROJECTION: file.tensor(f"{prefix}text_projection").T}
    return {}


def _open_clip_weights(file: TensorFile, prefix: str, published: Published) -> dict[str, Tensor]:
    """Under transformers' names, ``text_model.`` left out."""
    names = {inner: name for inner, name in names_under(file.shapes, prefix).items() if not inner.startswith("visual.")}
    blocks = sorted({int(match[1]) for inner in names if (match := _RESBLOCK.match(inner))})
    unused = 0 if len(blocks) == published.text_layers else published.last_layers_unused
    dropped = tuple(f"transformer.resblocks.{block}." for block in blocks[len(blocks) - unused :])
    weights = {inner: file.tensor(name) for inner, name in names.items() if not inner.startswith(dropped)}
    weights.pop("text_projection", None)
    # Of the text model it wants to know the width only.
    sized = SimpleNamespace(config=SimpleNamespace(hidden_size=weights["positional_embedding"].shape[1]))
    converted = convert_open_clip_checkpoint(sized, weights, prefix="")
    weights = {name.removeprefix("text_model."): weight for name, weight in converted.items()}
    return {**weights, **_projection(file, prefix)}
