"""CLIP's tokenizer, made from the merges that ship with the package, so that no file of a hub is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers.models.clip import tokenization_clip

from tincture.errors import ModelError
from tincture.models.loading.plain_tokenizer import MERGES, POSITIONS, normalizer, own_vocabulary, pre_tokenizer
from tincture.models.loading.text_cleaning import END, clip_words, open_clip_words

__all__ = ["MERGES", "POSITIONS", "CLIPTokenizer", "clip_tokenizer", "load_tokenizer"]


class CLIPTokenizer(tokenization_clip.CLIPTokenizer):  # type: ignore[misc]  # transformers has no types
    """transformers' tokenizer, which reads texts as those that the models were trained with: see ``text_cleaning``.

    It is called like its base, whose name stands in the folders that it is saved to.
    """

    reads_as_open_clip = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tokenizer.normalizer, self._tokenizer.pre_tokenizer = normalizer(), pre_tokenizer()

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
    vocabulary, merges = own_vocabulary()
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=positions)
    # Only now: given to the constructor, the token would be cut out of prompts before words are made of letters.
    tokenizer.pad_token = pad_token or END
    tokenizer.reads_as_open_clip = open_clip
    return tokenizer


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
