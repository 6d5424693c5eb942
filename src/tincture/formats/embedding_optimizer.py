"""The webui's ``NAME.pt.optim``: the optimizer's state beside an embedding file.

A dict of ``hash``, the checksum of the embedding's vectors, and ``optimizer_state_dict``. It is used only when the hash
fits.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tincture.errors import FileFormatError
from tincture.formats.files import atomic_torch_save, safe_torch_load


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
    try:
        content = safe_torch_load(sidecar)
    except FileFormatError as error:
        raise FileFormatError(f"{error} Remove it to go on without.") from error
    state = content.get("optimizer_state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise FileFormatError(f"{sidecar} holds no optimizer state; remove it to go on without.")
    return state if content.get("hash") == checksum(vectors) else None
