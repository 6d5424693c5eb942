"""The webui's textual-inversion file ``NAME.pt``, and ``NAME.pt.optim`` beside it.

The file is a dict: ``string_to_param`` {"*": float32 (num_vectors, width)}, ``string_to_token`` {"*": 265}, ``name``,
``step``, ``sd_checkpoint``, ``sd_checkpoint_name``. In files of 2022 ``string_to_param`` may be a
``torch.nn.ParameterDict`` and the rest may be missing. ComfyUI and diffusers read the same files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tincture.errors import FileFormatError, UsageError
from tincture.formats.files import atomic_torch_save, require_own_values, safe_torch_load

# Readers know text encoders only by the width of their vectors; narrower ones are like CLIP-L.
_ENCODER_OF_WIDTH = {1024: "clip_h", 1280: "clip_g"}
# The id of "*" in CLIP's vocabulary, which the webui writes into every file.
_STAR_TOKEN = 265
# Readers pass over keys they do not know.
_PROVENANCE_KEY = "tincture"


@dataclass
class EmbeddingFile:
    """What an embedding file holds.

    Attributes:
        vectors: by text encoder name (``clip_l``; ``clip_h`` for SD 2), float32 (num_vectors, width).
        step: optimizer steps trained.
        model_hash: first 10 hex digits of the checkpoint's sha256, "" when unknown.
        provenance: JSON values about how the file was made.
    """

    vectors: dict[str, Tensor]
    name: str
    step: int = 0
    model_name: str = ""
    model_hash: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)


def read_embedding_file(path: str | os.PathLike[str]) -> EmbeddingFile:
    """Reads an embedding file without running code in it.

    Raises:
        FileFormatError: no such file, damaged, or no embedding.
        StorageError: the system refuses to read it.
    """
    content = safe_torch_load(path)
    parameters = content.get("string_to_param") if isinstance(content, dict) else None
    parameters = getattr(parameters, "_parameters", parameters)
    if not isinstance(content, dict) or not isinstance(parameters, dict) or not parameters:
        raise FileFormatError(f"{os.fspath(path)} is no embedding: it has no vectors under string_to_param.")
    vectors = _read_vectors(path, next(iter(parameters.values())))
    step = content.get("step")
    return EmbeddingFile(
        vectors={_ENCODER_OF_WIDTH.get(vectors.shape[1], "clip_l"): vectors},
        name=_text(content.get("name")) or Path(path).stem,
        step=step if isinstance(step, int) else 0,
        model_name=_text(content.get("sd_checkpoint_name")),
        model_hash=_text(content.get("sd_checkpoint")),
        provenance=_read_provenance(content.get(_PROVENANCE_KEY)),
    )


def write_embedding_file(path: str | os.PathLike[str], file: EmbeddingFile) -> None:
    """Writes the webui's ``.pt``, whole or not at all.

    Raises:
        UsageError: vectors for more than one text encoder, which this format has no place for.
        StorageError: a full disk, no permission.
    """
    if len(file.vectors) != 1:
        raise UsageError(
            f"Embedding {file.name!r} has vectors for {', '.join(file.vectors) or 'no text encoder'}; "
            f"a .pt file holds those of exactly one."
        )
    (vectors,) = file.vectors.values()
    content: dict[str, Any] = {
        "string_to_token": {"*": _STAR_TOKEN},
        "string_to_param": {"*": vectors.detach().to("cpu", torch.float32, copy=True).contiguous()},
        "name": file.name,
        "step": file.step,
        "sd_checkpoint": file.model_hash or None,
        "sd_checkpoint_name": file.model_name or None,
    }
    if file.provenance:
        content[_PROVENANCE_KEY] = json.dumps(file.provenance, sort_keys=True)
    atomic_torch_save(content, path)


def checksum(vectors: Tensor) -> str:
    """The webui's checksum of an embedding's vectors (num_vectors, width): 4 hex digits.

    Over the flattened vectors times 100, each cut to a whole number v: r = (r * 281 XOR v * 997) mod 2^32; the low
    16 bits count.
    """
    r = 0
    for v in (vectors.detach().float().cpu().reshape(-1) * 100).to(torch.int64).tolist():
        r = (r * 281 ^ v * 997) & 0xFFFFFFFF
    return f"{r & 0xFFFF:04x}"


def write_embedding_optimizer(
    path: str | os.PathLike[str], vectors: Tensor, optimizer_state: Mapping[str, Any]
) -> None:
    """Writes ``PATH.optim`` beside the embedding file ``path``, bound to ``vectors`` by their checksum.

    Args:
        path: the embedding file.
        vectors: (num_vectors, width), as in that file.
        optimizer_state: the optimizer's ``state_dict()``.

    Raises:
        StorageError: a full disk, no permission.
    """
    content = {"hash": checksum(vectors), "optimizer_state_dict": dict(optimizer_state)}
    atomic_torch_save(content, f"{os.fspath(path)}.optim")


def read_embedding_optimizer(path: str | os.PathLike[str], vectors: Tensor) -> dict[str, Any] | None:
    """The optimizer state beside the embedding file ``path``; None when there is none that fits ``vectors``.

    Raises:
        FileFormatError: the file beside it is damaged.
    """
    sidecar = Path(f"{os.fspath(path)}.optim")
    if not sidecar.is_file():
        return None
    content = safe_torch_load(sidecar)
    state = content.get("optimizer_state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise FileFormatError(f"{sidecar} holds no optimizer state; remove it to go on without.")
    return state if content.get("hash") == checksum(vectors) else None


def _read_vectors(path: str | os.PathLike[str], value: object) -> Tensor:
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim not in (1, 2) or not value.numel():
        raise FileFormatError(f"{os.fspath(path)}: vectors of the shape (num_vectors, width) are needed.")
    require_own_values(path, "string_to_param", value)
    return value.detach().float().reshape(-1, value.shape[-1])


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _read_provenance(value: object) -> dict[str, Any]:
    try:
        provenance = json.loads(_text(value) or "{}")
    except ValueError:
        return {}
    return provenance if isinstance(provenance, dict) else {}
