"""What a file holds, told by its content: which kind it is, and so which reader to hand it to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from tincture.errors import FileFormatError
from tincture.formats.embedding_file import read_embedding_file
from tincture.formats.embedding_picture import is_picture
from tincture.formats.file_kinds import HEAD, describe_values, refuse_other_file
from tincture.formats.files import entries_refused_by_webui, first_bytes, parse_torch, read_bytes
from tincture.formats.hypernetwork_states import context_width_of
from tincture.formats.lora_file import is_lora
from tincture.formats.safetensors_file import is_safetensors, parse_safetensors
from tincture.formats.tensor_file import refuse_large_file

# Those of the reader that allows most, the one of hypernetworks.
_LARGEST_FILE, _MOST_STEPS = 4 * 2**30, 100_000
_NEEDED = "give the file of an embedding, a hypernetwork or a LoRA"
# Of protocol 2 and later, as torch's legacy format begins.
_PICKLE = b"\x80"
# SDXL's XTI files have some thirty tensors, whole models hundreds.
_MOST_ENTRIES_OF_EMBEDDINGS = 100


_WORDS = {
    "embedding": "an embedding",
    "hypernetwork": "a hypernetwork",
    "lora": "a LoRA",
    "optimizer": "the state of an optimizer",
}


@dataclass(frozen=True)
class Contents:
    """What was found in a file.

    Attributes:
        kind: ``embedding`` (any picture too), ``hypernetwork``, ``lora`` or ``optimizer``.
        container: ``torch``, ``torch-legacy`` (as before 2020), ``safetensors``, ``png`` or ``webp``.
        values: the dict of a torch file, tensors by name of safetensors; empty for pictures.
        metadata: of safetensors.
        refused_entries: parts of a torch file for which the webui refuses it.
    """

    kind: str
    container: str
    values: Mapping[Any, Any] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    refused_entries: tuple[str, ...] = ()

    def tensors(self) -> Iterator[Tensor]:
        """All tensors in ``values``, at any depth, each once."""
        return _tensors(self.values)


def read_contents(path: str | os.PathLike[str]) -> Contents:
    """Tells what the file ``path`` holds. No more is checked than that needs; code in it is never run.

    Raises:
        FileFormatError: no such file, damaged, larger than 4 GiB, or nothing of a known kind.
        StorageError: the system refuses to read it.
    """
    head = first_bytes(path, HEAD)
    if is_picture(head):
        return Contents("embedding", "png" if head.startswith(b"\x89") else "webp")
    if head and not is_safetensors(head) and not head.startswith((b"PK", _PICKLE)):
        refuse_other_file(path, head, _NEEDED)
        raise FileFormatError(
            f"{os.fspath(path)} is no adapter file: it is neither a torch nor a safetensors file, nor a PNG or WebP "
            f"picture."
        )
    refuse_large_file(path, _LARGEST_FILE, _NEEDED)
    content = read_bytes(path, most=_LARGEST_FILE)
    if is_safetensors(content):
        tensors, metadata = parse_safetensors(path, content)
        kind = "hypernetwork" if "tincture.hypernetwork" in metadata else _kind(path, tensors)
        return Contents(kind, "safetensors", tensors, metadata)
    values = parse_torch(path, content, _MOST_STEPS, _NEEDED)
    if not isinstance(values, Mapping):
        raise FileFormatError(
            f"{os.fspath(path)} is no adapter file: it holds a value of type {type(values).__name__}, not tensors by "
            f"name."
        )
    container = "torch" if content.startswith(b"PK") else "torch-legacy"
    return Contents(_kind(path, values), container, values, refused_entries=entries_refused_by_webui(content))


def describe_contents(path: str | os.PathLike[str]) -> str:
    """What the file holds, in words such as ``a LoRA``; errors as of ``read_contents``, and of a broken embedding."""
    kind = read_contents(path).kind
    if kind == "embedding":  # which is what a file of anything else is taken for at first
        read_embedding_file(path)
    return _WORDS[kind]


def _kind(path: str | os.PathLike[str], values: Mapping[Any, Any]) -> str:
    if "optimizer_state_dict" in values:
        return "optimizer"
    if "string_to_param" in values:
        return "embedding"
    if any(context_width_of(key) is not None for key in values):
        return "hypernetwork"
    if is_lora(values):
        return "lora"
    if len(values) > _MOST_ENTRIES_OF_EMBEDDINGS:
        what = describe_values(values)
        raise FileFormatError(
            f"{os.fspath(path)} is no embedding, hypernetwork, LoRA or optimizer state: it has {len(values)} entries, "
            f"as a whole model has{f'; it is {what}' if what else ''}."
        )
    return "embedding"


def _tensors(values: object) -> Iterator[Tensor]:
    waiting, seen = [values], set()
    while waiting:
        value = waiting.pop()
        value = getattr(value, "_parameters", value)  # a ParameterDict in files of 2022
        # A pickle may hold one object a thousand times, each of which holds another a thousand times.
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping | list | tuple):
            waiting.extend(value.values() if isinstance(value, Mapping) else value)
