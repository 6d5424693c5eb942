"""What a file of tensors says of itself without its tensors being read; nothing here loads torch.

For a glance at files that nobody named: what cannot be told counts as unknown, and no error is raised.
"""

from __future__ import annotations

import io
import json
import os
import pickletools
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

_LONGEST_HEADER = 32 * 2**20
_LONGEST_PICKLE = 16 * 2**20
_LEGACY_PICKLES = 5
# DataParallel and torch.compile put these between the names of a module and of what is in it.
_WRAPPERS = ("module", "_orig_mod")
_MODEL_NAME, _MODEL_HASH = "sd_checkpoint_name", "sd_checkpoint"


@dataclass(frozen=True)
class Size:
    """The size of a tensor; ``()`` where only its name is known."""

    size: tuple[int, ...] = ()


def unwrapped(names: Iterable[str]) -> dict[str, str]:
    """The names as they stand in the file, by the names without what modules were wrapped in."""
    found: dict[str, str] = {}
    every = list(names)
    for name in every:
        parts = name.removeprefix("state_dict.").split(".")
        found[".".join(part for part in parts if part not in _WRAPPERS)] = name
    return found if len(found) == len(every) else {name: name for name in every}


def safetensors_header(path: Path) -> dict[str, Any] | None:
    """The header of a safetensors file that is as long as it says; None of any other file."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= _LONGEST_HEADER:
                return None
            header = json.loads(file.read(length))
            entries = [entry for name, entry in header.items() if name != "__metadata__"]
            end = max((entry["data_offsets"][1] for entry in entries), default=0)
            return header if os.fstat(file.fileno()).st_size == 8 + length + end else None
    except (OSError, ValueError, RecursionError, AttributeError, LookupError, TypeError):
        return None


def trained_on(path: Path) -> tuple[str, str]:
    """Name and short hash of the base model that an adapter's file names, each empty where it does not.

    Args:
        path: of a format that can be trained: ``.pt`` or ``.safetensors``.
    """
    header = safetensors_header(path)
    if header is not None:
        metadata = header.get("__metadata__")
        texts = metadata.items() if isinstance(metadata, dict) else ()
        objects = [_object_in(text) for key, text in texts if str(key).startswith("tincture.")]
        found: dict[str, Any] = next((each for each in objects if _MODEL_NAME in each or _MODEL_HASH in each), {})
    else:
        found = dict(_texts_behind(path, (_MODEL_NAME, _MODEL_HASH)))
    name, short = (found.get(key) for key in (_MODEL_NAME, _MODEL_HASH))
    return name if isinstance(name, str) else "", short if isinstance(short, str) else ""


def _object_in(text: object) -> dict[str, Any]:
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def pickled_head(path: Path) -> bytes:
    """The pickles of a torch file in which the names of its tensors stand; empty for any other file."""
    try:
        with path.open("rb") as file:
            head = file.read(2)
            if head != b"PK":
                return head + file.read(_LONGEST_PICKLE) if head[:1] == b"\x80" else b""
            with zipfile.ZipFile(file) as archive:
                inner = next((info for info in archive.infolist() if info.filename.endswith("data.pkl")), None)
                return archive.read(inner) if inner and inner.file_size <= _LONGEST_PICKLE else b""
    # Of damaged archives zipfile raises errors of many families.
    except Exception:
        return b""


def _texts_behind(path: Path, keys: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The text that stands behind each of the keys, as in a dict."""
    key = ""
    for is_value, value in _steps(path):
        if key and is_value and isinstance(value, str):
            yield key, value
        if is_value:
            key = value if isinstance(value, str) and value in keys else ""


def _steps(path: Path) -> Iterator[tuple[bool, Any]]:
    """What the pickles put onto their stack, one after the other: whether it is a value of a dict or list, and it."""
    pickles = io.BytesIO(pickled_head(path))
    try:
        for _ in range(_LEGACY_PICKLES):
            yield from _values(pickles)
    # pickletools raises whatever comes up where bytes are damaged, or at the end of all pickles.
    except Exception:
        return


def _values(pickle: BinaryIO) -> Iterator[tuple[bool, Any]]:
    memo: dict[Any, Any] = {}
    last: Any = None
    for opcode, argument, _ in pickletools.genops(pickle):
        if opcode.name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[argument] = last
        elif opcode.name == "MEMOIZE":
            memo[len(memo)] = last
        elif opcode.name in ("BINGET", "LONG_BINGET", "GET"):
            last = memo.get(argument)
            yield True, last
        else:
            last = argument if isinstance(argument, str) and "UNICODE" in opcode.name else None
            yield bool(opcode.stack_after), last
