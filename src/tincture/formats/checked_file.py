"""Files of tensors that programs keep for themselves, such as caches: checked whenever they are read, never trusted.

A sha256 (32 bytes), then what it is of: a safetensors file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import safetensors.torch
from torch import Tensor

from tincture.errors import FileFormatError
from tincture.formats.files import read_bytes, write_atomically
from tincture.formats.safetensors_file import parse_safetensors

_DIGEST = hashlib.sha256().digest_size


def read_checked(path: Path, most: int | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, on the CPU, and the metadata.

    Args:
        path: the file.
        most: bytes it may have; None for any number.

    Raises:
        FileFormatError: no such file, damaged, cut off or of another kind.
        StorageError: the system refuses to read it.
    """
    content = read_bytes(path, most)
    if hashlib.sha256(memoryview(content)[_DIGEST:]).digest() != content[:_DIGEST]:
        raise FileFormatError(f"{path} is damaged, truncated or of another kind; delete it.")
    return parse_safetensors(path, content[_DIGEST:])


def write_checked(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes ``tensors``, whole or not at all. A power cut may damage the file, which shows when it is read.

    Raises:
        StorageError: a full disk, no permission.
    """
    # Copies, since the library refuses tensors that share their memory.
    own = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    saved = safetensors.torch.save(own, dict(metadata))

    def write(file: BinaryIO) -> None:
        file.write(hashlib.sha256(saved).digest())
        file.write(saved)

    write_atomically(path, write, durably=False)
