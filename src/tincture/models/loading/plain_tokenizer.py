"""CLIP's way from texts to token ids by the library tokenizers alone, so that transformers need not be loaded for it.

Its 49,408 tokens, in order (Radford et al. 2021; openai/CLIP, ``simple_tokenizer.py``): the 256 bytes as characters,
the same at the end of a word, 48,894 merges, and the marks for begin and end.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from tincture.models.loading.text_cleaning import BEGIN, END, WORD, clip_words, open_clip_words

MERGES = Path(__file__).parents[1] / "clip" / "bpe_simple_vocab_16e6.txt.gz"
MERGE_COUNT = 48_894
POSITIONS = 77
_NAMING_TOKENS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


class PlainTokenizer:
    """Reads texts like the tokenizer ``whole``, which is loaded only for those in which something may be special.

    Args:
        backend: with the vocabulary, and without special tokens.
        special: what may be a token by itself, in small letters.
        positions: see ``clip_tokenizer``.
        open_clip: likewise.
        whole: loads the tokenizer of transformers.
    """

    def __init__(
        self, backend: Tokenizer, special: frozenset[str], positions: int, open_clip: bool, whole: Callable[[], Any]
    ) -> None:
        self.model_max_length = positions
        self._backend, self._special, self._whole = backend, special, whole
        self._words = open_clip_words if open_clip else clip_words

    def __len__(self) -> int:
        """How many tokens there are, but for those that were added."""
        return int(self._backend.get_vocab_size())

    def __call__(self, texts: Sequence[str], **options: Any) -> Mapping[str, list[list[int]]]:
        """The ids of each text, without marks for begin and end; ``options`` are those of ``whole``."""
        cleaned = [self._words(text) for text in texts]
        if any(mark in text.lower() for text in (*texts, *cleaned) for mark in self._special):
            ids: Mapping[str, list[list[int]]] = self._whole()(list(texts), **options)
            return ids
        return {"input_ids": [each.ids for each in self._backend.encode_batch(cleaned, add_special_tokens=False)]}


def own_tokenizer(positions: int, *, open_clip: bool, whole: Callable[[], Any]) -> PlainTokenizer:
    """With CLIP's own vocabulary."""
    backend = _backend(models.BPE(*own_vocabulary(), **_PARTS))
    return PlainTokenizer(backend, frozenset((BEGIN, END)), positions, open_clip, whole)


def folder_tokenizer(folder: Path, positions: int, *, open_clip: bool, whole: Callable[[], Any]) -> Any:
    """That of the files in ``folder``; what ``whole`` gives where they are unusual, or cannot be read."""
    try:
        special = frozenset({BEGIN, END, *map(str.lower, _special(folder))} - {""})
        backend = _backend(_vocabulary(folder))
    except Exception:  # what is wrong is for the other one to say
        return whole()
    return PlainTokenizer(backend, special, positions, open_clip, whole)


def own_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's tokens with their ids, and its merges, in order."""
    with gzip.open(MERGES, "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")[1 : MERGE_COUNT + 1]  # the first one names the version
    merges = [(left, right) for left, _, right in (line.partition(" ") for line in lines)]
    characters = _byte_characters()
    tokens = [*characters, *(f"{character}</w>" for character in characters), *map("".join, merges), BEGIN, END]
    return {token: index for index, token in enumerate(tokens)}, merges


def normalizer() -> Any:
    """Without NFC, which would join letters that became a pair of letter and accent by lower case."""
    return normalizers.Sequence([normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])


def pre_tokenizer() -> Any:
    """Whatever stands for a letter at the end of "it's" counts, as in CLIP's own; transformers has plain letters."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(f"(?i:{WORD})"), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


_PARTS: Mapping[str, Any] = {"continuing_subword_prefix": "", "end_of_word_suffix": "</w>", "unk_token": END}


def _backend(model: Any) -> Tokenizer:
    backend = Tokenizer(model)
    backend.normalizer, backend.pre_tokenizer = normalizer(), pre_tokenizer()
    return backend


def _vocabulary(folder: Path) -> Any:
    """As transformers reads it: from ``tokenizer.json`` where there is one."""
    whole = folder / "tokenizer.json"
    if not whole.is_file():
        vocabulary, merges = models.BPE.read_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    else:
        found = json.loads(whole.read_text(encoding="utf-8"))["model"]
        vocabulary = found["vocab"]
        merges = [tuple(each.split(" ") if isinstance(each, str) else each) for each in found["merges"]]
    return models.BPE(vocab=vocabulary, merges=merges, **_PARTS)


def _special(folder: Path) -> Iterator[str]:
    """All that the files call a token; ValueError where what stands for unknown ones is not the usual one."""
    for path in (folder / name for name in (*_NAMING_TOKENS, "tokenizer.json")):
        if not path.is_file():
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        if path.name == "added_tokens.json":
            yield from content
        if path.name == "tokenizer.json":
            content = {"tokens": content.get("added_tokens")}
        unknown = content.get("unk_token", END)
        if (unknown["content"] if isinstance(unknown, dict) else unknown) != END:
            raise ValueError(unknown)
        yield from _texts({key: value for key, value in content.items() if "token" in key})


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _byte_characters() -> list[str]:
    """The character that stands for each byte, the printable ones first: they stand for themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = (byte for byte in range(256) if byte not in printable)
    return [chr(byte) for byte in printable] + [chr(256 + index) for index, _ in enumerate(others)]
