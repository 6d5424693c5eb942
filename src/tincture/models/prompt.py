"""From a text to token ids: placeholders of attached embeddings, and ``<hypernet:NAME:MULTIPLIER>``."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from tincture.errors import UsageError

EXTRA_NETWORK = re.compile(r"<(hypernet):([^:<>]+)(?::([^<>]*))?>", re.IGNORECASE)


class Placeholder(Protocol):
    """What a text needs to know of an attached embedding."""

    @property
    def name(self) -> str: ...

    @property
    def vectors(self) -> Mapping[str, Tensor]:
        """By text encoder name: (num_vectors, width)."""


class ExtraNetwork(NamedTuple):
    """One ``<kind:name:multiplier>`` of a prompt."""

    kind: str
    name: str
    multiplier: float


class Match(NamedTuple):
    """The token ids of a placeholder's name, and the ids that take their place."""

    name_ids: list[int]
    ids: range


def parse_extra_networks(text: str) -> tuple[str, list[ExtraNetwork]]:
    """Takes the ``<hypernet:NAME:MULTIPLIER>`` tags out of ``text``; a multiplier left out is 1.

    The syntax is the webui's. Returns the text without tags and the tags in their order.

    Raises:
        UsageError: a multiplier that is not a number.
    """
    networks = [
        ExtraNetwork(kind.lower(), name.strip(), _multiplier(name, multiplier))
        for kind, name, multiplier in EXTRA_NETWORK.findall(text)
    ]
    if not networks:
        return text, []
    return re.sub(r" {2,}", " ", EXTRA_NETWORK.sub("", text)).strip(), networks


def _multiplier(name: str, text: str) -> float:
    if not text.strip():
        return 1.0
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(
            f"The multiplier {text!r} of hypernetwork {name!r} is not a number; write <hypernet:{name}:0.8>."
        )
    return value


def token_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Each text's token ids, neither cut nor padded, without begin and end marks."""
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    return ids


def matches(tokenizer: Any, attached: Iterable[Placeholder], text_encoder_name: str) -> list[Match]:
    """How names of attached embeddings are found and replaced: longest name first, of equal names the last attached.

    Ids are given out from ``len(tokenizer)`` upward, ``num_vectors`` consecutive ones each, in order of attachment.
    """
    embeddings = list(attached)
    found: list[Match] = []
    first = len(tokenizer)
    for embedding, name_ids in zip(embeddings, token_ids(tokenizer, [e.name for e in embeddings]), strict=True):
        count = embedding.vectors[text_encoder_name].shape[0]
        found.append(Match(name_ids, range(first, first + count)))
        first += count
    return sorted(reversed(found), key=lambda match: -len(match.name_ids))


def replace_names(ids: Sequence[int], names: Sequence[Match]) -> list[int]:
    """``ids`` with every name of ``names`` replaced, wherever its token ids stand."""
    if not names:
        return list(ids)
    replaced: list[int] = []
    position = 0
    while position < len(ids):
        for name_ids, placeholder_ids in names:
            if name_ids and list(ids[position : position + len(name_ids)]) == name_ids:
                replaced.extend(placeholder_ids)
                position += len(name_ids)
                break
        else:
            replaced.append(ids[position])
            position += 1
    return replaced


def tokenize(
    tokenizer: Any, prompts: Sequence[str], attached: Iterable[Placeholder] = (), text_encoder_name: str = "clip_l"
) -> Tensor:
    """Token ids (len(prompts), 77) int64: begin mark, text, end mark, padding; placeholders as in ``matches``.

    A text of more than 75 tokens is cut, with one ``UserWarning`` per call that names the first such text.
    """
    length = tokenizer.model_max_length
    names = matches(tokenizer, attached, text_encoder_name)
    rows: list[list[int]] = []
    cut: list[str] = []
    for prompt, ids in zip(prompts, token_ids(tokenizer, prompts), strict=True):
        ids = replace_names(ids, names)
        if len(ids) > length - 2:
            cut.append(f"{prompt[:60]!r} has {len(ids)} tokens")
        row = [tokenizer.bos_token_id, *ids[: length - 2], tokenizer.eos_token_id]
        rows.append(row + [tokenizer.pad_token_id] * (length - len(row)))
    if cut:
        warnings.warn(
            f"{len(cut)} of {len(rows)} prompts are longer than {length - 2} tokens and were cut: {cut[0]}.",
            stacklevel=3,
        )
    return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), length)
