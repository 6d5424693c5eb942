"""CLIP's tokenizer, made from the merges that ship with the package, so that no file of a hub is needed.

Its 49,408 tokens, in order (Radford et al. 2021; openai/CLIP, ``simple_tokenizer.py``): the 256 bytes as characters,
the same at the end of a word, 48,894 merges, and the marks for begin and end.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

from tokenizers import Regex, normalizers, pre_tokenizers
from transformers.models.clip import tokenization_clip

from tincture.errors import ModelError
from tincture.models.loading.text_cleaning import BEGIN, END, WORD, clip_words, open_clip_words

MERGES = Path(__file__).parents[1] / "clip" / "bpe_simple_vocab_16e6.txt.gz"
MERGE_COUNT = 48_894
POSITIONS = 77


class CLIPTokenizer(tokenization_clip.CLIPTokenizer):  # type: ignore[misc]  # transformers has no types
    """transformers' tokenizer, which reads texts as those that the models were trained with: see ``text_cleaning``.

    It is called like its base, whose name stands in the folders that it is saved to.
    """

    reads_as_open_clip = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Without NFC, which would join letters that became a pair of letter and accent by lower case.
        self._tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        # Whatever stands for a letter at the end of "it's" counts, as in CLIP's own; the base goes by plain letters.
        self._tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(f"(?i:{WORD})"), behavior="removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )

    def _encode_plus(self, text: Any, *args: Any, **kwargs: Any) -> Any:
        words = open_clip_words if self.reads_as_open_clip else clip_words
        cleaned = words(text) if isinstance(text, str) else [words(one) for one in text]
        return super()._encode_plus(cleaned, *args, **kwargs)


def clip_tokenizer(pad_token: str | None = None, positions: int = POSITIONS, *, open_clip: bool = False) -> Any:
    """The tokenizer with CLIP's own vocabulary.

    Args:
        pad_token: fills up what is shorter than ``positions``; None for the end mark.
        positions: tokens that the text encoder takes, marks included.
        open_clip: read texts as OpenCLIP does.
    """
    with gzip.open(MERGES, "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")[1 : MERGE_COUNT + 1]  # the first one names the version
    merges = [(left, right) for left, _, right in (line.partition(" ") for line in lines)]
    characters = _byte_characters()
    tokens = [*characters, *(f"{character}</w>" for character in characters), *map("".join, merges), BEGIN, END]
    tokenizer = CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)}, merges=merges, model_max_length=positions
    )
    # Only now: given to the constructor, the token would be cut out of prompts before words are made of letters.
    tokenizer.pad_token = pad_token or END
    tokenizer.reads_as_open_clip = open_clip
    return tokenizer


def _byte_characters() -> list[str]:
    """The character that stands for each byte, the printable ones first: they stand for themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = (byte for byte in range(256) if byte not in printable)
    return [chr(byte) for byte in printable] + [chr(256 + index) for index, _ in enumerate(others)]


def load_tokenizer(folder: Path, positions: int = POSITIONS, *, open_clip: bool = False) -> Any:
    """The tokenizer of a diffusers folder; ``open_clip`` as in ``clip_tokenizer``.

    Raises:
        ModelError: a file of it is missing.
    """
    # Without these files transformers makes a tokenizer that knows no word, and says nothing.
    in_one = (folder / "tokenizer.json").is_file()
    if not in_one and not all((folder / name).is_file() for name in ("vocab.json", "merges.txt")):
        raise ModelError(f"The tokenizer in {folder} lacks vocab.json or merges.txt; copy it again.")
    options = {"local_files_only": True, "model_max_length": positions}
    tokenizer = CLIPTokenizer.from_pretrained(folder, **options)
    padding, end = tokenizer.pad_token, tokenizer.eos_token
    if padding not in (end, tokenizer.bos_token, tokenizer.unk_token):
        # As above: "!" shall fill up, and be a letter of prompts all the same.
        tokenizer = CLIPTokenizer.from_pretrained(folder, pad_token=end, **options)
        tokenizer.pad_token = padding
    tokenizer.reads_as_open_clip = open_clip
    return tokenizer
