"""Files of many large tensors, such as whole models: what they hold is known at once, tensors are read on demand.

Safetensors, and files of ``torch.save`` (zip and legacy). Code in them is never run. Tensors of safetensors and zip
files are mapped into memory, so that only what is touched is read; the legacy format has to be read whole.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tincture.errors import FileFormatError, StorageError, TinctureError
from tincture.formats.file_kinds import HEAD, describe_names, describe_values, refuse_other_file, refuse_other_zip
from tincture.formats.files import first_bytes
from tincture.formats.pickle_check import ForbiddenPickleError, names_in_pickles
from tincture.formats.pickled_numpy import Nothing, has_stand_in, stand_ins
from tincture.formats.safetensors_file import is_safetensors
from tincture.formats.tensor_names import unwrapped

# Names of thousands of tensors and a thumbnail fit; the library takes up to 100 MB, and a gigabyte of memory for that.
_LONGEST_HEADER = 32 * 2**20
# What training programs leave in a checkpoint beside the weights. It is not loaded: an empty object stands for it.
_HARMLESS_PACKAGES = ("pytorch_lightning", "lightning", "lightning_fabric", "numpy", "omegaconf")
_HARMLESS_NAMES = ("argparse.Namespace", "collections.defaultdict", "typing.Any")
_NEEDED = "give a .safetensors or .ckpt file"
_DEEPEST_STATE = 4  # levels of "state_dict" within "state_dict"
_CONTAINERS = ("state_dict", "model_state_dict", "model", "module")
_SAFE_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class Shape:
    """What is known of a tensor without reading it. ``dtype`` is None for kinds of numbers that torch does not have."""

    size: tuple[int, ...]
    dtype: torch.dtype | None


class TensorFile:
    """An opened file.

    Attributes:
        path: the file.
        container: ``safetensors``, ``torch`` or ``torch-legacy``.
        shapes: of every tensor, by name. What training programs wrap modules in (``module.``, ``_orig_mod.``) is left
            out of the names.
        metadata: the texts of a safetensors file's header; empty for others.
    """

    def __init__(
        self, path: Path, container: str, shapes: Mapping[str, Shape], metadata: Mapping[str, str], source: Any
    ) -> None:
        self.path, self.container, self.metadata = path, container, metadata
        self._names = unwrapped(shapes)
        self.shapes: Mapping[str, Shape] = {name: shapes[own] for name, own in self._names.items()}
        self._source = source

    def tensor(self, name: str) -> Tensor:
        """The tensor of that name on the CPU. Its memory may be the file's: copy what must outlive a change of it."""
        own = self._names[name]
        tensor: Tensor = self._source.get_tensor(own) if self.container == "safetensors" else self._source[own]
        return tensor


def open_tensors(path: str | os.PathLike[str]) -> TensorFile:
    """Opens a safetensors or torch file, told by its content.

    The tensors of a torch file may stand under ``state_dict`` and the like, all or some of them, as in checkpoints of
    training programs.

    Raises:
        FileFormatError: no such file, empty, truncated, of another kind, with code in it, or without any tensor.
        StorageError: the system refuses to read it.
    """
    path = Path(path)
    head = first_bytes(path, HEAD)
    if not head:
        raise FileFormatError(f"{path} is empty (0 bytes); copy or download it again.")
    refuse_other_file(path, head, _NEEDED)
    opened = _open_safetensors(path, head) if head[8:9] == b"{" else _open_torch(path, head)
    if not opened.shapes:
        raise FileFormatError(f"{path} holds no tensors by name; a file of a model's weights is needed.")
    return opened


def refuse_large_file(path: str | os.PathLike[str], most: int, needed: str) -> None:
    """Refuses a file of more than ``most`` bytes whose tensors tell what it is instead.

    Raises:
        FileFormatError: it is a whole model or the like; ``needed`` says what to give.
    """
    try:
        what = describe_names(open_tensors(path).shapes) if Path(path).stat().st_size > most else None
    except (TinctureError, OSError):  # which the reader will say itself
        return
    if what:
        raise FileFormatError(f"{os.fspath(path)} is {what}; {needed}.")


# --- safetensors ------------------------------------------------------------------------------------------------------


def _open_safetensors(path: Path, head: bytes) -> TensorFile:
    length = int.from_bytes(head[:8], "little")
    if not is_safetensors(head) or length > _LONGEST_HEADER:
        raise FileFormatError(
            f"{path} is refused: it claims a header of {length} bytes, and {_LONGEST_HEADER} are allowed; it is "
            f"damaged or no safetensors file. Copy or download it again."
        )
    try:
        # Checks that the tensors fill the file exactly, without gaps or overlaps.
        source = safe_open(path, framework="pt")
        header = json.loads(first_bytes(path, 8 + length)[8:])
    except (SafetensorError, ValueError) as error:
        raise FileFormatError(
            f"{path} is a damaged or truncated safetensors file ({error}); copy or download it again."
        ) from error
    except OSError as error:
        raise StorageError(f"{path} could not be read: {error.strerror or error}.") from error
    except RuntimeError as error:  # torch's own for a mapping that the system refuses
        raise StorageError(f"{path} could not be mapped into memory; close other programs and try again.") from error
    metadata = header.pop("__metadata__", None) or {}
    shapes = {name: Shape(tuple(entry["shape"]), _SAFE_DTYPES.get(entry["dtype"])) for name, entry in header.items()}
    return TensorFile(path, "safetensors", shapes, metadata, source)


# --- torch files ------------------------------------------------------------------------------------------------------


def _is_harmless(name: str) -> bool:
    return name.partition(".")[0] in _HARMLESS_PACKAGES or name in _HARMLESS_NAMES


def _open_torch(path: Path, head: bytes) -> TensorFile:
    is_zip = head.startswith(b"PK")
    try:
        with path.open("rb") as file:
            if is_zip:
                refuse_other_zip(path, file)
                file.seek(0)
            names = names_in_pickles(file, harmless=_is_harmless)
        ignored: list[Any] = [(Nothing, name) for name in names if _is_harmless(name) and not has_stand_in(name)]
        with torch.serialization.safe_globals([*ignored, *stand_ins(names)]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except FileFormatError:
        raise
    except ForbiddenPickleError as error:
        raise FileFormatError(f"{path} is not loaded: {error}.") from error
    except pickle.UnpicklingError as error:
        raise FileFormatError(
            f"{path} is not loaded: it is damaged, or holds Python objects that could run code; get the model as "
            f".safetensors."
        ) from error
    # Damaged bytes reach deep into torch before anything notices, so every kind of exception stands for "damaged".
    except Exception as error:
        raise FileFormatError(
            f"{path} cannot be read as a torch or safetensors file; it is damaged, truncated or of another kind."
        ) from error
    tensors = _state_of(content)
    what = describe_values(content) if not tensors and isinstance(content, Mapping) else None
    if what is not None:
        raise FileFormatError(f"{path} is {what}; {_NEEDED}.")
    shapes = {name: Shape(tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    return TensorFile(path, "torch" if is_zip else "torch-legacy", shapes, {}, tensors)


def _state_of(content: object) -> dict[str, Tensor]:
    """The tensors of ``content`` and of the dicts of tensors in it, which come first where a name stands twice."""
    found: dict[str, Tensor] = {}
    for _ in range(_DEEPEST_STATE + 1):
        if not isinstance(content, Mapping):
            break
        here = {key: value for key, value in content.items() if isinstance(key, str) and _is_plain(value)}
        found = {**found, **here}
        content = next((content[key] for key in _CONTAINERS if isinstance(content.get(key), Mapping)), None)
    return found


def _is_plain(value: object) -> bool:
    """Whether ``value`` is a dense tensor that has a number of its own for each of its elements."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta:
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()
