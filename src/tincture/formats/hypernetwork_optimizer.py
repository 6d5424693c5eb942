"""The webui's ``NAME.pt.optim``: the optimizer's state beside a hypernetwork file.

A dict of ``optimizer_name``, ``hash`` (first 10 hex digits of the hypernetwork file's sha256) and
``optimizer_state_dict``. It is used only when the hash fits.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tincture.errors import FileFormatError
from tincture.formats.files import atomic_torch_save, safe_torch_load, short_hash


def write_hypernetwork_optimizer(
    path: str | os.PathLike[str], optimizer_name: str, optimizer_state: Mapping[str, Any]
) -> None:
    """Writes ``PATH.optim`` beside the hypernetwork file ``path``, bound to its present bytes by their hash.

    Args:
        path: the hypernetwork file, already written.
        optimizer_name: the optimizer's class name, such as ``AdamW``.
        optimizer_state: its ``state_dict()``.

    Raises:
        FileFormatError: there is no file ``path``.
        StorageError: a full disk, no permission.
    """
    content = {
        "optimizer_name": optimizer_name,
        "hash": short_hash(path),
        "optimizer_state_dict": dict(optimizer_state),
    }
    atomic_torch_save(content, optimizer_path(path))


def read_hypernetwork_optimizer(path: str | os.PathLike[str]) -> tuple[str, dict[str, Any]] | None:
    """The optimizer's name and state beside the hypernetwork file ``path``; None when there is none that fits it.

    Raises:
        FileFormatError: the file beside it is damaged.
    """
    sidecar = optimizer_path(path)
    if not sidecar.is_file():
        return None
    try:
        content = safe_torch_load(sidecar)
    except FileFormatError as error:
        raise FileFormatError(f"{error} Remove it to go on without.") from error
    state = content.get("optimizer_state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise FileFormatError(f"{sidecar} holds no optimizer state; remove it to go on without.")
    if content.get("hash") != short_hash(path):
        return None
    name = content.get("optimizer_name")
    return name if isinstance(name, str) else "", state


def optimizer_path(path: str | os.PathLike[str]) -> Path:
    """Where the optimizer state of the adapter file ``path`` lies: ``NAME.pt.optim``."""
    return Path(f"{os.fspath(path)}.optim")
