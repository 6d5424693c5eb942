"""Embeddings put together: vectors interpolated or added up, or one's vectors behind the other's."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tincture.errors import UsageError
from tincture.formats.embedding_content import EmbeddingFile
from tincture.models.families import MAX_VECTORS


@dataclass(frozen=True)
class Word:
    """An embedding that is to be merged; see ``merged_networks.Network``."""

    label: str
    weight: float
    file: EmbeddingFile


def joined_vectors(words: Sequence[Word], *, behind: bool) -> EmbeddingFile:
    """One whose vectors are the weighted sums of theirs, or all of theirs in their order, each times its weight.

    Args:
        behind: whether vectors stand behind another.

    Raises:
        UsageError: they are for different text encoders, differ in number, or are too many or too large.
    """
    first = words[0]
    for other in words[1:]:
        if _widths(first) != _widths(other):
            raise UsageError(
                f"{first.label} has vectors for {_encoders(first)} and {other.label} for {_encoders(other)}: they are "
                "for models of different families; merge those of one family."
            )
        if not behind and _count(first) != _count(other):
            raise UsageError(
                f"{first.label} has {_count(first)} vectors and {other.label} has {_count(other)}, so that none stands "
                "for another; put them behind one another (--method stack), or merge embeddings of equal numbers."
            )
    if behind and sum(map(_count, words)) > MAX_VECTORS:
        raise UsageError(
            f"Together these have {sum(map(_count, words))} vectors, but a prompt has room for {MAX_VECTORS} in a row; "
            "stack fewer of them, or name them in the prompt with BREAK between."
        )
    vectors = {}
    for encoder in first.file.vectors:
        rows = [word.weight * word.file.vectors[encoder].double() for word in words]
        vectors[encoder] = (torch.cat(rows) if behind else torch.stack(rows).sum(0)).float()
    if not all(rows.isfinite().all() for rows in vectors.values()):
        raise UsageError("The merged vectors are too large for a file's 32 bits; use smaller weights.")
    return dataclasses.replace(first.file, vectors=vectors, layout="", lost=())


def _count(word: Word) -> int:
    return len(_first(word))


def _first(word: Word) -> Tensor:
    return next(iter(word.file.vectors.values()))


def _widths(word: Word) -> dict[str, int]:
    return {encoder: rows.shape[1] for encoder, rows in word.file.vectors.items()}


def _encoders(word: Word) -> str:
    return " and ".join(f"{encoder} of width {width}" for encoder, width in _widths(word).items())
