"""The weights of one part of a diffusers folder: which of its files are read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tincture.errors import ModelError

_SUFFIXES = (".safetensors", ".bin")
_SHARD = re.compile(r"-(?P<number>\d{5})-of-(?P<count>\d{5})")
# The names that diffusers and transformers give to weights, which come before any other file's.
_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")


def weight_files(folder: Path) -> list[Path]:
    """The files that are read of a part's folder: one, or all pieces of a set.

    Safetensors come before .bin, full precision before variants such as fp16.

    Raises:
        ModelError: there is none, or a piece is missing.
    """
    names = choose_weight_files(path.name for path in folder.iterdir() if path.is_file())
    if not names:
        raise ModelError(f"The {folder.name} in {folder} has no weights; a .safetensors or .bin file is needed.")
    piece = _SHARD.search(names[0])
    if piece and len(names) != int(piece["count"]):
        raise ModelError(
            f"The {folder.name} in {folder} has {len(names)} of {int(piece['count'])} pieces; copy the others too."
        )
    return [folder / name for name in names]


def choose_weight_files(names: Iterable[str]) -> list[str]:
    """Those of the file ``names`` in one folder that make up the weights to read; none where none is of weights."""
    sets: dict[tuple[int, int, str], list[str]] = {}
    for name in sorted(names):
        suffix = Path(name).suffix
        if suffix in _SUFFIXES:
            stem = _SHARD.sub("", name.removesuffix(suffix))
            rank = _STEMS.index(stem) if stem in _STEMS else len(_STEMS)
            # A variant's name stands behind the usual one; other variants than fp16 come last.
            rank += 0 if stem in _STEMS else 1 if stem.endswith(".fp16") else 2
            sets.setdefault((_SUFFIXES.index(suffix), rank, stem), []).append(name)
    return sets[min(sets)] if sets else []
