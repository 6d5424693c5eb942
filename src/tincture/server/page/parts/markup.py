"""Small pieces of HTML and of words that the tabs share. Whatever comes from outside goes through ``escape``."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

from tincture.reports.words import escape as escape
from tincture.reports.words import plain as plain


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """A table of labels and texts; rows without a text are left out."""
    cells = "".join(f"<tr><th>{escape(label)}</th><td>{escape(text)}</td></tr>" for label, text in rows if text != "")
    return f'<table class="facts">{cells}</table>' if cells else ""


def muted(sentence: str) -> str:
    """A sentence that stands where there is nothing to show."""
    return f'<p class="quiet">{escape(sentence)}</p>'


def fault(sentence: str) -> str:
    """A sentence about what went wrong."""
    return f'<p class="fault" role="alert">{escape(sentence)}</p>'


def warning(sentence: str) -> str:
    """A sentence about what is not as it might be taken for."""
    return f'<p class="warning" role="status">{escape(sentence)}</p>'


def file_url(path: Path | str) -> str:
    """Where the page's own server gives out a file, relative to the page."""
    return f"gradio_api/file={quote(str(path))}"


def served_url(path: Path | str, served: Sequence[Path]) -> str:
    """The same for a file that may lie anywhere; empty when it lies in none of the folders ``served``."""
    resolved = Path(path).resolve()
    return file_url(resolved) if any(resolved.is_relative_to(folder.resolve()) for folder in served) else ""


def when(seconds: float | None) -> str:
    """A time in the server's time zone, to the minute; empty when there is none."""
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def size(count: float) -> str:
    """Bytes as people read them: ``812 B``, ``4.1 kB``, ``2.0 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
