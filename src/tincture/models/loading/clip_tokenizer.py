"""CLIP's tokenizer, made from the merges that ship with the package, so that no file of a hub is needed.

Its 49,408 tokens, in order (Radford et al. 2021; openai/CLIP, ``simple_tokenizer.py``): the 256 bytes as characters,
the same at the end of a word, 48,894 merges, and the marks for begin and end.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

from transformers.models.clip.tokenization_clip import CLIPTokenizer

from tincture.errors import ModelError

MERGES = Path(__file__).parents[1] / "clip" / "bpe_simple_vocab_16e6.txt.gz"
MERGE_COUNT = 48_894
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
POSITIONS = 77


def clip_tokenizer(pad_token: str | None = None, positions: int = POSITIONS) -> Any:
    """transformers' CLIPTokenizer with CLIP's own vocabulary.

    Args:
        pad_token: fills up what is shorter than ``positions``; None for the end mark.
        positions: tokens that the text encoder takes, marks included.
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
    return tokenizer


def _byte_characters() -> list[str]:
    """The character that stands for each byte, the printable ones first: they stand for themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = (byte for byte in range(256) if byte not in printable)
    return [chr(byte) for byte in printable] + [chr(256 + index) for index, _ in enumerate(others)]


def load_tokenizer(folder: Path, positions: int = POSITIONS) -> Any:
    """The tokenizer of a diffusers folder.

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
    return tokenizer
