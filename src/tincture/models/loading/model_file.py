"""A file that a user gives as a model: opened, or told what it is instead."""

from __future__ import annotations

from pathlib import Path

from tincture.errors import FileFormatError, ModelError, TinctureError
from tincture.formats.contents import describe_contents
from tincture.formats.tensor_file import TensorFile, open_tensors
from tincture.models.families import Family
from tincture.models.loading.checkpoint_kind import CLIP_TABLE, Checkpoint, describe_other, find_checkpoint
from tincture.models.loading.config_files import read_config
from tincture.models.loading.sources import PICTO

_KNOWN = "Stable Diffusion 1, 2 and XL checkpoints can be used"
# Adapters are far smaller, and are read whole to be told.
_LARGEST_ADAPTER = 2**30


def open_model_file(path: Path) -> TensorFile:
    """Opens a file of weights; ModelError says why it cannot be read, or what it is instead."""
    try:
        return open_tensors(path)
    except FileFormatError as error:
        if adapter := _adapter(path):
            raise ModelError(f"{path} is {adapter}; {_KNOWN}.") from error
        raise ModelError(str(error)) from error


def require_checkpoint(file: TensorFile) -> Checkpoint:
    """What the file holds; ModelError where it is no checkpoint of a known family."""
    found = find_checkpoint(file.shapes)
    if found is not None:
        return found
    what = describe_file(file)
    if what is None:
        example = next(iter(file.shapes))
        raise ModelError(f"{file.path} is no checkpoint that is known (it holds {example[:100]!r}); {_KNOWN}.")
    raise ModelError(f"{file.path} is {what}; {_KNOWN}.")


def require_text_encoders(file: TensorFile, found: Checkpoint, family: Family) -> None:
    """ModelError where the file has fewer text encoders than ``family`` needs."""
    there, needed = found.text_encoders, family.text_encoders
    if len(there) < len(needed):
        names = " and ".join(spec.name for spec in needed)
        has = ", ".join(f"one of width {encoder.width}" for encoder in there) or "none"
        raise ModelError(
            f"{file.path} lacks a text encoder: {family.title} needs {names}, and there is {has}; get the whole "
            f"checkpoint."
        )


def pictos_configs(file: TensorFile, found: Checkpoint) -> Path | None:
    """Where stands what no shape tells of a file of picto, whose vocabulary and layers are its own; None for others."""
    if found.text_encoders[0].layout != "clip":
        return None
    config = read_config(PICTO / "text_encoder/config.json")
    table = file.shapes[f"{found.text_encoders[0].prefix}{CLIP_TABLE}"].size
    return PICTO if table == (config["vocab_size"], config["hidden_size"]) else None


def open_part_file(path: Path) -> TensorFile:
    """Opens a file of weights in a part's folder; ModelError says why it cannot be read."""
    try:
        return open_tensors(path)
    except FileFormatError as error:
        raise ModelError(f"The {path.parent.name} in {path.parent} cannot be loaded: {error}") from error


def describe_file(file: TensorFile) -> str | None:
    """What a file is that is no checkpoint of a known family, such as ``a LoRA``; None when nothing is known of it."""
    return describe_other(file.shapes) or _adapter(file.path)


def _adapter(path: Path) -> str | None:
    try:
        return describe_contents(path) if path.stat().st_size <= _LARGEST_ADAPTER else None
    except (TinctureError, OSError):
        return None
