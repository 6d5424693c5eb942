"""A report in one HTML file that needs nothing else: no script, no network, pictures inside it.

Whoever makes a report puts sections together: ``table``, ``tincture.reports.curves.chart``, ``sheet``.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from tincture.formats.pictures import open_picture
from tincture.reports.words import escape

THUMBNAIL = 192
"""Pixels of the longer side of a picture in a report: some 8 kB each."""
_STYLE = Path(__file__).with_name("document.css")
_GOLDEN = 137.508  # degrees between the hues of neighbouring lines, so that many stay apart


def document(title: str, sections: Iterable[str]) -> str:
    """The whole file; ``sections`` are HTML already."""
    style = _STYLE.read_text(encoding="utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head>"
        f"<body><main><h1>{escape(title)}</h1>{''.join(sections)}</main></body></html>\n"
    )


def section(title: str, *parts: str) -> str:
    """HTML below a heading; empty where there is none of it."""
    inner = "".join(parts)
    return f"<section><h2>{escape(title)}</h2>{inner}</section>" if inner else ""


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], classes: Sequence[str] = ()) -> str:
    """Texts in rows below their heads, the first cell of each row its label; it scrolls sideways where it is wide.

    Args:
        classes: CSS classes of the rows, as far as they have any.
    """
    top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    body = []
    for number, (label, *cells) in enumerate(rows):
        style = f' class="{escape(classes[number])}"' if number < len(classes) and classes[number] else ""
        inner = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        body.append(f'<tr{style}><th scope="row">{escape(label)}</th>{inner}</tr>')
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def sheet(columns: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Pictures in labelled rows below labelled columns.

    Args:
        rows: a label, and for each column a ``data:`` address, empty where there is no picture.
    """
    top = "".join(f'<th scope="col">{escape(column)}</th>' for column in ("", *columns))
    body = []
    for label, pictures in rows:
        shown = zip(pictures, columns, strict=False)
        cells = "".join(
            f'<td><img src="{escape(data)}" alt="{escape(f"{label}: {column}")}"></td>' if data else "<td></td>"
            for data, column in shown
        )
        body.append(f'<tr><th scope="row">{escape(label)}</th>{cells}</tr>')
    if not body:
        return ""
    inner = f"<thead><tr>{top}</tr></thead><tbody>{''.join(body)}</tbody>"
    return f'<div class="wide"><table class="sheet">{inner}</table></div>'


def legend(names: Sequence[str]) -> str:
    """Which line is which, by the colours that ``line_style`` gives; with the colours themselves, as CSS."""
    rules = "".join(
        f".chart path.run-{number}{{stroke:{colour(number)}}}.key.run-{number}{{background:{colour(number)}}}"
        for number in range(len(names))
    )
    keys = "".join(
        f'<li><i class="key {line_style(number)}"></i>{escape(name)}</li>' for number, name in enumerate(names)
    )
    return f'<style>{rules}</style><ul class="legend">{keys}</ul>' if names else ""


def line_style(number: int) -> str:
    """The class of the line of that number among those that ``legend`` names."""
    return f"run-{number}"


def colour(number: int) -> str:
    """The colour of the line of that number, as CSS has it; one for dark and light grounds."""
    return f"hsl({number * _GOLDEN % 360:.0f} 65% {(45, 58, 36)[number // 8 % 3]}%)"


def settings_that_differ(settings: Sequence[Mapping[str, object]]) -> list[str]:
    """Names of the settings that are not the same in all, in the order in which they first stand."""
    names = dict.fromkeys(name for each in settings for name in each)
    return [name for name in names if any(each.get(name) != settings[0].get(name) for each in settings)]


def picture_data(path: Path | str, side: int = THUMBNAIL) -> str:
    """The picture in ``path``, ``side`` pixels at most, as a ``data:`` address; empty where none can be read."""
    try:
        with open_picture(path) as picture:
            small = picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError):  # as Pillow tells of damage
        return ""
    small.thumbnail((side, side), Image.Resampling.BILINEAR)
    written = io.BytesIO()
    small.save(written, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode()}"
