"""Embedding files of every format: read by what they hold, written by the name of a format.

``embedding_content`` lists whose keys are known; ``embedding_picture`` reads and writes pictures. docs/files.md says
which program reads what.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from tincture.errors import UsageError
from tincture.formats.embedding_content import (
    EmbeddingFile,
    embedding_of,
    encoder_of,
    only_vectors,
    placeholder,
    unclear_encoder,
    webui_content,
)
from tincture.formats.embedding_picture import is_picture, parse_picture, write_embedding_png, write_embedding_webp
from tincture.formats.field_values import whole_number
from tincture.formats.files import atomic_torch_save, parse_torch, read_bytes
from tincture.formats.metadata import json_object, metadata_of, provenance_of, text_of
from tincture.formats.safetensors_file import is_safetensors, parse_safetensors, write_safetensors
from tincture.formats.tensor_file import refuse_large_file

# Ten thousand vectors fit. What is larger is a model, or was made to fill the memory.
_LARGEST_FILE = 64 * 2**20
# A webui's file takes some sixty steps to build.
_MOST_STEPS = 10_000
_NEEDED = "give the file of an embedding"
_METADATA_DESCRIPTION = "tincture.embedding"
_FAMILY_OF_ENCODER = {"clip_l": "stable-diffusion-v1", "clip_h": "stable-diffusion-v2"}
_SDXL_ENCODERS = ("clip_l", "clip_g")


# --- reading ----------------------------------------------------------------------------------------------------------


def read_embedding_file(path: str | os.PathLike[str]) -> EmbeddingFile:
    """Reads an embedding file of any format, told by its content, without running code in it.

    Raises:
        FileFormatError: no such file, damaged, larger than 64 MiB, no embedding, or one with vectors that are NaN,
            infinite or of the wrong shape.
        StorageError: the system refuses to read it.
    """
    refuse_large_file(path, _LARGEST_FILE, _NEEDED)
    content = read_bytes(path, most=_LARGEST_FILE)
    if is_picture(content):
        return parse_picture(path, content)
    if is_safetensors(content):
        return _parse_safetensors(path, content)
    return embedding_of(path, parse_torch(path, content, _MOST_STEPS, _NEEDED))


def _parse_safetensors(path: str | os.PathLike[str], content: bytes) -> EmbeddingFile:
    tensors, metadata = parse_safetensors(path, content)
    file = embedding_of(path, tensors)
    description = json_object(metadata.get(_METADATA_DESCRIPTION))
    file.name = text_of(description.get("name")) or file.name
    if len(file.vectors) == 1 and file.layout != "sdxl":
        (vectors,) = file.vectors.values()
        file.vectors = {encoder_of(vectors, description.get("text_encoder")): vectors}
    file.step = whole_number(path, description, "step")
    file.model_name = text_of(description.get("sd_checkpoint_name"))
    file.model_hash = text_of(description.get("sd_checkpoint"))
    file.provenance = provenance_of(metadata, known=[_METADATA_DESCRIPTION])
    return file


# --- writing ----------------------------------------------------------------------------------------------------------


def write_embedding_pt(path: str | os.PathLike[str], file: EmbeddingFile) -> None:
    """Writes the webui's ``.pt``, whole or not at all.

    Raises:
        UsageError: vectors for more than one text encoder, which this format has no place for.
        StorageError: a full disk, no permission.
    """
    atomic_torch_save(webui_content(file), path)


def write_embedding_bin(path: str | os.PathLike[str], file: EmbeddingFile) -> None:
    """Writes diffusers' ``.bin``: the vectors under the name and nothing else, since diffusers allows one key only.

    Raises:
        UsageError: several text encoders, or a name that is a key of another format.
        StorageError: a full disk, no permission.
    """
    atomic_torch_save({placeholder(file): only_vectors(file, "diffusers' files")}, path)


def write_embedding_diffusers(path: str | os.PathLike[str], file: EmbeddingFile) -> None:
    """Writes diffusers' ``.safetensors``: the vectors under the name; the rest stands in the metadata.

    Raises:
        UsageError, StorageError: see ``write_embedding_bin``.
    """
    _write_safetensors(path, file, {placeholder(file): only_vectors(file, "diffusers' files")}, "diffusers")


def write_embedding_kohya(path: str | os.PathLike[str], file: EmbeddingFile) -> None:
    """Writes kohya's ``.safetensors``: the vectors under ``emb_params``; the rest stands in the metadata.

    Raises:
        UsageError, StorageError: see ``write_embedding_pt``.
    """
    _write_safetensors(path, file, {"emb_params": only_vectors(file, "kohya's files")}, "kohya-ss/sd-scripts")


def write_embedding_onetrainer(path: str | os.PathLike[str], file: EmbeddingFile) -> None:
    """Writes OneTrainer's ``.safetensors`` for SD 1 and 2: the vectors under ``emp_params``; that for XL is SDXL's.

    Raises:
        UsageError, StorageError: see ``write_embedding_pt``.
    """
    _write_safetensors(path, file, {"emp_params": only_vectors(file, "OneTrainer's files")}, "OneTrainer")


def write_embedding_sdxl(path: str | os.PathLike[str], file: EmbeddingFile) -> None:
    """Writes SDXL's ``.safetensors``: ``clip_l`` and ``clip_g``; the rest stands in the metadata.

    Raises:
        UsageError: vectors for other text encoders than these two.
        StorageError: a full disk, no permission.
    """
    if set(file.vectors) != set(_SDXL_ENCODERS):
        raise UsageError(
            f"Embedding {file.name!r} has vectors for {', '.join(file.vectors) or 'no text encoder'}, but a file for "
            f"SDXL holds those of clip_l and clip_g; choose another format."
        )
    _write_safetensors(path, file, {key: file.vectors[key].float() for key in _SDXL_ENCODERS}, "kohya-ss/sd-scripts")


EMBEDDING_WRITERS: Mapping[str, Callable[[str | os.PathLike[str], EmbeddingFile], None]] = MappingProxyType(
    {
        "pt": write_embedding_pt,
        "bin": write_embedding_bin,
        "safetensors": write_embedding_diffusers,
        "kohya": write_embedding_kohya,
        "sdxl": write_embedding_sdxl,
        "onetrainer": write_embedding_onetrainer,
        "png": write_embedding_png,
        "webp": write_embedding_webp,
    }
)
"""Writers by the name of their format; each raises UsageError for what the format has no place for."""


def write_embedding_file(path: str | os.PathLike[str], file: EmbeddingFile) -> None:
    """Writes ``file`` in the format of the path's suffix; a ``.safetensors`` with two text encoders is SDXL's.

    Other suffixes than ``.bin``, ``.safetensors``, ``.png`` and ``.webp`` give the webui's ``.pt``.

    Raises:
        UsageError: vectors for more text encoders than the format has a place for.
        StorageError: a full disk, no permission.
    """
    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix == "safetensors" and len(file.vectors) > 1:
        suffix = "sdxl"
    EMBEDDING_WRITERS.get(suffix, write_embedding_pt)(path, file)


def _write_safetensors(
    path: str | os.PathLike[str], file: EmbeddingFile, tensors: Mapping[str, Tensor], implementation: str
) -> None:
    family = "stable-diffusion-xl-v1-base" if len(tensors) > 1 else _FAMILY_OF_ENCODER.get(next(iter(file.vectors)), "")
    metadata = metadata_of(
        file.provenance,
        architecture=f"{family}/textual-inversion",
        implementation=implementation,
        title=file.name,
        usage_hint=file.name,
    )
    description: dict[str, Any] = {
        "name": file.name,
        "step": file.step,
        "sd_checkpoint": file.model_hash or None,
        "sd_checkpoint_name": file.model_name or None,
    }
    if encoder := unclear_encoder(file.vectors):
        description["text_encoder"] = encoder
    write_safetensors(path, tensors, {**metadata, _METADATA_DESCRIPTION: json.dumps(description)})
