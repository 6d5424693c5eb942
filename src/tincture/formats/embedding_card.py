"""The picture of an embedding: title, model, hash, vectors and steps, drawn on a user's picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tincture.formats.embedding_content import EmbeddingFile

SMALLEST, LARGEST = 256, 2048
"""Pixels a card's shorter side has at least and its longer side at most."""

_TITLE_SHARE, _LINE_SHARE = 0.10, 0.052  # of the shorter side; the line then has 13 pixels at the smallest size
_LIGHT, _DARK = (255, 255, 255), (0, 0, 0)


def draw_card(file: EmbeddingFile, picture: Image.Image | None = None) -> Image.Image:
    """A captioned copy of ``picture``.

    Args:
        file: whose traits are drawn. Letters that the font within Pillow lacks become boxes.
        picture: any mode and size; one below 256 pixels is enlarged by a whole factor, one above 2048 is made smaller;
            the sides keep their ratio. None for a pattern made from the first vector.

    Returns:
        RGB, both sides at least 256 where the ratio allows it, none above 2048.
    """
    card = _pattern(file) if picture is None else _fitted(picture.convert("RGB"))
    lines = caption(file)
    side = min(card.size)
    _draw_band(card, [file.name], round(side * _TITLE_SHARE), top=True)
    _draw_band(card, lines, round(side * _LINE_SHARE), top=False)
    return card


def caption(file: EmbeddingFile) -> list[str]:
    """The lines below the picture: model and hash where they are known, vectors and steps."""
    count = len(next(iter(file.vectors.values())))
    model = "  ".join(part for part in (file.model_name, file.model_hash and f"[{file.model_hash}]") if part)
    size = f"{count} vector{'s' * (count != 1)}, {file.step} step{'s' * (file.step != 1)}"
    return [line for line in (model, size) if line]


def _fitted(picture: Image.Image) -> Image.Image:
    factor = -(-SMALLEST // min(picture.size))
    if factor > 1:
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    if max(picture.size) > LARGEST:
        picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    return picture


def _pattern(file: EmbeddingFile) -> Image.Image:
    """Squares whose colours are the first numbers of the first vector."""
    vector = next(iter(file.vectors.values()))[0].float().cpu().numpy()
    ranks = np.resize(vector, 16 * 16 * 3).argsort().argsort() / (16 * 16 * 3)
    squares: NDArray[np.uint8] = (40 + 180 * ranks).astype(np.uint8).reshape(16, 16, 3)
    return Image.fromarray(squares).resize((512, 512), Image.Resampling.NEAREST)


def _draw_band(card: Image.Image, lines: Sequence[str], size: int, *, top: bool) -> None:
    """Draws the lines, centred, on a darkened band at one edge of the card."""
    margin = size // 2
    fitted = [_fitting(line, size, card.width - 2 * margin) for line in lines]
    height = sum(round(font.size * 1.25) for _, font in fitted) + margin
    box = (0, 0, card.width, height) if top else (0, card.height - height, card.width, card.height)
    card.paste(Image.blend(card.crop(box), Image.new("RGB", (card.width, height), _DARK), 0.6), box)
    draw = ImageDraw.Draw(card)
    y = box[1] + margin / 2
    for text, font in fitted:
        line_height = round(font.size * 1.25)
        draw.text(
            (card.width / 2, y + line_height / 2),
            text,
            _LIGHT,
            font,
            anchor="mm",
            stroke_width=max(1, round(font.size / 14)),
            stroke_fill=_DARK,
        )
        y += line_height


def _fitting(text: str, size: int, width: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """``text`` on one line that is not wider than ``width``: in smaller letters, then with its middle left out."""
    text = " ".join(text.split())
    smallest = min(size, 11)
    font = _font(size)
    if font.getlength(text) > width:
        font = _font(max(smallest, int(size * width / font.getlength(text))))
    letters = len(text)
    shown = text
    while font.getlength(shown) > width and letters > 2:
        letters -= 1
        shown = f"{text[: letters - letters // 2]}…{text[len(text) - letters // 2 :]}"
    return shown, font


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # Pillow's wheels have FreeType
    return font
