"""A report as one picture, where no HTML is shown: curves over one another, a table, and pictures side by side."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from tincture.formats.pictures import open_picture
from tincture.reports.curves import Axes, Line, limits, number, ticks
from tincture.reports.document import colour

WIDTH = 1400
"""Pixels across; pictures of many columns are made smaller, so that it is never exceeded."""
_MARGIN, _LEFT, _PANEL, _ROW, _TEXT = 36, 84, 280, 26, 16
_LARGEST_PICTURE, _MOST_ROWS = 200, 60
_INK, _SOFT, _RULE, _GROUND = "#1d2433", "#5b6478", "#dfe3ea", "#ffffff"


@dataclass(frozen=True)
class Panel:
    """Lines under a title; of each run one, in their order, empty where it has none."""

    title: str
    lines: Sequence[Line]


def plate(
    names: Sequence[str],
    panels: Sequence[Panel],
    rows: Sequence[Sequence[str]],
    title: str = "",
    pictures: Mapping[str, Sequence[Path | None]] | None = None,
) -> bytes:
    """A PNG, ``WIDTH`` pixels wide.

    Args:
        names: of the runs, each in the colour of its lines.
        rows: of a table, a label and a text for each run.
        title: above the pictures.
        pictures: by their label, one for each run.
    """
    pictures = pictures or {}
    shown = rows[:_MOST_ROWS]
    side = min(_LARGEST_PICTURE, (WIDTH - 2 * _MARGIN - _label_width()) // max(1, len(names)) - 8)
    drawn = [panel for panel in panels if any(len(line.x) for line in panel.lines)]
    height = 2 * _MARGIN + _ROW * (len(names) + 1) + len(drawn) * (_PANEL + 3 * _ROW)
    height += (len(shown) + 2) * _ROW * bool(shown) + (len(pictures) * (side + 8) + 3 * _ROW) * bool(pictures)
    sheet = _Sheet(height)
    sheet.legend(names)
    for panel in drawn:
        sheet.panel(panel)
    if shown:
        sheet.table(names, shown)
    if pictures:
        sheet.pictures(title, names, pictures, side)
    return sheet.png()


def _label_width() -> int:
    return 220


class _Sheet:
    """What is drawn from the top to the bottom."""

    def __init__(self, height: int) -> None:
        self._image = Image.new("RGB", (WIDTH, height), _GROUND)
        self._pen = ImageDraw.Draw(self._image)
        self._font = ImageFont.load_default(_TEXT)
        self._y = _MARGIN

    def legend(self, names: Sequence[str]) -> None:
        for place, name in enumerate(names):
            self._pen.rectangle((_MARGIN, self._y + 8, _MARGIN + 22, self._y + 12), _rgb(place))
            self._write(_MARGIN + 32, name, WIDTH - 2 * _MARGIN)
            self._y += _ROW
        self._y += _ROW

    def panel(self, panel: Panel) -> None:
        drawn = [line for line in panel.lines if len(line.x)]
        start, end = min(line.x[0] for line in drawn), max(line.x[-1] for line in drawn)
        axes = Axes(float(start), float(max(end, start + 1)), *limits(drawn))
        self._write(_MARGIN, panel.title, WIDTH)
        top, self._y = self._y + _ROW, self._y + _ROW
        across, right = WIDTH - _MARGIN - _LEFT, WIDTH - _MARGIN
        for value in ticks(axes.low, axes.high):
            y = top + float(axes.down(np.array([value]))[0]) * _PANEL
            self._pen.line((_LEFT, y, right, y), _RULE)
            self._pen.text((_LEFT - 8, y), number(value), _SOFT, self._font, anchor="rm")
        for step in (value for value in ticks(axes.start, axes.end, 5) if value == round(value)):
            x = _LEFT + float(axes.across(np.array([step]))[0]) * across
            self._pen.text((x, top + _PANEL + 6), f"{step:,.0f}", _SOFT, self._font, anchor="ma")
        # At twice the size, since Pillow draws no smooth lines.
        curves = Image.new("RGBA", (2 * across, 2 * _PANEL), (0, 0, 0, 0))
        pen = ImageDraw.Draw(curves)
        for place, line in enumerate(panel.lines):
            points = list(zip(axes.across(line.x) * 2 * across, axes.down(line.y) * 2 * _PANEL, strict=True))
            if len(points) > 1:
                pen.line(points, _rgb(place), 4, joint="curve")
            elif points:
                (x, y), *_ = points
                pen.ellipse((x - 5, y - 5, x + 5, y + 5), _rgb(place))
        small = curves.resize((across, _PANEL), Image.Resampling.BOX)
        self._image.paste(small, (_LEFT, top), small)
        self._y += _PANEL + 2 * _ROW

    def table(self, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        width = (WIDTH - 2 * _MARGIN - _label_width()) // max(1, len(names))
        for row, cells in enumerate([("Settings that differ", *names), *rows]):
            for place, text in enumerate(cells):
                x = _MARGIN if place == 0 else _MARGIN + _label_width() + (place - 1) * width
                self._write(x, text, (width if place else _label_width()) - 10, _SOFT if row == 0 else _INK)
            self._y += _ROW
        self._y += _ROW

    def pictures(
        self, title: str, names: Sequence[str], pictures: Mapping[str, Sequence[Path | None]], side: int
    ) -> None:
        self._write(_MARGIN, title, WIDTH)
        for place, name in enumerate(names):
            self._write(_MARGIN + _label_width() + place * (side + 8), name, side, _SOFT, below=_ROW)
        self._y += 2 * _ROW
        for label, paths in pictures.items():
            self._write_lines(label, side)
            for place, path in enumerate(paths):
                if path is not None:
                    self._paste(path, _MARGIN + _label_width() + place * (side + 8), side)
            self._y += side + 8

    def png(self) -> bytes:
        written = io.BytesIO()
        self._image.save(written, "PNG", optimize=True)
        return written.getvalue()

    def _paste(self, path: Path, x: int, side: int) -> None:
        try:
            with open_picture(path) as picture:
                shown = picture.convert("RGB")
        except (OSError, ValueError, SyntaxError):  # as Pillow tells of damage
            return
        scale = side / max(shown.size)
        size = (max(1, round(shown.width * scale)), max(1, round(shown.height * scale)))
        self._image.paste(shown.resize(size, Image.Resampling.BICUBIC), (x, self._y))

    def _write_lines(self, label: str, height: int) -> None:
        """A label in as many lines as it needs, or has room for."""
        width, words = _label_width() - 10, label.split()
        for below in range(0, height - _ROW, _ROW):
            line = words[:1]
            while len(line) < len(words) and self._font.getlength(" ".join(words[: len(line) + 1])) <= width:
                line = words[: len(line) + 1]
            words = words[len(line) :]
            self._write(_MARGIN, " ".join(line), width, _SOFT, below)

    def _write(self, x: int, text: str, width: int, ink: str = _INK, below: int = 0) -> None:
        """A line of text, cut where it is too long."""
        shown = " ".join(text.split())
        if self._font.getlength(shown) > width:
            while shown and self._font.getlength(shown + "…") > width:
                shown = shown[:-1]
            shown += "…"
        self._pen.text((x, self._y + below), shown, ink, self._font)


def _rgb(place: int) -> tuple[int, ...]:
    return ImageColor.getrgb(colour(place).replace(" ", ","))
