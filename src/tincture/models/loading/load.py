"""From a name to a ``StableDiffusion``: picto, a checkpoint file, a diffusers folder, or a model of the hub."""

from __future__ import annotations

import dataclasses
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from tincture.errors import ModelError, UsageError
from tincture.models.families import FAMILIES
from tincture.models.loading import hub
from tincture.models.loading.building import cannot_be_loaded
from tincture.models.loading.diffusers_folder import load_folder
from tincture.models.loading.parts import LoadOptions, Parts
from tincture.models.loading.silence import silenced_libraries
from tincture.models.loading.single_file import load_single_file
from tincture.models.loading.sources import PICTO, Source, find_source, find_vae, short_hash
from tincture.models.loading.vae_file import load_vae
from tincture.models.stable_diffusion import StableDiffusion
from tincture.models.tokens import too_many_tokens

if TYPE_CHECKING:
    from tincture.workspace import Workspace

PICTO_GUIDANCE_SCALE = 2.0
"""A model of so few words needs less guidance than Stable Diffusion; docs/picto.md has the figures."""


def load_model(
    name: str = "",
    *,
    workspace: Workspace | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    vae: str = "",
    family: str | None = None,
    prediction_type: str | None = None,
    zero_terminal_snr: bool | None = None,
    text_only: bool = False,
) -> StableDiffusion:
    """The frozen model ``name``. Nothing is downloaded, unless ``name`` is an id of the hub.

    Args:
        name: empty: the workspace's default, see ``default_model``; ``picto``; the path of a .safetensors or .ckpt
            file or of a diffusers folder; a name in the workspace's
            ``models/Stable-diffusion``; or an id of the Hugging Face hub, ``owner/name``. See ``find_source``.
        workspace: where names are looked up.
        device: where its weights shall lie.
        dtype: precision of U-Net and text encoders, whatever the files hold; the VAE is float32.
        vae: path of a VAE to take instead of the model's own, or its name in the workspace's ``models/VAE``.
        family: ``sd1``, ``sd2`` or ``sdxl``; None for what the files say.
        prediction_type: what the U-Net predicts, ``epsilon`` or ``v_prediction``; None for what the files say.
        zero_terminal_snr: whether the last timestep is pure noise; None for what the files say.
        text_only: leaves U-Net and VAE without values, for what needs the text encoders and the model's shape alone.

    Raises:
        ModelError: no such model, or a part of it is missing, broken or does not fit the others.
        UsageError: an argument is not allowed, or does not go with the model.
    """
    if family not in (None, *FAMILIES):
        raise UsageError(f"The family {family!r} is not known; give {', '.join(FAMILIES)}.")
    options = LoadOptions(device, dtype, family, prediction_type, zero_terminal_snr, text_only)
    source = _local(find_source(name, workspace))
    parts = load_parts(source, options, find_vae(vae, workspace) if vae else None)
    return assemble(source, parts, options)


def _local(source: Source) -> Source:
    """``source`` with a path."""
    if source.path is not None:
        return source
    return dataclasses.replace(source, path=hub.fetch(source.hub_id))


def load_parts(source: Source, options: LoadOptions, vae: Path | None = None) -> Parts:
    """The parts of the model at ``source``.

    Args:
        vae: file or folder of the VAE to take instead of its own.

    Raises:
        ModelError: see ``load_model``, as UsageError.
    """
    assert source.path is not None
    load_other_vae = partial(load_vae, vae, device=options.picture_device) if vae else None
    if source.path.is_dir():
        return load_folder(source.path, options, load_other_vae)
    return load_single_file(source.path, options, load_other_vae)


def assemble(source: Source, parts: Parts, options: LoadOptions) -> StableDiffusion:
    """The model made of ``parts``; ModelError when they do not fit each other."""
    try:
        with silenced_libraries():
            scheduler = DDPMScheduler.from_config(parts.scheduler_config)
    except Exception as error:  # whatever the library finds wrong with it
        raise cannot_be_loaded(f"The scheduler of {source}", error) from error
    is_picto = source.path == PICTO
    model = StableDiffusion(
        family=parts.family,
        text_encoders=parts.text_encoders,
        vae=parts.vae,
        unet=parts.unet,
        noise_scheduler=scheduler,
        name=source.name,
        hash="" if source.path is None else short_hash(source.path),
        guidance_scale=PICTO_GUIDANCE_SCALE if is_picto else 7.0,
        told_by=parts.prediction.told_by,
    )
    for note in parts.notes:
        warnings.warn(f"{source}: {note}", stacklevel=3)
    _check_fit(model, source)
    return model  # its parts were put on their device and into their precision one by one


def _check_fit(model: StableDiffusion, source: Source) -> None:
    unet, vae = model.unet.config, model.vae.config
    if unet.cross_attention_dim != model.text_width:
        raise ModelError(
            f"In {source}, the unet expects a text width of {unet.cross_attention_dim} and the text encoders of "
            f"{model.family.title} give {model.text_width}; they belong to different models."
        )
    if unet.out_channels != vae.latent_channels or unet.in_channels not in (
        vae.latent_channels,
        2 * vae.latent_channels + 1,  # for inpainting: a mask and a masked picture too
    ):
        raise ModelError(
            f"In {source}, the unet takes {unet.in_channels} channels and the vae gives {vae.latent_channels}; "
            "a model that makes pictures from text is needed, or one for inpainting."
        )
    for encoder in model.text_encoders:
        rows = encoder.module.config.vocab_size
        if len(encoder.tokenizer) > rows:
            raise too_many_tokens(source, encoder.spec, len(encoder.tokenizer), rows)
