"""What a file is: its kind, format and traits, which programs read it, and what is odd about it."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tincture.adapters.files.programs import acts_the_same_in
from tincture.adapters.files.warnings import container_warnings, embedding_warnings, hypernetwork_warnings
from tincture.errors import FileFormatError
from tincture.formats.contents import Contents, read_contents
from tincture.formats.embedding_file import read_embedding_file
from tincture.formats.embedding_optimizer import checksum
from tincture.formats.files import sha256_file
from tincture.formats.hash_cache import sha256_of
from tincture.formats.hypernetwork_file import read_hypernetwork_file
from tincture.formats.lora_file import describe_lora
from tincture.formats.metadata import json_object, provenance_of, text_of
from tincture.formats.picture_text import read_parameters
from tincture.kinds.layer_structure import legacy_dropout_structure
from tincture.models.inspection import inspect_model

# As far as known from the code and documentation of these programs; docs/files.md says more.
_READERS = {
    "pt": ("webui", "Forge", "ComfyUI", "SD.Next", "diffusers"),
    "bin": ("diffusers", "webui", "Forge", "ComfyUI"),
    "safetensors": ("diffusers", "webui", "Forge", "ComfyUI"),
    "kohya": ("sd-scripts", "webui", "Forge", "ComfyUI", "diffusers"),
    "sdxl": ("webui", "Forge", "ComfyUI", "SD.Next", "OneTrainer"),
    "png": ("webui", "Forge"),
    "webp": ("webui", "Forge"),
    "hcp": ("HCP-Diffusion",),
    "onetrainer": ("OneTrainer",),
    "xti": ("sd-scripts",),
}
_LORA_READERS = {
    "kohya": ("webui", "Forge", "ComfyUI", "SD.Next", "diffusers"),
    "diffusers": ("diffusers", "ComfyUI", "SD.Next"),
}
_FIRST = ("path", "kind", "format", "container")
_LAST = ("bytes", "sha256", "short_hash", "read_by", "provenance", "lost", "notes")


def inspect_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Says what the file ``path`` is: an embedding, hypernetwork, LoRA, optimizer state, picture, checkpoint or VAE.

    Returns:
        plain values for JSON; docs/files.md lists the keys. ``lost`` holds what our reader passes over, ``notes`` what
        is odd about the file, both as sentences.

    Raises:
        FileFormatError: no such file, damaged, or of no known kind.
        StorageError: the system refuses to read it.
    """
    model = inspect_model(path)
    if model is not None:
        return _report(path, model, sha256_of([Path(path)]))
    found = read_contents(path)
    describe = {"embedding": _embedding, "hypernetwork": _hypernetwork, "lora": _lora, "optimizer": _optimizer}
    own = describe[found.kind](Path(path), found)
    own["notes"] = [*own.get("notes", ()), *container_warnings(Path(path), found)]
    if found.refused_entries:
        own["read_by"] = [program for program in own["read_by"] if program not in ("webui", "Forge")]
    return _report(path, {**own, "container": found.container}, sha256_file(path))


def _report(path: str | os.PathLike[str], own: dict[str, Any], sha256: str) -> dict[str, Any]:
    """``own`` with what is told of every file."""
    size = os.path.getsize(path)
    report = {**own, "path": os.fspath(path), "bytes": size, "sha256": sha256, "short_hash": sha256[:10]}
    return {key: _plain(report[key]) for key in sorted(report, key=_place)}


def _place(key: str) -> int:
    """Where a key of a report stands: traits of the kind between what all files have."""
    return _FIRST.index(key) - len(_FIRST) if key in _FIRST else 1 + _LAST.index(key) if key in _LAST else 0


# --- kinds ------------------------------------------------------------------------------------------------------------


def _embedding(path: Path, found: Contents) -> dict[str, Any]:
    try:
        file = read_embedding_file(path)
    except FileFormatError:
        picture = _picture(path) if found.container in ("png", "webp") else None
        if picture is None:
            raise
        return picture
    rows = torch.cat([vectors.reshape(-1) for vectors in file.vectors.values()])
    layout = embedding_format(file.layout, found.container)
    return {
        "kind": "embedding",
        "format": layout,
        "name": file.name,
        "step": file.step,
        "num_vectors": len(next(iter(file.vectors.values()))),
        "widths": {encoder: vectors.shape[1] for encoder, vectors in file.vectors.items()},
        "norms": {
            encoder: [round(norm, 4) for norm in vectors.norm(dim=1).tolist()]
            for encoder, vectors in file.vectors.items()
        },
        "parameters": rows.numel(),
        "dtype": _dtypes(found) or "float32",
        "model_name": file.model_name,
        "model_hash": file.model_hash,
        "checksum": checksum(rows),
        "read_by": [*_READERS[layout], "Tincture"],
        "provenance": file.provenance,
        "lost": list(file.lost),
        "notes": list(embedding_warnings(path, found, file)),
    }


def embedding_format(layout: str, container: str) -> str:
    """The name of an embedding's format, as docs/files.md and ``tincture convert`` have it.

    Args:
        layout: see ``EmbeddingFile.layout``.
        container: see ``Contents.container``.
    """
    if layout == "webui":
        return container if container in ("png", "webp") else "pt"
    if layout == "diffusers":
        return "safetensors" if container == "safetensors" else "bin"
    return "xti" if layout == "kohya-xti" else layout


def _picture(path: Path) -> dict[str, Any] | None:
    """What a picture without an embedding says of how it was drawn; None where it says nothing."""
    parameters = read_parameters(path)
    if parameters is None:
        return None
    return {
        "kind": "picture",
        "format": "parameters",
        "prompt": parameters.prompt,
        "negative_prompt": parameters.negative_prompt,
        "settings": dict(parameters.settings),
    }


def _hypernetwork(path: Path, found: Contents) -> dict[str, Any]:
    file = read_hypernetwork_file(path)
    tensors = [tensor for pair in file.states.values() for state in pair for tensor in state.values()]
    dropout = file.dropout_structure
    if dropout is None and file.use_dropout:
        dropout = legacy_dropout_structure(file.layer_structure, file.last_layer_dropout)
    notes = list(hypernetwork_warnings(path, found, file))
    programs = acts_the_same_in(file, found)
    return {
        "kind": "hypernetwork",
        "format": "safetensors" if found.container == "safetensors" else "pt",
        "name": file.name,
        "step": file.step,
        "widths": sorted(file.states),
        "layer_structure": list(file.layer_structure),
        "activation_func": file.activation_func,
        "weight_init": file.weight_init,
        "add_layer_norm": file.add_layer_norm,
        "activate_output": file.activate_output,
        "use_dropout": file.use_dropout,
        "dropout_structure": None if dropout is None else list(dropout),
        "last_layer_dropout": file.last_layer_dropout,
        "parameters": sum(tensor.numel() for tensor in tensors),
        "dtype": _dtypes(found),
        "model_name": file.model_name,
        "model_hash": file.model_hash,
        "optional_info": file.optional_info,
        "read_by": programs,
        "acts_the_same_in": programs,
        "provenance": file.provenance,
        "notes": notes,
    }


def _lora(path: Path, found: Contents) -> dict[str, Any]:
    file = describe_lora(path, found.values)
    own = json_object(found.metadata.get("tincture.lora"))
    readers = _LORA_READERS.get(file.layout, ())
    notes = [] if file.finite else ["It holds NaN or infinite numbers, so it is broken; use an earlier copy."]
    return {
        "kind": "lora",
        "format": file.layout,
        "name": found.metadata.get("modelspec.title") or path.stem,
        "step": _whole(own.get("step", found.metadata.get("ss_steps"))),
        "layers": len(file.ranks),
        "ranks": sorted(set(file.ranks.values())),
        "parameters": sum(tensor.numel() for tensor in found.tensors() if tensor.ndim > 0),
        "dtype": _dtypes(found),
        "model_name": text_of(own.get("sd_checkpoint_name")) or found.metadata.get("ss_sd_model_name", ""),
        "model_hash": text_of(own.get("sd_checkpoint")) or found.metadata.get("ss_sd_model_hash", ""),
        "read_by": [program for program in readers if program != "diffusers" or not file.has_biases],
        "provenance": provenance_of(found.metadata),
        "notes": notes,
    }


def _optimizer(path: Path, found: Contents) -> dict[str, Any]:
    state = found.values["optimizer_state_dict"]
    if not isinstance(state, dict):
        raise FileFormatError(f"{path} holds no optimizer state; it is damaged.")
    name = text_of(found.values.get("optimizer_name"))
    bound_to = text_of(found.values.get("hash"))
    adapter = path.with_suffix("")
    fits = _fits(adapter, bound_to, "hypernetwork" if name else "embedding")
    notes = {None: [f"{adapter}, the file it belongs to, is not beside it."], False: [f"It does not fit {adapter}."]}
    return {
        "kind": "optimizer",
        "format": "optim",
        "belongs_to": "hypernetwork" if name else "embedding",
        # An embedding's has no name, since the webui knows one optimizer only.
        "optimizer_name": name or "AdamW",
        "step": _optimizer_step(state.get("state")),
        "hash": bound_to,
        "fits": fits,
        "parameters": sum(tensor.numel() for tensor in found.tensors() if tensor.ndim > 0),
        "dtype": _dtypes(found),
        "read_by": ["webui", "Forge", "Tincture"],
        "notes": notes.get(fits, []),
    }


def _fits(adapter: Path, bound_to: str, kind: str) -> bool | None:
    """Whether the optimizer's state belongs to the file beside it; None where there is none that can be read."""
    try:
        if kind == "hypernetwork":
            return sha256_file(adapter)[:10] == bound_to
        vectors = read_embedding_file(adapter).vectors.values()
    except FileFormatError:
        return None
    return checksum(torch.cat([rows.reshape(-1) for rows in vectors])) == bound_to


def _optimizer_step(state: object) -> int | None:
    """Steps of the first parameter, which all have in common."""
    first = next(iter(state.values()), None) if isinstance(state, dict) else None
    return _whole(first.get("step")) if isinstance(first, dict) else None


def _whole(value: object) -> int | None:
    if isinstance(value, Tensor):
        value = value.item() if value.numel() == 1 and value.is_floating_point() else None
    if isinstance(value, str):
        value = int(value) if value.isdecimal() and len(value) < 10 else None
    if isinstance(value, float):
        value = int(value) if value.is_integer() else None
    return value if isinstance(value, int) else None


def _dtypes(found: Contents) -> str:
    """The precisions of the file's tensors, but for single numbers such as counts of steps."""
    names = {str(tensor.dtype).removeprefix("torch.") for tensor in found.tensors() if tensor.ndim > 0}
    return ", ".join(sorted(names))


def _plain(value: Any) -> Any:
    """``value`` as strict JSON in UTF-8 can hold it, which a file's texts and numbers need not be."""
    if isinstance(value, dict):
        return {_plain(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.encode(errors="replace").decode() if isinstance(value, str) else value
