"""From the reference's arguments to Tincture's own settings; plain values in, plain values out."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tincture.data.listing import Source, list_pictures
from tincture.errors import UsageError
from tincture.kinds.layer_structure import legacy_dropout_structure, numbers
from tincture.preprocessing.describer_kinds import missing_describer
from tincture.webui.arguments import CreateEmbedding, CreateHypernetwork, Preprocess, TrainArguments, TrainEmbedding

_OBJECTIVES = {"Maximize area": "area", "Minimize error": "error"}


# --- create ----------------------------------------------------------------------------------------------------------


def reference_name(name: str) -> tuple[str, list[str]]:
    """The name as the webui makes it, without characters that are not allowed, and a remark where it had some."""
    allowed = "".join(character for character in name if character.isalnum() or character in "._- ").strip()
    dropped = allowed != name.strip()
    return allowed, [f"The name {name!r} has characters that are not allowed; it is {allowed!r}."] if dropped else []


def embedding_options(arguments: CreateEmbedding) -> dict[str, Any]:
    """Options of ``recipe.create_embedding``, but its name."""
    return {
        "num_vectors": arguments.num_vectors_per_token,
        "init_text": arguments.init_text,
        "overwrite": arguments.overwrite_old,
    }


def hypernetwork_options(arguments: CreateHypernetwork) -> dict[str, Any]:
    """Options of ``recipe.create_hypernetwork``, but its name."""
    structure = numbers("layer structure", arguments.layer_structure)
    dropout = None
    if arguments.use_dropout and (arguments.dropout_structure or "").strip():
        dropout = numbers("dropout structure", arguments.dropout_structure or "")
    elif arguments.use_dropout:
        dropout = legacy_dropout_structure(structure, last_layer_dropout=True)
    return {
        "sizes": [int(size) for size in arguments.enable_sizes] or None,
        "layer_structure": structure,
        "activation_func": arguments.activation_func or "linear",
        "weight_init": arguments.weight_init or "Normal",
        "add_layer_norm": arguments.add_layer_norm,
        "dropout_structure": dropout,
        "overwrite": arguments.overwrite_old,
    }


def refuse_existing(path: Path, overwrite_old: bool) -> None:
    """UsageError when an adapter of that name is there, in either format, and shall not be replaced."""
    taken = next((each for each in (path, path.with_suffix(".safetensors")) if each.exists()), None)
    if taken is not None and not overwrite_old:
        raise UsageError(f"{taken} exists already; choose another name, or set overwrite_old to replace it.")


# --- train -----------------------------------------------------------------------------------------------------------


def train_settings(arguments: TrainArguments) -> dict[str, Any]:
    """Fields of ``TrainSettings``, but the model; relative paths are left as they are."""
    every = arguments.create_image_every
    card = isinstance(arguments, TrainEmbedding) and arguments.save_image_with_stored_embedding
    return {
        "kind": arguments.KIND,
        "name": arguments.trained,
        "learning_rate": arguments.learn_rate,
        "batch_size": arguments.batch_size,
        "gradient_accumulation_steps": arguments.gradient_step,
        "data": arguments.data_root,
        "log_dir": arguments.log_directory,
        "width": arguments.training_width,
        "height": arguments.training_height,
        "resize": "stretch",  # as the reference does
        "varsize": arguments.varsize,
        "steps": arguments.steps,
        "clip_grad_mode": "none" if arguments.clip_grad_mode in (None, "", "disabled") else arguments.clip_grad_mode,
        "clip_grad_value": arguments.clip_grad_value,
        "shuffle_tags": arguments.shuffle_tags,
        "tag_drop_out": arguments.tag_drop_out,
        "latent_sampling_method": arguments.latent_sampling_method,
        "use_weight": arguments.use_weight,
        "save_every": arguments.save_every,
        "template": arguments.template_filename,
        "preview_every": every,
        "preview_with_embedding": card and every > 0,
        **(_txt2img_previews(arguments) if arguments.preview_from_txt2img else {}),
    }


def _txt2img_previews(arguments: TrainArguments) -> dict[str, Any]:
    seed = arguments.preview_seed
    return {
        "preview_prompts": [arguments.preview_prompt],
        "preview_negative_prompt": arguments.preview_negative_prompt,
        "preview_steps": arguments.preview_steps,
        "preview_sampler": arguments.preview_sampler_name,
        "preview_guidance_scale": arguments.preview_cfg_scale,
        "preview_seed": secrets.randbelow(2**32) if seed == -1 else seed,
        "preview_width": arguments.preview_width,
        "preview_height": arguments.preview_height,
    }


def clamped(settings: Mapping[str, Any], pictures: int) -> tuple[dict[str, Any], list[str]]:
    """Batch and accumulation made smaller, as the webui does, where there are fewer pictures; with remarks.

    Args:
        settings: those that ``train_settings`` gives.
        pictures: how many there are in an epoch.
    """
    batch = max(1, min(settings["batch_size"], pictures))
    accumulation = max(1, min(settings["gradient_accumulation_steps"], pictures // batch))
    made = {"batch_size": batch, "gradient_accumulation_steps": accumulation}
    names = {"batch_size": "batch_size", "gradient_accumulation_steps": "gradient_step"}
    remarks = [
        f"{names[name]} is {settings[name]}, but there are {pictures} pictures; it is {value}."
        for name, value in made.items()
        if value != settings[name]
    ]
    return {**settings, **made}, remarks


def count_pictures(folder: str | Path) -> int:
    """How many pictures there may be in an epoch; DataError when the folder cannot be read."""
    return sum(file.repeats for file in list_pictures(Source.parse(folder).trained()).files)


# --- preprocess ------------------------------------------------------------------------------------------------------


def preprocess_settings(arguments: Preprocess, *, captioner: str = "", tagger: str = "") -> dict[str, Any]:
    """Fields of ``PreprocessSettings``; relative paths are left as they are.

    Args:
        captioner: BLIP model for ``process_caption``.
        tagger: for ``process_caption_deepbooru``.

    Raises:
        UsageError: one of these is asked for, but not there.
    """
    if arguments.process_caption and not captioner:
        raise UsageError(missing_describer("captioner", "process_caption is on"))
    if arguments.process_caption_deepbooru and not tagger:
        raise UsageError(missing_describer("tagger", "process_caption_deepbooru is on"))
    return {
        "source": arguments.process_src,
        "destination": arguments.process_dst,
        "width": arguments.process_width,
        "height": arguments.process_height,
        "existing_captions": arguments.preprocess_txt_action,
        "keep_original_size": arguments.process_keep_original_size,
        "flip": arguments.process_flip,
        "split": arguments.process_split,
        "split_threshold": arguments.split_threshold,
        "overlap_ratio": arguments.overlap_ratio,
        "captioner": captioner if arguments.process_caption else "",
        "tagger": tagger if arguments.process_caption_deepbooru else "",
        "focal_crop": arguments.process_focal_crop,
        "focal_face_weight": arguments.process_focal_crop_face_weight,
        "focal_entropy_weight": arguments.process_focal_crop_entropy_weight,
        "focal_corner_weight": arguments.process_focal_crop_edges_weight,
        "focal_debug": arguments.process_focal_crop_debug,
        "multicrop": arguments.process_multicrop,
        "multicrop_min_dim": arguments.process_multicrop_mindim,
        "multicrop_max_dim": arguments.process_multicrop_maxdim,
        "multicrop_min_area": arguments.process_multicrop_minarea,
        "multicrop_max_area": arguments.process_multicrop_maxarea,
        "multicrop_objective": _OBJECTIVES[arguments.process_multicrop_objective],
        "multicrop_threshold": arguments.process_multicrop_threshold,
        "validation_share": arguments.validation_share,
    }


# --- paths -----------------------------------------------------------------------------------------------------------


def at_root(settings: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """Settings whose relative paths start at ``root``, as they do in the webui."""
    places = ("data", "log_dir", "source", "destination")
    return {name: str(root / value) if name in places and value else value for name, value in settings.items()}
