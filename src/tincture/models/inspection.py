"""What a model's file is, told by the names and shapes of its tensors, its metadata and what lies beside it."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path
from typing import Any

from tincture.errors import FileFormatError, TinctureError
from tincture.formats.file_kinds import DECODER_ALONE
from tincture.formats.files import first_bytes
from tincture.formats.metadata import provenance_of
from tincture.formats.tensor_file import TensorFile, open_tensors
from tincture.models.families import FAMILIES
from tincture.models.loading.checkpoint_kind import (
    Checkpoint,
    describe_other,
    find_checkpoint,
    lacks_encoder,
    lone_decoder_prefix,
    names_under,
    sizes_under,
    vae_prefix,
)
from tincture.models.loading.configs import PUBLISHED, ShapeError, latent_channels
from tincture.models.loading.folder_family import family_of
from tincture.models.loading.prediction import Prediction, find_prediction

# Torch files of adapters are smaller; what reads them has limits of its own.
_SMALLEST_TORCH_MODEL = 4 * 2**20
_ADAPTERS = ("a LoRA",)
_READERS = ("webui", "Forge", "ComfyUI", "SD.Next", "diffusers", "Tincture")


def inspect_model(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Traits of the checkpoint or VAE in the file ``path``; None where it is no file of a model.

    Raises:
        FileFormatError: there is no such file.
        StorageError: the system refuses to read it.
    """
    file = _open(Path(path))
    if file is None:
        return None
    found = find_checkpoint(file.shapes)
    if found is not None:
        return {**_checkpoint(file, found), **_numbers(file)}
    what = describe_other(file.shapes)
    if what in ("a VAE", DECODER_ALONE):
        return {**_vae(file), **_numbers(file)}
    if what is None or what in _ADAPTERS:
        return None
    notes = [f"It is {what}, which Tincture cannot use."]
    return {"kind": "model", "format": what.split(" ", 1)[1], "read_by": [], "notes": notes, **_numbers(file)}


def describe_model(path: Path) -> str:
    """The model in the file or folder ``path`` in a few words, such as ``Stable Diffusion XL``, or why it is none."""
    try:
        if path.is_dir():
            return f"{family_of(path).title}, a diffusers folder"
        file = open_tensors(path)
        found = find_checkpoint(file.shapes)
        if found is None:
            return f"cannot be used: it is {describe_other(file.shapes) or 'no checkpoint that is known'}"
        prediction = _prediction(file, found)
    except TinctureError as error:
        return f"cannot be used: {error}"
    inpainting = " for inpainting" if found.in_channels > 4 else ""
    says_v = prediction is not None and prediction.prediction_type == "v_prediction"
    return f"{FAMILIES[found.family].title}{inpainting}{', predicts v' if says_v else ''}"


def _open(path: Path) -> TensorFile | None:
    head = first_bytes(path, 9)
    if head[8:9] != b"{" and os.path.getsize(path) < _SMALLEST_TORCH_MODEL:
        return None
    with contextlib.suppress(FileFormatError):
        return open_tensors(path)
    return None


def _checkpoint(file: TensorFile, found: Checkpoint) -> dict[str, Any]:
    family = FAMILIES[found.family]
    prediction = _prediction(file, found)
    vae = "encoder of the VAE" if lacks_encoder(file.shapes) else "VAE"
    missing = [] if found.vae_prefix is not None else [vae]
    if len(found.text_encoders) < len(family.text_encoders):
        missing.append("text encoder")
    notes = [f"It has no {part}; {_REMEDY[part]}." for part in missing]
    if found.uses_ema:
        notes.append("The plain weights of its U-Net are missing; the running mean of them (EMA) is used.")
    if prediction is None:
        notes.append("It does not say what it predicts; a trial of its U-Net tells when it is loaded.")
    return {
        "kind": "checkpoint",
        "format": found.family,
        "family": family.title,
        "inpainting": found.in_channels > 4,
        "prediction_type": prediction and prediction.prediction_type,
        "prediction_told_by": prediction and prediction.told_by,
        "zero_terminal_snr": prediction and prediction.zero_terminal_snr,
        "text_encoders": {
            spec.name: encoder.width for spec, encoder in zip(family.text_encoders, found.text_encoders, strict=False)
        },
        "read_by": [] if missing else list(_READERS),
        "provenance": provenance_of(file.metadata),
        "notes": notes,
    }


_REMEDY = {
    "VAE": "give the file of one by --vae",
    "encoder of the VAE": "give the file of a whole VAE by --vae",
    "text encoder": "get the whole checkpoint",
}


def _prediction(file: TensorFile, found: Checkpoint) -> Prediction | None:
    """What its files say, or what is usual for its family; None where only a trial tells."""
    stated = find_prediction(file.path, file.shapes, file.metadata)
    usual = PUBLISHED[found.family].usual_prediction
    return stated or (Prediction(usual, False, "usual for its family") if usual else None)


def _vae(file: TensorFile) -> dict[str, Any]:
    prefix = lone_decoder_prefix(file.shapes) if lacks_encoder(file.shapes) else vae_prefix(file.shapes)
    try:
        channels = latent_channels(sizes_under(file.shapes, names_under(file.shapes, prefix or "")))
    except ShapeError:
        channels = None
    is_original = prefix is not None and not any(name.startswith("decoder.mid_block.") for name in file.shapes)
    layout = "original" if is_original else "diffusers"
    notes = [] if channels == 4 else ["Stable Diffusion 1, 2 and XL need a VAE of 4 latent channels."]
    if lacks_encoder(file.shapes):
        notes.append("It has only its decoder: without the encoder no picture can be encoded for training.")
    usable = not notes
    readers = list(_READERS) if usable else []
    return {"kind": "vae", "format": layout, "latent_channels": channels, "read_by": readers, "notes": notes}


def _numbers(file: TensorFile) -> dict[str, Any]:
    shapes = [shape for shape in file.shapes.values() if shape.size]
    dtypes = {str(shape.dtype).removeprefix("torch.") for shape in shapes if shape.dtype is not None}
    count = sum(math.prod(shape.size) for shape in shapes)
    return {"container": file.container, "parameters": count, "dtype": ", ".join(sorted(dtypes))}
