"""Paths as people paste them: in quotes, with blanks around, as file:// addresses, with a slash or backslash behind."""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Callable

_QUOTES = (
    *('""', "''", "``", "\u201c\u201d", "\u2018\u2019", "\u201e\u201c", "\u00ab\u00bb", "\u201d\u201d", "\u201e\u201d"),
    *(
        "\u2019\u2019",
        "\u201a\u2018",
        "\u00bb\u00ab",
        "\u2039\u203a",
        "\u203a\u2039",
        "\u300c\u300d",
        "\u300e\u300f",
        "<>",
    ),
)
# Marks of order and width that nobody sees; Windows copies one before the path from a window of properties.
_UNSEEN = "\ufeff\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_ESCAPED = re.compile(r"\\([ ()\[\]{}'\"&;!$#*?])")
_REPEATED = re.compile(r"(?P<folder>.+):(?P<repeats>\d+)", re.DOTALL)


def pasted_path(text: str, is_there: Callable[[str], bool] = os.path.lexists) -> str:
    """What is meant by a path that was pasted; what really is called as it is written is found first.

    Args:
        is_there: whether there is something of this name.
    """
    if not text or _is_there(text, is_there):
        return text
    repeated = _REPEATED.fullmatch(text.rstrip())
    if repeated and repeated["folder"][-1] in {quotes[1] for quotes in _QUOTES}:
        return f"{_cleaned(repeated['folder'], is_there)}:{repeated['repeats']}"
    meant = _cleaned(text, is_there)
    plain = _ESCAPED.sub(r"\1", meant)  # what terminals make of a file that is dropped on them
    return plain if plain != meant and not _is_there(meant, is_there) and _is_there(plain, is_there) else meant


def _cleaned(text: str, is_there: Callable[[str], bool]) -> str:
    while not _is_there(text, is_there):
        before, text = text, _peeled(text)
        if text == before:
            break
    return text


def _peeled(text: str) -> str:
    """Without one layer of what does not belong to the path."""
    stripped = text.strip().strip(_UNSEEN)
    if stripped != text:
        return stripped
    if len(text) > 1 and text[0] + text[-1] in _QUOTES:
        return text[1:-1]
    if text[:6].lower() == "file:/":
        return _of_address(text)
    if text.startswith("& ") and text[-1] in {quotes[1] for quotes in _QUOTES}:  # as PowerShell has what is dropped
        return text[2:]
    shorter = text.rstrip("/\\") if text.endswith("\\") or len(text) > 1 else text
    is_root = not shorter or shorter.endswith(":")  # / and C:\ end so
    return text if is_root else shorter


def _of_address(text: str) -> str:
    """The path of a file:// address of this machine; another one stays as it is, to be named in an error."""
    # file:/PATH is an address too, and what is left of file:///PATH where somebody took it for a path.
    rest = text[7:] if text[5:7] == "//" else text[5:]
    host, slash, path = rest.partition("/")
    if host.lower() not in ("", "localhost") or not slash:
        return text
    plain = urllib.parse.unquote(path)
    return plain if re.match(r"[A-Za-z]:", plain) else f"/{plain}"


def _is_there(text: str, is_there: Callable[[str], bool]) -> bool:
    try:
        return is_there(text)
    except (OSError, ValueError):  # a zero byte, or far too long
        return False
