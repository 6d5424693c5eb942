"""The webui's hypernetwork file ``NAME.pt``, and ``NAME.pt.optim`` beside it.

The file is a dict. An int key, the context width, holds a tuple (K state, V state) of tensors named
``linear.N.weight`` and ``linear.N.bias``; string keys hold the description. Files of 2022 name the layers ``linear1``
and ``linear2``, lack most of the description and may be in torch's legacy format; they are read as well. ComfyUI reads
the same files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tincture.errors import FileFormatError
from tincture.formats.files import atomic_torch_save, require_own_values, safe_torch_load, short_hash

State = dict[str, Tensor]

_OLD_NAMES = {"linear1": "linear.0", "linear2": "linear.1"}
# The webui passes over string keys it does not know.
_PROVENANCE_KEY = "tincture"


@dataclass
class HypernetworkFile:
    """What a hypernetwork file holds. Defaults are what a missing key means, ``activate_output`` included.

    Attributes:
        states: by context width, the tensors (float32) of the K module and of the V module.
        step: optimizer steps trained.
        dropout_structure: None in files that say only ``use_dropout``.
        model_hash: first 10 hex digits of the checkpoint's sha256, "" when unknown.
        provenance: JSON values about how the file was made.
    """

    states: dict[int, tuple[State, State]]
    name: str
    step: int = 0
    layer_structure: Sequence[float] = (1, 2, 1)
    activation_func: str | None = None
    weight_init: str = "Normal"
    add_layer_norm: bool = False
    activate_output: bool = True
    use_dropout: bool = False
    dropout_structure: Sequence[float] | None = None
    last_layer_dropout: bool = False
    model_name: str = ""
    model_hash: str = ""
    optional_info: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict)


def read_hypernetwork_file(path: str | os.PathLike[str]) -> HypernetworkFile:
    """Reads a hypernetwork file without running code in it.

    Raises:
        FileFormatError: no such file, damaged, or no hypernetwork.
        StorageError: the system refuses to read it.
    """
    content = safe_torch_load(path)
    if not isinstance(content, dict):
        raise FileFormatError(f"{os.fspath(path)} is no hypernetwork: it holds a {type(content).__name__}, not a dict.")
    states = {int(key): _read_pair(path, key, value) for key, value in content.items() if _is_width(key)}
    if not states:
        raise FileFormatError(f"{os.fspath(path)} is no hypernetwork: it has no layers keyed by context width.")
    return HypernetworkFile(
        states=states,
        name=_text(content.get("name")) or Path(path).stem,
        step=_value(path, content, "step", int, 0),
        layer_structure=_numbers(path, content, "layer_structure") or (1, 2, 1),
        activation_func=_value(path, content, "activation_func", str, None),
        weight_init=_value(path, content, "weight_initialization", str, "Normal"),
        add_layer_norm=_value(path, content, "is_layer_norm", bool, False),
        activate_output=_value(path, content, "activate_output", bool, True),
        use_dropout=_value(path, content, "use_dropout", bool, False),
        dropout_structure=_numbers(path, content, "dropout_structure"),
        last_layer_dropout=_value(path, content, "last_layer_dropout", bool, False),
        model_name=_text(content.get("sd_checkpoint_name")),
        model_hash=_text(content.get("sd_checkpoint")),
        optional_info=_text(content.get("optional_info")) or None,
        provenance=_read_provenance(content.get(_PROVENANCE_KEY)),
    )


def write_hypernetwork_file(path: str | os.PathLike[str], file: HypernetworkFile) -> None:
    """Writes the webui's ``.pt``, whole or not at all; tensors become float32 on the CPU.

    Raises:
        StorageError: a full disk, no permission.
    """
    content: dict[int | str, Any] = {
        width: (_portable(k), _portable(v)) for width, (k, v) in sorted(file.states.items())
    }
    content |= {
        "step": file.step,
        "name": file.name,
        "layer_structure": list(file.layer_structure),
        "activation_func": file.activation_func,
        "is_layer_norm": file.add_layer_norm,
        "weight_initialization": file.weight_init,
        "sd_checkpoint": file.model_hash or None,
        "sd_checkpoint_name": file.model_name or None,
        "activate_output": file.activate_output,
        "use_dropout": file.use_dropout,
        "dropout_structure": None if file.dropout_structure is None else list(file.dropout_structure),
        "last_layer_dropout": file.last_layer_dropout,
        "optional_info": file.optional_info,
    }
    if file.provenance:
        content[_PROVENANCE_KEY] = json.dumps(file.provenance, sort_keys=True)
    atomic_torch_save(content, path)


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
    content = safe_torch_load(sidecar)
    state = content.get("optimizer_state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise FileFormatError(f"{sidecar} holds no optimizer state; remove it to go on without.")
    if content.get("hash") != short_hash(path):
        return None
    return _text(content.get("optimizer_name")), state


def optimizer_path(path: str | os.PathLike[str]) -> Path:
    """Where the optimizer state of the adapter file ``path`` lies: ``NAME.pt.optim``."""
    return Path(f"{os.fspath(path)}.optim")


def _is_width(key: object) -> bool:
    # ComfyUI takes whatever int() reads, so digits in a string count.
    return (isinstance(key, int) and not isinstance(key, bool)) or (isinstance(key, str) and key.isdecimal())


def _read_pair(path: str | os.PathLike[str], width: object, pair: object) -> tuple[State, State]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise FileFormatError(f"{os.fspath(path)}: width {width} needs a pair of layers (K, V); the file is damaged.")
    k, v = (_read_state(path, width, state) for state in pair)
    return k, v


def _read_state(path: str | os.PathLike[str], width: object, state: object) -> State:
    if not isinstance(state, dict):
        raise FileFormatError(f"{os.fspath(path)}: the layers of width {width} hold no named tensors.")
    tensors: State = {}
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor) or not value.is_floating_point():
            raise FileFormatError(f"{os.fspath(path)}: {key!r} of width {width} is no tensor of floats.")
        require_own_values(path, f"{key} of width {width}", value)
        first, _, rest = key.partition(".")
        tensors[f"{_OLD_NAMES[first]}.{rest}" if first in _OLD_NAMES else key] = value.float().contiguous()
    return tensors


def _value(path: str | os.PathLike[str], content: Mapping[Any, Any], key: str, kind: type, default: Any) -> Any:
    value = content.get(key)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise FileFormatError(f"{os.fspath(path)}: {key} is {value!r}; a value of type {kind.__name__} is needed.")
    return value


def _numbers(path: str | os.PathLike[str], content: Mapping[Any, Any], key: str) -> tuple[float, ...] | None:
    value = content.get(key)
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not all(isinstance(number, int | float) for number in value):
        raise FileFormatError(f"{os.fspath(path)}: {key} is {value!r}; a list of numbers is needed.")
    return tuple(value)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _read_provenance(value: object) -> dict[str, Any]:
    try:
        provenance = json.loads(_text(value) or "{}")
    except ValueError:
        return {}
    return provenance if isinstance(provenance, dict) else {}


def _portable(state: State) -> State:
    # Each tensor gets a storage of its own size: a view would carry the whole of what it looks into.
    return {key: value.detach().to("cpu", torch.float32, copy=True).contiguous() for key, value in state.items()}
