"""From prompts to token ids and weights, in chunks of 77: begin mark, up to 75 tokens, end mark, padding.

The rules are the webui's: where a chunk ends, and how names of embeddings are found in the tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Generic, NamedTuple, Protocol, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from tincture.errors import ModelError
from tincture.models.families import TextEncoderSpec
from tincture.models.prompt import BREAK, Segment, parse_weights

# When a chunk is full, what follows its last comma moves to the next one, unless that comma is farther back: the
# default of the webui's option "Increase coherency by padding from the last comma".
COMMA_REACH = 20
MOST_TEXTS = 2048
"""Of each tokenizer, that are kept after they were read."""
# A mean below this share of the mean size of the tokens' means is left over from sums that cancel each other out.
_CANCELLED = 0.1

T = TypeVar("T")

_known: WeakKeyDictionary[Any, dict[str, list[int]]] = WeakKeyDictionary()


class Placeholder(Protocol):
    """What a text side needs to know of an attached embedding."""

    @property
    def name(self) -> str: ...

    @property
    def num_vectors(self) -> int:
        """How many tokens it takes up."""

    @property
    def vectors(self) -> Mapping[str, Tensor]:
        """By text encoder name: (num_vectors, width), the parameters themselves."""


class Chunk(NamedTuple):
    """At most 75 token ids and the weight of each."""

    ids: list[int]
    weights: list[float]


class Names(Generic[T]):
    """Finds names by their token ids.

    Args:
        named: token ids of each name, and what it means.
    """

    def __init__(self, named: Iterable[tuple[Sequence[int], T]]) -> None:
        self._by_first_id: dict[int, list[tuple[list[int], T]]] = {}
        for name_ids, meaning in named:
            if name_ids:
                self._by_first_id.setdefault(name_ids[0], []).insert(0, (list(name_ids), meaning))
        for found in self._by_first_id.values():
            found.sort(key=lambda name: -len(name[0]))

    def split(self, ids: Sequence[int]) -> Iterator[tuple[int, T | None]]:
        """``ids`` cut into names and other tokens, from the left: the first id of each and what it means, or None.

        Where several names fit, the longest is taken; of equal names the last given.
        """
        position = 0
        while position < len(ids):
            for name_ids, meaning in self._by_first_id.get(ids[position], ()):
                if list(ids[position : position + len(name_ids)]) == name_ids:
                    yield ids[position], meaning
                    position += len(name_ids)
                    break
            else:
                yield ids[position], None
                position += 1


def token_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Each text's token ids, neither cut nor padded, without begin and end marks; they are not to be changed.

    A run reads the same prompts in every step: those that were read lately are not read again.
    """
    known = _known.setdefault(tokenizer, {})
    found = {text: known.get(text) for text in texts}
    new = [text for text, ids in found.items() if ids is None]
    if new:
        read = dict(zip(new, tokenizer(new, add_special_tokens=False, verbose=False)["input_ids"], strict=True))
        if len(known) > MOST_TEXTS:
            known.clear()
        known.update(read)
        found.update(read)
    return [found[text] or [] for text in texts]


def rows_of(tokenizer: Any, rows: Tensor, text: str) -> Tensor:
    """A copy of the rows of a token table for the tokens of ``text`` (no special ones): (tokens, width)."""
    (ids,) = token_ids(tokenizer, [text])
    return rows[torch.tensor(ids, dtype=torch.int64, device=rows.device)].clone()


def too_many_tokens(source: object, spec: TextEncoderSpec, known: int, rows: int) -> ModelError:
    """The sentence for a tokenizer of another model than the text encoder."""
    return ModelError(
        f"In {source}, the {spec.tokenizer} knows {known} tokens and the {spec.component} only {rows}; they belong to "
        "different models."
    )


def find_names(tokenizer: Any, prompts: Iterable[str], names: Names[T]) -> list[T]:
    """What the names that stand in ``prompts`` mean, each as often and in the order in which it stands there."""
    texts = [segment.text for prompt in prompts for segment in parse_weights(prompt)]
    split = (piece for ids in token_ids(tokenizer, texts) for piece in names.split(ids))
    return [meaning for _, meaning in split if meaning is not None]


@dataclass(frozen=True)
class Vocabulary:
    """How prompts are read, as far as names of embeddings go; equal where they are read alike."""

    tokenizer: Any

    def spellings(self, names: Sequence[str]) -> list[tuple[Any, ...]]:
        """What stands for each name in a prompt: equal for equal names, empty where no prompt can hold it."""
        return [tuple(ids) for ids in token_ids(self.tokenizer, names)]

    def finder(self, named: Iterable[tuple[tuple[Any, ...], T]]) -> Callable[[Iterable[str]], list[T]]:
        """A function that tells what the names in prompts mean, in their order and as often as they stand there.

        Args:
            named: the spelling of each name, and what it means.
        """
        return partial(find_names, self.tokenizer, names=Names(named))


def placeholder_ids(tokenizer: Any, attached: Iterable[Placeholder]) -> Names[range]:
    """The names of attached embeddings, and the ids that take their place.

    Ids are given out from ``len(tokenizer)`` upward, ``num_vectors`` consecutive ones each, in order of attachment.
    """
    embeddings = list(attached)
    named: list[tuple[list[int], range]] = []
    first = len(tokenizer)
    for embedding, name_ids in zip(embeddings, token_ids(tokenizer, [e.name for e in embeddings]), strict=True):
        named.append((name_ids, range(first, first + embedding.num_vectors)))
        first += embedding.num_vectors
    return Names(named)


def make_chunks(tokenizer: Any, prompts: Sequence[str], attached: Iterable[Placeholder] = ()) -> list[list[Chunk]]:
    """The chunks of each prompt, at least one.

    The vectors of an embedding, of which there are at most 75, are never parted.
    """
    names = placeholder_ids(tokenizer, attached)
    room = tokenizer.model_max_length - 2
    parsed = [parse_weights(prompt) for prompt in prompts]
    texts = [segment.text for segments in parsed for segment in segments]
    comma, *each = token_ids(tokenizer, [",", *texts])
    ids = iter(each)
    return [
        _fill_chunks(zip(segments, islice(ids, len(segments)), strict=True), names, comma[-1], room)
        for segments in parsed
    ]


def to_tensors(tokenizer: Any, prompts: Sequence[Sequence[Chunk]], at_least: int = 1) -> tuple[Tensor, Tensor]:
    """Ids int64 and weights float32, both (prompts, chunks, 77), with empty chunks behind those of shorter prompts."""
    count = max([at_least, *map(len, prompts)])
    filled = [[*chunks, *[Chunk([], [])] * (count - len(chunks))] for chunks in prompts]
    length = tokenizer.model_max_length
    ids = [[_pad(tokenizer, chunk.ids, length) for chunk in chunks] for chunks in filled]
    weights = [[[1.0, *chunk.weights, *[1.0] * (length - 1 - len(chunk.ids))] for chunk in chunks] for chunks in filled]
    shape = (len(prompts), count, length)
    return torch.tensor(ids, dtype=torch.int64).reshape(shape), torch.tensor(weights).reshape(shape)


def emphasize(hidden_states: Tensor, weights: Tensor) -> Tensor:
    """Hidden states (chunks, 77, width) times the weights (chunks, 77) of their tokens.

    Each chunk is then scaled so that the mean over all its numbers is what it was, as the webui does by default. Where
    the means of the tokens cancel each other out, that would divide by almost nothing, so the scale stays.
    """
    weighted = hidden_states * weights.to(hidden_states)[..., None]
    before, after = (states.float().mean(2) for states in (hidden_states, weighted))
    usable = _has_a_mean(before) & _has_a_mean(after)
    scale = torch.where(usable, before.mean(1), 1) / torch.where(usable, after.mean(1), 1)
    return weighted * scale.to(weighted.dtype)[:, None, None]


def _has_a_mean(token_means: Tensor) -> Tensor:
    return token_means.mean(1).abs() > _CANCELLED * token_means.abs().mean(1)


def _pad(tokenizer: Any, ids: Sequence[int], length: int) -> list[int]:
    row = [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]
    return row + [tokenizer.pad_token_id] * (length - len(row))


def _fill_chunks(
    segments: Iterable[tuple[Segment, Sequence[int]]], names: Names[range], comma: int, room: int
) -> list[Chunk]:
    filler = _Filler(room)
    for segment, ids in segments:
        if segment == BREAK:
            filler.close()
            continue
        for first_id, vectors in names.split(ids):
            if vectors is not None:
                filler.add(vectors, segment.weight)
            else:
                filler.add([first_id], segment.weight, is_comma=first_id == comma)
    if filler.ids or not filler.done:
        filler.close()
    return filler.done


class _Filler:
    """Puts tokens into chunks of ``room``, where one is full into the next."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.done: list[Chunk] = []
        self.ids: list[int] = []
        self.weights: list[float] = []
        self.behind_comma = 0  # where what follows the chunk's last comma begins; 0 without a comma

    def add(self, ids: Sequence[int], weight: float, *, is_comma: bool = False) -> None:
        """Adds ``ids``, which stay together."""
        if len(self.ids) == self.room and not is_comma and self.room - self.behind_comma < COMMA_REACH:
            self.close(self.behind_comma)
        if len(self.ids) + len(ids) > self.room:
            self.close()
        self.ids += ids
        self.weights += [weight] * len(ids)
        if is_comma:
            self.behind_comma = len(self.ids)

    def close(self, end: int | None = None) -> None:
        """Ends the chunk before index ``end``; what stands behind begins the next one."""
        self.done.append(Chunk(self.ids[:end], self.weights[:end]))
        self.ids, self.weights = ([], []) if end is None else (self.ids[end:], self.weights[end:])
        self.behind_comma = 0
