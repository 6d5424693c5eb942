from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

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


def written(card: Image.Image) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Where a card on black has letters, in its upper and in its lower half."""
    light = np.asarray(card.convert("L")) > 60
    return light[: len(light) // 2], light[len(light) // 2 :]


def lines(letters: NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """The height of each line of letters, and where it begins and ends in its rows."""
    rows = np.flatnonzero(np.diff(np.pad(letters.any(axis=1), 1).astype(int))).reshape(-1, 2)
    ends = [np.flatnonzero(letters[top:bottom].any(axis=0))[[0, -1]] for top, bottom in rows]
    return [(int(bottom - top), int(left), int(right)) for (top, bottom), (left, right) in zip(rows, ends, strict=True)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("file", [FILE, LONG], ids=["short", "long"])
def test_every_line_is_whole_centred_and_large_enough(size: tuple[int, int], file: EmbeddingFile) -> None:
    title, below = (lines(letters) for letters in written(draw_card(file, Image.new("RGB", size))))
    assert (len(title), len(below)) == (1, 2)
    for height, left, right in (*title, *below):
        assert height >= 8
        assert left >= 3 and right <= size[0] - 4, "letters touch the edge"
        assert abs(left - (size[0] - 1 - right)) <= 2 + size[0] / 100, "not in the middle"


@pytest.mark.parametrize("file", [FILE, LONG], ids=["short", "long"])
@pytest.mark.parametrize("change", [{"name": "midnight fairy"}, {"step": 12501}, {"model_hash": "6ce0161680"}])
def test_each_trait_is_drawn_in_its_line(file: EmbeddingFile, change: dict[str, Any]) -> None:
    """The hash too where the model's name is far too long."""
    plain = Image.new("RGB", (512, 512))
    (title, below), (other_title, other_below) = (
        written(draw_card(drawn, plain)) for drawn in (file, dataclasses.replace(file, **change))
    )
    assert np.array_equal(title, other_title) is ("name" not in change)
    assert np.array_equal(below, other_below) is ("name" in change)


def test_the_caption_names_what_is_known() -> None:
    assert caption(FILE) == ["v1-5-pruned-emaonly  [6ce0161689]", "3 vectors, 12500 steps"]
    assert caption(LONG)[1] == "1 vector, 1 step"
    assert caption(EmbeddingFile({"clip_l": torch.ones(1, 8)}, "x")) == ["1 vector, 0 steps"]


def test_different_traits_give_different_pictures() -> None:
    plain = Image.new("RGB", (256, 256), "gray")
    pictures = {draw_card(file, plain).tobytes() for file in (FILE, LONG)}
    assert len(pictures) == 2
    assert plain.tobytes() == Image.new("RGB", (256, 256), "gray").tobytes(), "the user's picture was drawn on"


def middle(picture: Image.Image) -> Image.Image:
    """What is between the captions, as 8 × 8 pixels."""
    width, height = picture.size
    return picture.convert("RGB").resize((8, 8), Image.Resampling.BOX, (0, height * 0.3, width, height * 0.7))


@pytest.mark.parametrize(
    ("given", "drawn"),
    [((64, 64), (256, 256)), ((100, 300), (300, 900)), ((4000, 2000), (2048, 1024)), ((300, 301), (300, 301))],
)
def test_sizes_that_do_not_suit_are_changed(given: tuple[int, int], drawn: tuple[int, int]) -> None:
    picture = Image.linear_gradient("L").resize(given)
    card = draw_card(FILE, picture)
    assert card.size == drawn
    assert np.abs(np.asarray(middle(card), float) - np.asarray(middle(picture), float)).max() <= 2


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK"])
def test_pictures_of_any_mode_are_drawn_on(mode: str) -> None:
    picture = Image.merge("RGB", [Image.linear_gradient("L").rotate(turn) for turn in (0, 90, 180)]).convert(mode)
    card = draw_card(FILE, picture)
    assert card.mode == "RGB"
    assert middle(card).tobytes() == middle(picture).tobytes()


def test_without_a_picture_the_vectors_make_a_pattern() -> None:
    first, second = (EmbeddingFile({"clip_l": torch.randn(1, 768)}, "x") for _ in range(2))
    assert draw_card(first).size == (512, 512)
    assert draw_card(first).tobytes() == draw_card(first).tobytes() != draw_card(second).tobytes()


@pytest.mark.parametrize(
    ("name", "like"), [("渡し船", None), ("🚢", None), ("a\nb\tc", "a b c"), (" ", ""), ("\n", "")]
)
def test_names_of_any_script_are_one_line(name: str, like: str | None) -> None:
    card, other = (
        draw_card(EmbeddingFile({"clip_l": torch.ones(1, 8)}, drawn), Image.new("RGB", (256, 256)))
        for drawn in (name, like or "")
    )
    assert (card.tobytes() == other.tobytes()) is (like is not None)
    assert len(lines(written(card)[0])) == bool(name.strip())
