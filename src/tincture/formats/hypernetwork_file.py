"""Hypernetwork files: the webui's ``NAME.pt``, and a safetensors layout of our own.

The ``.pt`` is a dict. An int key, the context width, holds a tuple (K state, V state) of tensors named
``linear.N.weight`` and ``linear.N.bias``; string keys hold the description. Files of 2022 name the layers ``linear1``
and ``linear2``, lack most of the description and may be in torch's legacy format; they are read as well. ComfyUI reads
the same files, and takes widths for whatever ``int()`` reads.

The safetensors layout: tensors ``WIDTH.k.linear.N.weight`` and so on (``v`` for values); in the metadata
``tincture.hypernetwork``, the description of the ``.pt`` as JSON under the same names, ``tincture.provenance`` (JSON),
and the keys of the modelspec standard. docs/files.md describes both.

Tensors keep the precision they have, so that files convert into each other without loss.
"""

from __future__ import annotations

import json
import os
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tincture.errors import FileFormatError
from tincture.formats.field_values import numbers, switch, text, whole_number
from tincture.formats.file_kinds import describe_values
from tincture.formats.files import atomic_torch_save, parse_torch, read_bytes
from tincture.formats.hypernetwork_states import State, check_shapes, context_width_of, read_pair
from tincture.formats.metadata import json_object, metadata_of, provenance_of, text_of
from tincture.formats.safetensors_file import is_safetensors, parse_safetensors, write_safetensors
from tincture.formats.tensor_file import refuse_large_file
from tincture.kinds.layer_structure import legacy_dropout_structure

# Forty times the usual layers of Stable Diffusion 1 fit, and two thousand tensors at some fifty steps each.
_LARGEST_FILE, _MOST_STEPS = 4 * 2**30, 100_000
_NEEDED = "give the file of a hypernetwork"
# Of the extension Hypernetwork-MonkeyPatch, whose blocks add their layers to the input, stretched to their width.
_RESIDUAL_KEYS = ("skip_connection", "upsample_linear")
_RESIDUAL_NAME = re.compile(r"linear\.\d+\.(linear|upsample_layer)\.")
# The webui passes over string keys it does not know.
_PROVENANCE_KEY = "tincture"
_METADATA_DESCRIPTION = "tincture.hypernetwork"
# The width of the text context tells the family; Stable Diffusion 1 where none of these stands.
_FAMILIES = {1024: "stable-diffusion-v2", 2048: "stable-diffusion-xl-v1-base"}


@dataclass
class HypernetworkFile:
    """What a hypernetwork file holds. Defaults are what a missing key means, ``activate_output`` included.

    Attributes:
        states: by context width, the tensors (float16, bfloat16, float32 or float64) of the K module and of the V
            module, in the order of the layers.
        step: optimizer steps trained.
        dropout_structure: None in files that say only ``use_dropout``.
        model_hash: first 10 hex digits of the checkpoint's sha256, "" when unknown.
        provenance: JSON values about how the file was made. ``author``, ``license``, ``description`` and ``date`` are
            texts; ``metadata`` holds what other programs put into the metadata of a safetensors file.
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


# --- reading ----------------------------------------------------------------------------------------------------------


def read_hypernetwork_file(path: str | os.PathLike[str]) -> HypernetworkFile:
    """Reads a hypernetwork file of either kind, told by its content, without running code in it.

    Raises:
        FileFormatError: no such file, damaged, larger than 4 GiB, no hypernetwork, or weights that are NaN or infinite
            or do not fit the layer structure.
        StorageError: the system refuses to read it.
    """
    refuse_large_file(path, _LARGEST_FILE, _NEEDED)
    content = read_bytes(path, most=_LARGEST_FILE)
    if is_safetensors(content):
        pairs, description, provenance = _parse_safetensors(path, content)
    else:
        pairs, description, provenance = _parse_torch(path, parse_torch(path, content, _MOST_STEPS, _NEEDED))
    if not pairs:
        raise FileFormatError(f"{os.fspath(path)} is no hypernetwork: it has no layers keyed by context width.")
    _refuse_residual(path, description, pairs)
    states = {width: read_pair(path, width, pair) for width, pair in pairs.items()}
    structure = numbers(path, description, "layer_structure") or (1, 2, 1)
    check_shapes(path, states, structure)
    return HypernetworkFile(
        states=states,
        name=text_of(description.get("name")) or Path(path).stem,
        step=whole_number(path, description, "step"),
        layer_structure=structure,
        activation_func=text(path, description, "activation_func"),
        weight_init=text(path, description, "weight_initialization") or "Normal",
        add_layer_norm=switch(path, description, "is_layer_norm", False),
        activate_output=switch(path, description, "activate_output", True),
        use_dropout=switch(path, description, "use_dropout", False),
        dropout_structure=numbers(path, description, "dropout_structure"),
        last_layer_dropout=switch(path, description, "last_layer_dropout", False),
        model_name=text_of(description.get("sd_checkpoint_name")),
        model_hash=text_of(description.get("sd_checkpoint")),
        optional_info=text_of(description.get("optional_info")) or None,
        provenance=provenance,
    )


def _refuse_residual(path: str | os.PathLike[str], description: Mapping[Any, Any], pairs: Mapping[int, Any]) -> None:
    """Refuses what an extension of the webui made of other layers, which the webui itself cannot use either."""
    states = (state for pair in pairs.values() if isinstance(pair, tuple | list) for state in pair)
    names = (str(name) for state in states if isinstance(state, Mapping) for name in state)
    found = next((key for key in _RESIDUAL_KEYS if description.get(key)), None)
    if found or any(_RESIDUAL_NAME.match(name) for name in names):
        raise FileFormatError(
            f"{os.fspath(path)} is a residual hypernetwork ({found or _RESIDUAL_KEYS[0]}), as the extension "
            f"Hypernetwork-MonkeyPatch makes them; these are not supported, and act in the webui only with that "
            f"extension. Use one that was made without residual blocks."
        )


_Parsed = tuple[dict[int, Any], Mapping[Any, Any], dict[str, Any]]


def _parse_torch(path: str | os.PathLike[str], content: object) -> _Parsed:
    if not isinstance(content, dict):
        raise FileFormatError(f"{os.fspath(path)} is no hypernetwork: it holds a {type(content).__name__}, not a dict.")
    pairs: dict[int, Any] = {}
    for key, value in content.items():
        width = context_width_of(key)
        if width in pairs:
            raise FileFormatError(f"{os.fspath(path)} holds the width {width} twice; the file is damaged.")
        if width is not None:
            pairs[width] = value
    if not pairs:
        _refuse_another_kind(path, content)
    return pairs, content, json_object(content.get(_PROVENANCE_KEY))


def _refuse_another_kind(path: str | os.PathLike[str], values: Mapping[Any, Any]) -> None:
    what = describe_values(values)
    if what not in (None, "a hypernetwork"):
        raise FileFormatError(f"{os.fspath(path)} is no hypernetwork: it is {what}; {_NEEDED}.")


def _parse_safetensors(path: str | os.PathLike[str], content: bytes) -> _Parsed:
    tensors, metadata = parse_safetensors(path, content)
    description = json_object(metadata.get(_METADATA_DESCRIPTION))
    if not description:
        _refuse_another_kind(path, tensors)
        raise FileFormatError(
            f"{os.fspath(path)} is no hypernetwork: its metadata has no description under {_METADATA_DESCRIPTION}."
        )
    pairs: dict[int, tuple[State, State]] = {}
    for name, tensor in tensors.items():
        first, _, rest = name.partition(".")
        role, _, key = rest.partition(".")
        width = context_width_of(first)
        if width is None or role not in ("k", "v"):
            raise FileFormatError(
                f"{os.fspath(path)}: the tensor {reprlib.repr(name)} is not named like 768.k.linear.0.weight."
            )
        pairs.setdefault(width, ({}, {}))["kv".index(role)][key] = tensor
    return pairs, description, provenance_of(metadata, known=[_METADATA_DESCRIPTION])


# --- writing ----------------------------------------------------------------------------------------------------------


def write_hypernetwork_pt(path: str | os.PathLike[str], file: HypernetworkFile) -> None:
    """Writes the webui's ``.pt``, whole or not at all.

    Raises:
        StorageError: a full disk, no permission.
    """
    # Each tensor gets a storage of its own size: a view would carry the whole of what it looks into.
    content: dict[Any, Any] = {
        width: tuple(
            {key: tensor.detach().to("cpu", copy=True).contiguous() for key, tensor in state.items()} for state in pair
        )
        for width, pair in sorted(file.states.items())
    }
    content |= as_written(file)
    if file.provenance:
        content[_PROVENANCE_KEY] = json.dumps(file.provenance, sort_keys=True)
    atomic_torch_save(content, path)


def write_hypernetwork_safetensors(path: str | os.PathLike[str], file: HypernetworkFile) -> None:
    """Writes the safetensors layout, whole or not at all.

    Raises:
        StorageError: a full disk, no permission.
    """
    tensors = {
        f"{width}.{role}.{key}": tensor
        for width, pair in file.states.items()
        for role, state in zip("kv", pair, strict=True)
        for key, tensor in state.items()
    }
    metadata = metadata_of(
        file.provenance,
        architecture=f"{_family(file.states)}/hypernetwork",
        implementation="tincture",
        title=file.name,
        usage_hint=f"<hypernet:{file.name}:1>",
    )
    metadata[_METADATA_DESCRIPTION] = json.dumps(as_written(file))
    write_safetensors(path, tensors, metadata)


HYPERNETWORK_WRITERS: Mapping[str, Callable[[str | os.PathLike[str], HypernetworkFile], None]] = MappingProxyType(
    {"pt": write_hypernetwork_pt, "safetensors": write_hypernetwork_safetensors}
)


def write_hypernetwork_file(path: str | os.PathLike[str], file: HypernetworkFile) -> None:
    """Writes ``NAME.safetensors`` in the safetensors layout, and everything else as the webui's ``.pt``.

    Raises:
        StorageError: a full disk, no permission.
    """
    kind = "safetensors" if Path(path).suffix.lower() == ".safetensors" else "pt"
    HYPERNETWORK_WRITERS[kind](path, file)


def as_written(file: HypernetworkFile) -> dict[str, Any]:
    """The description in the words of the webui's file, so that it acts the same in as many programs as can be.

    The webui goes by the dropout structure where there is one; ComfyUI knows ``use_dropout`` alone, and then drops out
    while pictures are drawn. It knows no activation None.
    """
    dropout = file.dropout_structure
    if dropout is None and file.use_dropout:
        dropout = legacy_dropout_structure(file.layer_structure, file.last_layer_dropout)
    return {
        "step": file.step,
        "name": file.name,
        "layer_structure": list(file.layer_structure),
        "activation_func": file.activation_func or "linear",
        "is_layer_norm": file.add_layer_norm,
        "weight_initialization": file.weight_init,
        "sd_checkpoint": file.model_hash or None,
        "sd_checkpoint_name": file.model_name or None,
        "activate_output": file.activate_output,
        "use_dropout": False,
        "dropout_structure": None if dropout is None else list(dropout),
        "last_layer_dropout": file.last_layer_dropout,
        "optional_info": file.optional_info,
    }


def _family(widths: Iterable[int]) -> str:
    return next((family for width, family in _FAMILIES.items() if width in widths), "stable-diffusion-v1")
