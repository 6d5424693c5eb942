"""A diffusers folder: ``model_index.json`` and one folder for each part, as ``save_pretrained`` writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor
from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection

from tincture.errors import ModelError
from tincture.models.families import Family, TextEncoderSpec
from tincture.models.loading.building import build, cannot_be_loaded, clip_text_config
from tincture.models.loading.clip_tokenizer import load_tokenizer
from tincture.models.loading.config_files import read_config
from tincture.models.loading.configs import SCHEDULER
from tincture.models.loading.folder_family import KNOWN, family_of
from tincture.models.loading.model_file import open_part_file
from tincture.models.loading.parts import LoadOptions, Parts
from tincture.models.loading.prediction import EPSILON, PREDICTION_TYPES, Prediction, override
from tincture.models.loading.silence import silenced_libraries
from tincture.models.loading.weight_files import weight_files
from tincture.models.text_encoder import TextEncoder

# Schedulers of Karras et al. 2022 (EDM), and of flow matching: what the U-Net is given and predicts is something else.
_OTHER_NOISE = ("EDM", "FlowMatch")


def load_folder(folder: Path, options: LoadOptions, load_other_vae: Callable[[Family], Any] | None = None) -> Parts:
    """The parts of the model in ``folder``.

    Args:
        folder: the diffusers folder.
        options: see ``LoadOptions``.
        load_other_vae: gives the VAE to take instead of the folder's own, for a family.

    Raises:
        ModelError: a part is missing or broken, or the model is of a family that is not known.
        UsageError: the options do not go together.
    """
    family = family_of(folder, options.family)
    scheduler = read_config(folder / "scheduler" / "scheduler_config.json")
    prediction = override(_prediction(folder, scheduler), options.prediction_type, options.zero_terminal_snr)
    return Parts(
        family=family,
        text_encoders=tuple(_text_encoder(folder, spec, options) for spec in family.text_encoders),
        vae=load_other_vae(family) if load_other_vae else load_vae_folder(folder / "vae", options.picture_device),
        unet=_unet(folder / "unet", options),
        scheduler_config=prediction.scheduler_config({**SCHEDULER, **scheduler}),
        prediction=prediction,
    )


def _prediction(folder: Path, scheduler: Mapping[str, Any]) -> Prediction:
    kind = str(scheduler.get("_class_name", ""))
    if kind.startswith(_OTHER_NOISE):
        raise ModelError(
            f"The model folder {folder} has a scheduler of the kind {kind}, whose noise is not that of Stable "
            f"Diffusion (as Playground 2.5 and CosXL have it); {KNOWN}."
        )
    stated = scheduler.get("prediction_type", EPSILON)
    if stated not in PREDICTION_TYPES:
        raise ModelError(
            f"In {folder}, the scheduler's prediction_type is {stated!r}; epsilon and v_prediction are known."
        )
    return Prediction(stated, bool(scheduler.get("rescale_betas_zero_snr")), "its scheduler's configuration")


def _unet(folder: Path, options: LoadOptions) -> Any:
    config = read_config(folder / "config.json")
    if not isinstance(config.get("sample_size"), int):
        raise ModelError(
            f"The unet in {folder} is not usable: its sample_size is {config.get('sample_size')}, not a number."
        )
    place = f"The unet in {folder}"
    return build(
        lambda: UNet2DConditionModel.from_config(config),
        open_weights(folder),
        place,
        options.picture_device,
        options.dtype,
    )


def load_vae_folder(folder: Path, device: torch.device | str) -> Any:
    """The AutoencoderKL in the part folder ``folder``, in float32; ModelError where it is broken."""
    config = read_config(folder / "config.json")
    if config.get("_class_name", "AutoencoderKL") != "AutoencoderKL":
        raise ModelError(f"The vae in {folder} is of the kind {config['_class_name']}; AutoencoderKL is needed.")
    place = f"The vae in {folder}"
    return build(lambda: AutoencoderKL.from_config(config), open_weights(folder), place, device, torch.float32)


def _text_encoder(folder: Path, spec: TextEncoderSpec, options: LoadOptions) -> TextEncoder:
    path = folder / spec.component
    place = f"The {spec.component} in {path}"
    config = clip_text_config(read_config(path / "config.json"), place)
    # transformers 5.6 dropped the level text_model, except where there is a projection.
    level = "text_model." if spec.projected else ""
    weights = {
        name if name.startswith("text_projection") else f"{level}{name.removeprefix('text_model.')}": weight
        for name, weight in open_weights(path).items()
    }
    kind = CLIPTextModelWithProjection if spec.projected else CLIPTextModel
    module = build(lambda: kind(config), weights, place, options.device, options.dtype)
    return TextEncoder(spec, part_tokenizer(folder, spec, config.max_position_embeddings), module)


def part_tokenizer(folder: Path, spec: TextEncoderSpec, positions: int) -> Any:
    """The tokenizer of a text encoder of the model in ``folder``; ModelError where it is broken."""
    folder = folder / spec.tokenizer
    try:
        with silenced_libraries():
            return load_tokenizer(folder, positions, open_clip=spec.open_clip)
    except ModelError:
        raise
    except Exception as error:  # the libraries raise errors of many families here, and all mean a broken file
        raise cannot_be_loaded(f"The tokenizer in {folder}", error) from error


def open_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of the part in ``folder`` by name; their memory is the files' own where it can be.

    Raises:
        ModelError: a file is missing or cannot be read.
    """
    weights: dict[str, Tensor] = {}
    for path in weight_files(folder):
        file = open_part_file(path)
        weights |= {name: file.tensor(name) for name in file.shapes}
    return weights
