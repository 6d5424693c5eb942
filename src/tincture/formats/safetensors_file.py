"""Safetensors files of ours: tensors by name, and metadata after the modelspec standard.

The standard, https://github.com/Stability-AI/ModelSpec, version 1.0.1, names keys ``modelspec.*`` in the header's
``__metadata__``, so that programs can tell what a file is without looking at its tensors. All metadata values are text.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import BinaryIO

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from tincture.errors import FileFormatError
from tincture.formats.files import read_bytes, write_atomically
from tincture.formats.integrity import CHECKSUM, damaged, tensors_checksum

MODELSPEC_VERSION = "1.0.1"
# safetensors itself allows no longer header; one of that length takes seconds and a gigabyte to read.
_LONGEST_HEADER = 100_000_000
# Thousands of tensors, pages of provenance and a thumbnail fit.
_LONGEST_ADAPTER_HEADER = 4 * 2**20


def modelspec(*, architecture: str, implementation: str, title: str, **others: str) -> dict[str, str]:
    """Metadata of the modelspec standard: the three keys it demands, and those of ``others`` that are not empty.

    Args:
        architecture: such as ``stable-diffusion-v1/lora``.
        implementation: whose code the tensors' names are taken from.
        title: what people call the file.
        others: further keys of the standard, without the prefix ``modelspec.``, such as ``author`` and ``license``.
    """
    keys = {"architecture": architecture, "implementation": implementation, "title": title, **others}
    given = {f"modelspec.{key}": value for key, value in keys.items() if value}
    return {"modelspec.sai_model_spec": MODELSPEC_VERSION, **given}


def is_safetensors(content: bytes) -> bool:
    """Whether ``content`` begins as a safetensors file does: the length of a JSON header, then the header."""
    return content[8:9] == b"{" and int.from_bytes(content[:8], "little") <= _LONGEST_HEADER


def parse_safetensors(path: str | os.PathLike[str], content: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, on the CPU, and the metadata in ``content``, the bytes of the file ``path``.

    Raises:
        FileFormatError: damaged or truncated, as a checksum of ours tells too, or with a header beyond 4 MiB.
    """
    length = int.from_bytes(content[:8], "little")
    if _LONGEST_ADAPTER_HEADER < length <= _LONGEST_HEADER:
        raise FileFormatError(
            f"{os.fspath(path)} is refused: its header has {length} bytes; {_LONGEST_ADAPTER_HEADER} are allowed, far "
            f"more than an adapter file needs."
        )
    try:
        # Checks that the tensors fill the file exactly, without gaps or overlaps, before anything is allocated.
        tensors = safetensors.torch.load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise FileFormatError(
            f"{os.fspath(path)} is a damaged or truncated safetensors file ({error}); copy or save it again."
        ) from error
    header = json.loads(content[8 : 8 + length])
    metadata: dict[str, str] = header.get("__metadata__") or {}
    if CHECKSUM in metadata and metadata[CHECKSUM] != tensors_checksum(
        header, memoryview(content)[8 + length :], metadata
    ):
        raise damaged(path)
    return tensors, metadata


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, on the CPU, and the metadata of the file ``path``.

    Raises:
        FileFormatError: no such file, damaged or truncated, or with a header beyond 4 MiB.
        StorageError: the system refuses to read it.
    """
    return parse_safetensors(path, read_bytes(path))


def write_safetensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file, whole or not at all, with ``modelspec.hash_sha256`` of its tensors added.

    Where metadata of ours (``tincture.…``) is among it, a checksum of that and the tensors is too, see ``integrity``.
    Equal tensors and metadata give equal bytes.

    Raises:
        StorageError: a full disk, no permission.
    """
    # Copies, since the library refuses tensors that share their memory.
    own = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    saved = safetensors.torch.save(own)
    start = 8 + int.from_bytes(saved[:8], "little")
    values = memoryview(saved)[start:]
    # The library orders metadata at random, so the header is made here.
    complete = {**metadata, "modelspec.hash_sha256": f"0x{hashlib.sha256(values).hexdigest()}"}
    entries = json.loads(saved[8:start])
    if checksum := tensors_checksum(entries, values, complete):
        complete[CHECKSUM] = checksum
    header = json.dumps({"__metadata__": dict(sorted(complete.items())), **entries}).encode()
    header += b" " * (-len(header) % 8)

    def write(file: BinaryIO) -> None:
        for part in (len(header).to_bytes(8, "little"), header, values):
            file.write(part)

    write_atomically(path, write)
