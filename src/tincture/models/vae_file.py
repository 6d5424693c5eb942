"""A VAE in a file of its own, or within a checkpoint: original key layout or diffusers', file or folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from tincture.errors import FileFormatError, ModelError
from tincture.formats.tensor_file import TensorFile, open_tensors
from tincture.models.building import build
from tincture.models.checkpoint_kind import describe_other, names_under, sizes_under, vae_prefix
from tincture.models.config_files import config_of
from tincture.models.configs import vae_config
from tincture.models.families import Family
from tincture.models.parts import Wishes

_OF_VAE = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")


def open_model_file(path: Path) -> TensorFile:
    """Opens a file of weights; ModelError says why it cannot be read."""
    try:
        return open_tensors(path)
    except FileFormatError as error:
        raise ModelError(str(error)) from error


def original_vae(file: TensorFile, prefix: str, family: Family, wishes: Wishes) -> Any:
    """The AutoencoderKL whose tensors stand in ``file`` under ``prefix``, in the original layout, in float32.

    Raises:
        ModelError: weights are missing or do not fit each other.
    """
    place = f"The vae in {file.path}"
    names = {inner: name for inner, name in names_under(file.shapes, prefix).items() if inner.startswith(_OF_VAE)}
    sizes = sizes_under(file.shapes, names)
    config = config_of("vae", wishes.configs, place, lambda: vae_config(sizes, family.name))
    originals = {f"first_stage_model.{inner}": file.tensor(name) for inner, name in names.items()}
    weights: dict[str, Tensor] = convert_ldm_vae_checkpoint(originals, config)
    return build(lambda: AutoencoderKL.from_config(config), weights, place, wishes.device, torch.float32)


def load_vae(path: Path, family: Family, wishes: Wishes) -> Any:
    """The AutoencoderKL in the file or folder ``path``, in float32.

    Raises:
        ModelError: it holds no VAE, or one of another family.
    """
    file = open_model_file(path)
    prefix = vae_prefix(file.shapes)
    if prefix is None:
        raise ModelError(f"{path} is {describe_other(file.shapes) or 'no VAE'}; give the file of a VAE by --vae.")
    return original_vae(file, prefix, family, wishes)
