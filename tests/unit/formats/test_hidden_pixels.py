from __future__ import annotations

import json
import random
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from tincture.formats.hidden_pixels import find_bytes, hide_bytes

GOLDEN = Path(__file__).parents[2] / "golden"
FLAT = np.array([0.5])


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def decoded(pixels: NDArray[np.uint8]) -> bytes:
    """An independent decoder: one pixel, one channel and one number after the other."""
    width = pixels.shape[1]
    empty = [x for x in range(width) if not any(value % 16 for value in pixels[:, x].ravel().tolist())]
    blocks = []
    for columns in (slice(0, empty[0]), slice(empty[-1] + 1, width)):
        state, block = 0, []
        for row in pixels[:, columns].tolist():
            for value in (value for pixel in row for value in pixel):
                state = (1664525 * state + 1013904223) % 2**32
                block.append(value % 16 ^ (state % 255 % 16))
        blocks.append(block)
    return bytes(low + 16 * high for low, high in zip(*blocks, strict=True))


@pytest.mark.parametrize("name", ["gold-one", "gold-three"])
def test_golden_pictures_hold_an_embedding(name: str) -> None:
    pixels = np.asarray(Image.open(GOLDEN / f"{name}.pixels-only.png").convert("RGB"))
    found = find_bytes(pixels)
    assert found is not None
    content = json.loads(zlib.decompressobj().decompress(found))
    assert (content["name"], content["step"]) == (name, 777)


@pytest.mark.parametrize(("height", "width", "length"), [(64, 64, 1), (7, 3, 1), (256, 10, 5000), (100, 1, 12345)])
def test_an_independent_decoder_finds_what_is_hidden(height: int, width: int, length: int) -> None:
    content = random.Random(0).randbytes(length)
    hidden = hide_bytes(picture(height, width), content, FLAT)
    assert hidden.dtype == np.uint8
    assert decoded(hidden)[:length] == content
    assert find_bytes(hidden) == decoded(hidden)


@settings(max_examples=30, deadline=None)
@given(content=st.binary(min_size=1, max_size=2000), height=st.integers(16, 80), seed=st.integers(0, 5))
def test_what_is_hidden_is_found(content: bytes, height: int, seed: int) -> None:
    hidden = hide_bytes(picture(height, 20, seed), content, np.linspace(0, 1, 7))
    found = find_bytes(hidden)
    assert found is not None
    assert found[: len(content)] == content


def test_the_picture_stands_between_the_blocks_untouched() -> None:
    original = picture(64, 50)
    hidden = hide_bytes(original, bytes(range(1, 200)), FLAT)
    block = (hidden.shape[1] - 52) // 2
    assert np.array_equal(hidden[:, block + 1 : -block - 1], original)
    assert not hidden[:, block].any()
    assert not hidden[:, -block - 1].any()


@pytest.mark.parametrize("shade", [0, 255, 16])
def test_pictures_of_one_colour_and_black_borders_do_not_disturb(shade: int) -> None:
    content = random.Random(1).randbytes(700)
    hidden = hide_bytes(np.full((64, 30, 3), shade, np.uint8), content, np.array([0.0]))
    assert (hidden[:, 0] >= 16).all(), "a reader may take a dark pixel of the block for a border"
    framed = np.pad(hidden, ((5, 0), (3, 9), (0, 0)))
    found = find_bytes(framed)
    assert found is not None
    assert found[:700] == content


@pytest.mark.parametrize(
    "pixels", [picture(20, 20), np.zeros((20, 20, 3), np.uint8), np.full((9, 9, 3), 16, np.uint8), picture(1, 1)]
)
def test_a_picture_without_blocks_holds_nothing(pixels: NDArray[np.uint8]) -> None:
    assert find_bytes(pixels) is None


def test_blocks_of_different_sizes_hold_nothing() -> None:
    hidden = hide_bytes(picture(64, 50), bytes(range(1, 200)), FLAT)
    assert find_bytes(hidden[:, 1:]) is None


def test_huge_blocks_are_read_in_part() -> None:
    pixels = np.full((1000, 6002, 3), 17, np.uint8)
    pixels[:, [3000, 3001]] = 0
    found = find_bytes(pixels)
    assert found is not None
    assert len(found) == 4 * 2**20 < 1000 * 3000 * 3
