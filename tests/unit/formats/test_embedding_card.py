from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFont

from tincture.formats import embedding_card
from tincture.formats.embedding_card import caption, draw_card
from tincture.formats.embedding_content import EmbeddingFile

FILE = EmbeddingFile({"clip_l": torch.ones(3, 8)}, "midnight ferry", 12500, "v1-5-pruned-emaonly", "6ce0161689")
LONG = EmbeddingFile({"clip_l": torch.ones(1, 8)}, "W" * 100, 1, "a model of a very long name " * 5, "6ce0161689")
SIZES = [(256, 256), (256, 2048), (512, 512), (700, 260), (2048, 256), (2048, 2048)]


def bands(card: Image.Image) -> list[NDArray[np.uint8]]:
    grey = np.asarray(card.convert("L"))
    return [grey[: len(grey) // 5], grey[-len(grey) // 5 :]]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shade", [0, 128, 255])
def test_the_caption_stands_out_on_any_shade_and_size(size: tuple[int, int], shade: int) -> None:
    card = draw_card(FILE, Image.new("RGB", size, (shade,) * 3))
    assert card.size == size
    for band in bands(card):
        lines = band[(band[:, 2:-2] >= 240).any(axis=1) & (band < 60).any(axis=1)]
        assert len(lines) >= 8, "letters are lower than can be read"
        assert np.median(lines[lines < 200]) < 110, "nothing dark behind the letters"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("file", [FILE, LONG], ids=["short", "long"])
def test_no_text_is_wider_than_the_card(
    size: tuple[int, int], file: EmbeddingFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[str, ImageFont.FreeTypeFont]] = []
    fitting = embedding_card._fitting

    def recorded(text: str, font_size: int, width: int) -> tuple[str, ImageFont.FreeTypeFont]:
        drawn.append(fitting(text, font_size, width))
        return drawn[-1]

    monkeypatch.setattr(embedding_card, "_fitting", recorded)
    card = draw_card(file, Image.new("RGB", size))
    assert [font.size >= 11 for _, font in drawn] == [True] * 3
    assert all(font.getlength(text) < card.width for text, font in drawn)
    assert "[6ce0161689]" in drawn[1][0]


def test_the_caption_names_what_is_known() -> None:
    assert caption(FILE) == ["v1-5-pruned-emaonly  [6ce0161689]", "3 vectors, 12500 steps"]
    assert caption(LONG)[1] == "1 vector, 1 step"
    assert caption(EmbeddingFile({"clip_l": torch.ones(1, 8)}, "x")) == ["1 vector, 0 steps"]


def test_different_traits_give_different_pictures() -> None:
    plain = Image.new("RGB", (256, 256), "gray")
    pictures = {draw_card(file, plain).tobytes() for file in (FILE, LONG)}
    assert len(pictures) == 2
    assert plain.tobytes() == Image.new("RGB", (256, 256), "gray").tobytes(), "the user's picture was drawn on"


@pytest.mark.parametrize(
    ("given", "drawn"),
    [((64, 64), (256, 256)), ((100, 300), (300, 900)), ((4000, 2000), (2048, 1024)), ((300, 301), (300, 301))],
)
def test_sizes_that_do_not_suit_are_changed(given: tuple[int, int], drawn: tuple[int, int]) -> None:
    assert draw_card(FILE, Image.new("RGB", given)).size == drawn


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK"])
def test_pictures_of_any_mode_are_drawn_on(mode: str) -> None:
    assert draw_card(FILE, Image.new(mode, (300, 300))).mode == "RGB"


def test_without_a_picture_the_vectors_make_a_pattern() -> None:
    first, second = (EmbeddingFile({"clip_l": torch.randn(1, 768)}, "x") for _ in range(2))
    assert draw_card(first).size == (512, 512)
    assert draw_card(first).tobytes() == draw_card(first).tobytes() != draw_card(second).tobytes()


@pytest.mark.parametrize("name", ["渡し船", "a\nb\tc", "🚢", " "])
def test_names_of_any_script_are_drawn(name: str) -> None:
    draw_card(EmbeddingFile({"clip_l": torch.ones(1, 8)}, name), Image.new("RGB", (256, 256)))
