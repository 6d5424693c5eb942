"""What an embedding file holds, whatever the format, and how the vectors of each format are recognised by their keys.

==============  ========================================================  =====================================
layout          keys                                                      written by
==============  ========================================================  =====================================
webui           ``string_to_param`` {"*": (n, width)}, ``name``, …        the webui, Forge
hcp             the same with (n, 2048): CLIP-L's 768, then CLIP-G's      HCP-Diffusion, for SDXL
diffusers       the placeholder token: (width,) or (n, width)             diffusers
kohya           ``emb_params``                                            kohya's sd-scripts
sdxl            ``clip_l`` (n, 768), ``clip_g`` (n, 1280)                 kohya's sd-scripts, diffusers, OneTrainer
onetrainer      ``emp_params`` (sic), ``…_out``                           OneTrainer
kohya-xti       ``IN01`` … ``MID`` … ``OUT11``: (n, 768) for each layer   kohya's sd-scripts
==============  ========================================================  =====================================
"""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tincture.errors import FileFormatError, UsageError
from tincture.formats.field_values import whole_number
from tincture.formats.file_kinds import describe_values
from tincture.formats.files import require_own_values
from tincture.formats.metadata import json_object, text_of

# A key of ours in the webui's dict, which every other reader passes over: provenance as JSON text.
_PROVENANCE_KEY = "tincture"
# Another one: the text encoder, where its width does not tell.
_ENCODER_KEY = "tincture_text_encoder"
# The id of "*" in CLIP's vocabulary, which the webui writes into every file.
_STAR_TOKEN = 265
# Readers know text encoders by the width of their vectors; those of other widths are like CLIP-L unless the file tells.
_ENCODER_OF_WIDTH = {768: "clip_l", 1024: "clip_h", 1280: "clip_g"}
_CLIP_L_WIDTH, _JOINED_WIDTH = 768, 2048
_XTI_LAYERS = ("IN01", "IN02", "IN04", "IN05", "IN07", "IN08", "MID", *(f"OUT{n:02}" for n in range(3, 12)))
# Of files with one tensor; any other key is a placeholder token, as diffusers writes it.
_LAYOUT_OF_KEY = {"emb_params": "kohya", "emp_params": "onetrainer"}
_OUTPUT_KEYS = ("clip_l_out", "clip_g_out", "emp_params_out")
_TAKEN_KEYS = frozenset({"string_to_param", "clip_l", "clip_g", "__metadata__", *_LAYOUT_OF_KEY, *_OUTPUT_KEYS})


@dataclass
class EmbeddingFile:
    """What an embedding file holds.

    Attributes:
        vectors: by text encoder name (``clip_l``; ``clip_h`` for SD 2; ``clip_l`` and ``clip_g`` for SDXL), float32
            (num_vectors, width).
        name: the placeholder in prompts.
        step: optimizer steps trained.
        model_hash: first 10 hex digits of the checkpoint's sha256, "" when unknown.
        provenance: JSON values about how the file was made. ``author``, ``license``, ``description`` and ``date`` are
            texts; ``metadata`` holds what other programs put into the metadata of a safetensors file.
        layout: whose keys the file that was read has, see the table above; "" for one not read from a file.
        lost: sentences about what of the file that was read is not in ``vectors``.
    """

    vectors: dict[str, Tensor]
    name: str
    step: int = 0
    model_name: str = ""
    model_hash: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    layout: str = ""
    lost: tuple[str, ...] = ()


def embedding_of(path: str | os.PathLike[str], content: object) -> EmbeddingFile:
    """Finds the embedding in ``content``, what the file ``path`` holds: the webui's dict, or tensors by name.

    Raises:
        FileFormatError: no embedding, more than one, vectors of the wrong type or shape, NaN or infinite ones.
    """
    if not isinstance(content, Mapping):
        raise _no_embedding(path, f"it holds a value of type {type(content).__name__}, not tensors by name")
    if "string_to_param" in content:
        return _webui(path, content)
    if set(content) == set(_XTI_LAYERS):
        return _xti(path, content)
    what = describe_values(content)
    if what not in (None, "an embedding"):
        raise _no_embedding(path, f"it is {what}; give the file of an embedding")
    outputs = sorted(key for key in content if key in _OUTPUT_KEYS)
    inputs = {key: value for key, value in content.items() if key not in outputs}
    if inputs and inputs.keys() <= {"clip_l", "clip_g"}:
        file = EmbeddingFile(_two_encoders(path, inputs), Path(path).stem, layout="sdxl")
    elif len(inputs) == 1:
        file = _single(path, *next(iter(inputs.items())))
    elif outputs and not inputs:
        raise _no_embedding(path, f"{_listed(outputs)} take the place of what a text encoder makes, not of a word")
    else:
        raise _no_embedding(path, f"it has {len(inputs)} entries ({_listed(inputs)}), which are of no known format")
    if outputs:
        file.layout = "onetrainer"
        file.lost = (
            f"{_listed(outputs)}: output vectors, which take the place of what the text encoder makes; only OneTrainer "
            f"can use them.",
        )
    return file


def webui_content(file: EmbeddingFile) -> dict[str, Any]:
    """``file`` as the webui's dict, its vectors a tensor of its own on the CPU, float32.

    Raises:
        UsageError: vectors for more than one text encoder.
    """
    content: dict[str, Any] = {
        "string_to_token": {"*": _STAR_TOKEN},
        "string_to_param": {"*": only_vectors(file, "the webui's formats")},
        "name": file.name,
        "step": file.step,
        "sd_checkpoint": file.model_hash or None,
        "sd_checkpoint_name": file.model_name or None,
    }
    if encoder := unclear_encoder(file.vectors):
        content[_ENCODER_KEY] = encoder
    if file.provenance:
        content[_PROVENANCE_KEY] = json.dumps(file.provenance, sort_keys=True)
    return content


def only_vectors(file: EmbeddingFile, format_name: str) -> Tensor:
    """The vectors of the single text encoder of ``file``, copied to the CPU, float32 (num_vectors, width).

    Raises:
        UsageError: there are several; ``format_name`` has no place for them.
    """
    if len(file.vectors) != 1:
        raise UsageError(
            f"Embedding {file.name!r} has vectors for {', '.join(file.vectors) or 'no text encoder'}, but "
            f"{format_name} hold those of exactly one; choose the format sdxl."
        )
    (vectors,) = file.vectors.values()
    return vectors.detach().to("cpu", torch.float32, copy=True).contiguous()


def unclear_encoder(vectors: Mapping[str, Tensor]) -> str:
    """The name of the only text encoder of ``vectors`` if readers could not tell it from the width, else ""."""
    unclear = [name for name, rows in vectors.items() if encoder_of(rows) != name]
    return unclear[0] if len(vectors) == 1 and unclear else ""


def encoder_of(vectors: Tensor, stated: object = None) -> str:
    """The text encoder that ``vectors`` (num_vectors, width) are for; ``stated`` where the width says nothing."""
    named = stated if isinstance(stated, str) and stated in _ENCODER_OF_WIDTH.values() else "clip_l"
    return _ENCODER_OF_WIDTH.get(vectors.shape[1], named)


def placeholder(file: EmbeddingFile) -> str:
    """The name of ``file`` as the key of its vectors.

    Raises:
        UsageError: other formats use this key, so readers would take the file for one of theirs.
    """
    if file.name in _TAKEN_KEYS:
        raise UsageError(
            f"An embedding called {file.name!r} cannot be written in diffusers' formats, where that key means another "
            f"format; give it another name."
        )
    return file.name


# --- layouts ----------------------------------------------------------------------------------------------------------


def _webui(path: str | os.PathLike[str], content: Mapping[Any, Any]) -> EmbeddingFile:
    terms = content["string_to_param"]
    terms = getattr(terms, "_parameters", terms)  # a ParameterDict in files of 2022
    if not isinstance(terms, Mapping) or not terms:
        raise _no_embedding(path, "it has no vectors under string_to_param")
    if len(terms) > 1:
        raise _no_embedding(path, f"it holds {len(terms)} terms ({_listed(terms)}), not exactly one")
    vectors = _rows(path, "string_to_param", next(iter(terms.values())))
    joined = vectors.shape[1] == _JOINED_WIDTH
    return EmbeddingFile(
        vectors=_split(vectors) if joined else {encoder_of(vectors, content.get(_ENCODER_KEY)): vectors},
        name=text_of(content.get("name")) or Path(path).stem,
        step=whole_number(path, content, "step"),
        model_name=text_of(content.get("sd_checkpoint_name")),
        model_hash=text_of(content.get("sd_checkpoint")),
        provenance=json_object(content.get(_PROVENANCE_KEY)),
        layout="hcp" if joined else "webui",
    )


def _single(path: str | os.PathLike[str], key: object, value: object) -> EmbeddingFile:
    vectors = _rows(path, str(key), value)
    layout = _LAYOUT_OF_KEY.get(str(key), "diffusers")
    name = "" if key == "*" or key in _LAYOUT_OF_KEY else text_of(key)
    return EmbeddingFile({encoder_of(vectors): vectors}, name or Path(path).stem, layout=layout)


def _two_encoders(path: str | os.PathLike[str], content: Mapping[str, object]) -> dict[str, Tensor]:
    vectors = {key: _rows(path, key, content[key]) for key in sorted(content, reverse=True)}
    for key, rows in vectors.items():
        if encoder_of(rows, key) != key:
            raise _no_embedding(
                path, f"{key} has vectors of width {rows.shape[1]}, which does not fit that text encoder"
            )
    if len({len(rows) for rows in vectors.values()}) > 1:
        shapes = ", ".join(f"{key} {tuple(rows.shape)}" for key, rows in vectors.items())
        raise _no_embedding(path, f"its text encoders have different numbers of vectors ({shapes})")
    return vectors


def _xti(path: str | os.PathLike[str], content: Mapping[str, object]) -> EmbeddingFile:
    layers = [_rows(path, key, content[key]) for key in _XTI_LAYERS]
    if len({rows.shape for rows in layers}) > 1:
        raise _no_embedding(path, "its layers have vectors of different shapes")
    stacked = torch.stack(layers)
    mean = stacked.mean(0)
    energy = stacked.square().sum().item()
    gone = 1 - len(layers) * mean.square().sum().item() / energy if energy else 0.0
    lost = (
        f"Vectors of its own for each of {len(layers)} layers of the U-Net: their mean is kept, {gone:.1%} of their "
        f"energy is lost."
    )
    return EmbeddingFile({encoder_of(mean): mean}, Path(path).stem, layout="kohya-xti", lost=(lost,))


def _split(vectors: Tensor) -> dict[str, Tensor]:
    return {"clip_l": vectors[:, :_CLIP_L_WIDTH].contiguous(), "clip_g": vectors[:, _CLIP_L_WIDTH:].contiguous()}


def _rows(path: str | os.PathLike[str], key: str, value: object) -> Tensor:
    """``value`` as float32 (num_vectors, width), checked."""
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value)
    if not isinstance(value, Tensor) or not _is_dense(value) or value.ndim not in (1, 2) or not value.numel():
        raise FileFormatError(
            f"{os.fspath(path)}: {_shortened(key)} is {_described(value)}; vectors of the shape "
            f"(num_vectors, width) are needed."
        )
    require_own_values(path, _shortened(key), value)
    rows = value.detach().float().reshape(-1, value.shape[-1])
    if not bool(torch.isfinite(rows).all()):
        raise FileFormatError(
            f"{os.fspath(path)}: {_shortened(key)} holds NaN or infinite numbers, so the embedding is broken; use an "
            f"earlier copy."
        )
    return rows


def _is_dense(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and tensor.device.type == "cpu" and tensor.is_floating_point()


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return f"a value of type {type(value).__name__}"


def _no_embedding(path: str | os.PathLike[str], reason: str) -> FileFormatError:
    return FileFormatError(f"{os.fspath(path)} is no embedding: {reason}.")


def _listed(keys: Iterable[object]) -> str:
    """The first few of the names, each cut to a readable length."""
    names = [_shortened(str(key)) for key in islice(keys, 5)]
    return ", ".join(names[:4] + ["…"] * (len(names) > 4))


def _shortened(name: str) -> str:
    return reprlib.repr(name)[1:-1]
