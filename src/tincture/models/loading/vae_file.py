"""A VAE in a file or folder of its own, or within a checkpoint, in the original key layout or in diffusers'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from tincture.errors import ModelError
from tincture.formats.tensor_file import TensorFile
from tincture.models.families import FAMILIES, Family
from tincture.models.loading.building import build
from tincture.models.loading.checkpoint_kind import (
    DIFFUSERS_VAE_MARK,
    find_checkpoint,
    lacks_encoder,
    names_under,
    sizes_under,
    vae_prefix,
)
from tincture.models.loading.config_files import config_of
from tincture.models.loading.configs import PUBLISHED, diffusers_vae_config, vae_config
from tincture.models.loading.diffusers_folder import load_vae_folder
from tincture.models.loading.model_file import describe_file, open_model_file

LATENT_CHANNELS = 4
_OF_VAE = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")


def original_vae(
    file: TensorFile, prefix: str, family: Family, device: torch.device | str, configs: Path | None = None
) -> Any:
    """The AutoencoderKL whose tensors stand in ``file`` under ``prefix`` in the original layout, in float32.

    Args:
        configs: see ``LoadOptions``.

    Raises:
        ModelError: weights are missing, do not fit each other, or are of another family.
    """
    place = f"The vae in {file.path}"
    names = {inner: name for inner, name in names_under(file.shapes, prefix).items() if inner.startswith(_OF_VAE)}
    sizes = sizes_under(file.shapes, names)
    config = config_of("vae", configs, place, lambda: vae_config(sizes, family.name))
    _check_latents(file.path, config["latent_channels"], family)
    originals = {f"first_stage_model.{inner}": file.tensor(name) for inner, name in names.items()}
    weights: dict[str, Tensor] = convert_ldm_vae_checkpoint(originals, config)
    return build(lambda: AutoencoderKL.from_config(config), weights, place, device, torch.float32)


def load_vae(path: Path, family: Family, device: torch.device | str) -> Any:
    """The AutoencoderKL in the file or folder ``path``, in float32.

    A file may be a whole checkpoint, of which the VAE is taken; a folder one of a VAE or of a whole model.

    Raises:
        ModelError: it holds no VAE, or one of another family.
    """
    if path.is_dir():
        vae = load_vae_folder(path / "vae" if (path / "vae").is_dir() else path, device)
        _check_config(path, vae.config, family)
        return vae
    file = open_model_file(path)
    prefix = vae_prefix(file.shapes)
    if prefix is not None:
        _check_checkpoint(file, family)
        return original_vae(file, prefix, family, device)
    if DIFFUSERS_VAE_MARK in file.shapes:
        return _diffusers_vae(file, family, device)
    if lacks_encoder(file.shapes):
        raise ModelError(
            f"The VAE in {path} has only its decoder: without the encoder no picture can be encoded for training. Give "
            f"the file or folder of a whole VAE for {family.title}."
        )
    what = describe_file(file) or "no VAE that is known"
    raise ModelError(f"{path} is {what}; give the file or folder of a VAE for {family.title}.")


def _diffusers_vae(file: TensorFile, family: Family, device: torch.device | str) -> Any:
    """From a file without configuration, whose names are diffusers'."""
    place = f"The vae in {file.path}"
    sizes = {name: shape.size for name, shape in file.shapes.items()}
    config = config_of("vae", None, place, lambda: diffusers_vae_config(sizes, family.name))
    _check_latents(file.path, config["latent_channels"], family)
    weights = {name: file.tensor(name) for name in file.shapes}
    return build(lambda: AutoencoderKL.from_config(config), weights, place, device, torch.float32)


def _check_latents(path: Path, channels: int, family: Family) -> None:
    if channels != LATENT_CHANNELS:
        raise ModelError(
            f"The vae in {path} gives {channels} latent channels, as Stable Diffusion 3 and Flux have, and "
            f"{family.title} works with {LATENT_CHANNELS}; give one for {family.title}."
        )


def _check_config(path: Path, config: Any, family: Family) -> None:
    _check_latents(path, config.latent_channels, family)
    # Latents of one family mean nothing to another, whose VAE has the same shapes.
    for name, published in PUBLISHED.items():
        if config.scaling_factor == published.scaling_factor != PUBLISHED[family.name].scaling_factor:
            raise ModelError(f"The vae in {path} is one for {FAMILIES[name].title}; give one for {family.title}.")


def _check_checkpoint(file: TensorFile, family: Family) -> None:
    found = find_checkpoint(file.shapes)
    if found and PUBLISHED[found.family].scaling_factor != PUBLISHED[family.name].scaling_factor:
        raise ModelError(f"{file.path} is of {FAMILIES[found.family].title}; give a VAE for {family.title}.")
