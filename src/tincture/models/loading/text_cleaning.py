"""What CLIP's tokenizers make of a text before they look words up: mended by ftfy, in lower case, cut into words.

There are two of them. Stable Diffusion 1 and the first text encoder of SDXL read prompts as transformers' own tokenizer
of CLIP did while it still cleaned text (4.46, ``tokenization_clip.py``, with ftfy installed), those of Stable Diffusion
2 and the second one of SDXL as OpenCLIP's (2.20, ``tokenizer.py``). The second also reads entities that lack their
semicolon or stand beside a ``<``, and calls the marks for begin and end by other names.
"""

from __future__ import annotations

import html

import regex

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
_MARKS = regex.compile("(" + "|".join(map(regex.escape, (BEGIN, END))) + ")")
_OPEN_CLIP_MARKS = {"<start_of_text>": BEGIN, "<end_of_text>": END}
WORD = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
_CLIP_WORD = regex.compile(f"{_MARKS.pattern}|{WORD}", regex.IGNORECASE)
_OPEN_CLIP_WORD = regex.compile(f"{'|'.join(_OPEN_CLIP_MARKS)}|{WORD}", regex.IGNORECASE)


def clip_words(text: str) -> str:
    """The words of ``text`` in CLIP's sense, parted by blanks: letters, single digits, marks in a row."""
    words: list[str] = []
    for part in _MARKS.split(text):
        words += [part] if part in (BEGIN, END) else _found(_CLIP_WORD, _mended(part))
    return " ".join(words)


def open_clip_words(text: str) -> str:
    """Likewise in OpenCLIP's; its marks for begin and end come back under CLIP's names."""
    mended = html.unescape(html.unescape(_mended(text)))
    return " ".join(_OPEN_CLIP_MARKS.get(word, word) for word in _found(_OPEN_CLIP_WORD, mended))


def _mended(text: str) -> str:
    # ftfy leaves plain text alone and takes longer for it than all the rest; the names of thousands of embeddings are.
    if text.isascii() and text.isprintable() and "&" not in text:
        return text
    import ftfy  # nor is it loaded for that

    return ftfy.fix_text(text)


def _found(word: regex.Pattern[str], text: str) -> list[str]:
    return [found[0] for found in word.finditer(text.lower())]
