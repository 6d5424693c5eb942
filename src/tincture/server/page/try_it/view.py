"""Drawn pictures as HTML, with the settings that they carry."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import UnidentifiedImageError

from tincture.formats.picture_text import CHUNK
from tincture.formats.pictures import open_picture
from tincture.kinds.registry import AdapterKind, any_of, kinds
from tincture.server.page.parts.markup import escape, file_url
from tincture.server.page.try_it.request import COMPARED, GRID

_SEED = re.compile(r"\bSeed: (\d+)")


def pictures(mode: str, paths: Sequence[Path]) -> str:
    """The answer to a request, laid out as ``mode`` has it.

    Args:
        mode: one of ``try_request.MODES``.
        paths: as ``Service.draw`` returned them.
    """
    if mode == GRID:
        note = "Columns: strength of the hypernetwork. Rows: copies of the adapter, or the adapter as it is now."
        return "".join(
            f'<div class="drawn sheet">{_figure(path, "")}</div><p class="quiet">{note}</p>' for path in paths
        )
    if mode == COMPARED:
        half = len(paths) // 2
        pairs = zip(paths[:half], paths[half:], strict=True)
        figures = "".join(
            f'<div class="pair">{_figure(before, "without")}{_figure(after, "with")}</div>' for before, after in pairs
        )
        return f'<div class="drawn pairs">{figures}</div>'
    return f'<div class="drawn">{"".join(_figure(path, "") for path in paths)}</div>'


def _figure(path: Path, label: str) -> str:
    text, url = settings_text(path), escape(file_url(path))
    seed = _SEED.search(text)
    again = f'<button type="button" class="seed" data-seed="{seed[1]}">Seed {seed[1]}</button>' if seed else ""
    named = f"<b>{escape(label)}</b>" if label else ""
    details = f"<details><summary>Settings</summary><pre>{escape(text)}</pre></details>" if text else ""
    return (
        f'<figure><a href="{url}" target="_blank" rel="noopener">'
        f'<img src="{url}" alt="{escape(label or path.stem)}"></a>'
        f'<figcaption><span>{named}{again}<a href="{url}" download="{escape(path.name)}">Download</a></span>{details}'
        "</figcaption></figure>"
    )


def settings_text(path: Path) -> str:
    """The ``parameters`` text of a picture; empty where it has none or is not there any more."""
    try:
        with open_picture(path) as picture:
            text = picture.info.get(CHUNK)
    except (OSError, UnidentifiedImageError):
        return ""
    return text if isinstance(text, str) else ""


def progress(state: Mapping[str, Any] | None) -> str:
    """How far the drawing is; before the first step, that the model is loaded."""
    at = state or {}
    done, total, latest = at.get("done", 0), at.get("total", 0), at.get("preview")
    percent = 100 * done / total if total else 0
    words = f"Step {int(done)} of {total}" if total else "Loading the model …"
    picture = f'<img src="{escape(file_url(latest))}" alt="The latest picture">' if latest else ""
    return (
        f'<div class="drawing" role="status"><p class="quiet">{escape(words)}</p>'
        f'<div class="bar"><i style="width:{percent:.0f}%"></i></div>{picture}</div>'
    )


def chips(adapters: Sequence[Mapping[str, Any]], named: Sequence[tuple[str, str]]) -> str:
    """A button for each adapter that can be named in the prompt; those of ``named`` (kind, name) are marked."""
    if not adapters:
        none = any_of([kind.plural for kind in kinds()])
        return f'<p class="quiet">No {escape(none)} yet: create one in the tab Train.</p>'
    return "".join(_row(adapters, kind, named) for kind in kinds())


def _row(adapters: Sequence[Mapping[str, Any]], kind: AdapterKind, named: Sequence[tuple[str, str]]) -> str:
    buttons, title = "".join(_chips(adapters, kind.name, named)), escape(kind.plural.capitalize())
    return (
        f'<div class="chips" role="group" aria-label="{title}"><span>{title}</span>{buttons}</div>' if buttons else ""
    )


def _chips(adapters: Sequence[Mapping[str, Any]], kind: str, named: Sequence[tuple[str, str]]) -> Iterator[str]:
    for name in dict.fromkeys(str(adapter["name"]) for adapter in adapters if adapter["kind"] == kind):
        pressed = "true" if (kind, name) in named else "false"
        yield (
            f'<button type="button" class="adapter" data-kind="{kind}" data-name="{escape(name)}" '
            f'aria-pressed="{pressed}">{escape(name)}</button>'
        )
