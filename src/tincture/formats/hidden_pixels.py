"""Bytes in the pixels of a picture, as the webui hides an embedding in a picture card.

The bytes are split into low and high nibbles. The low ones fill a block left of the picture, the high ones a block of
the same size right of it, row by row and channel by channel, in the low nibbles of the pixels; a column of black pixels
parts each block from the picture. The nibbles are XOR-ed with the low nibbles of a linear congruential sequence
(modulus 2^32, factor 1664525, increment 1013904223, the first value follows the state 0; each value mod 255), which
starts anew in each block. What fills a block's last pixels behind the bytes does not count, nor do the high nibbles:
they are decoration. A black border around all of it is ignored.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_FACTOR, _INCREMENT = 1664525, 1013904223
# A hundred vectors need about a megabyte.
_MOST_BYTES = 4 * 2**20


def hide_bytes(pixels: NDArray[np.uint8], content: bytes, brightness: NDArray[np.floating]) -> NDArray[np.uint8]:
    """The picture ``pixels`` with ``content`` in blocks at its sides.

    Args:
        pixels: (H, W, 3).
        content: at least one byte.
        brightness: numbers 0..1 that decorate the blocks, each a square of pixels; repeated as needed.

    Returns:
        (H, W + 2 (b + 1), 3), b the least width of a block that holds the content.
    """
    height = pixels.shape[0]
    width = -(-len(content) // (3 * height))
    # Repeats the content, which looks like the rest and is as hard to compress.
    padded = np.resize(np.frombuffer(content, np.uint8), 3 * height * width)
    mask = _keystream(padded.size)
    decoration = _decoration(height, width, brightness)
    blocks = [
        ((nibbles ^ mask).reshape(height, width, 3) | decoration[..., None]) for nibbles in (padded & 15, padded >> 4)
    ]
    gap = np.zeros((height, 1, 3), np.uint8)
    return np.concatenate((blocks[0], gap, pixels, gap, blocks[1]), axis=1)


def find_bytes(pixels: NDArray[np.uint8]) -> bytes | None:
    """The bytes in ``pixels`` (H, W, 3), at most 4 MiB, and what fills the blocks behind; None without two blocks."""
    pixels = _without_black_border(pixels)
    nibbles = pixels & 15
    empty = np.flatnonzero(~nibbles.any(axis=(0, 2)))
    if len(empty) < 2:
        return None
    left, right = nibbles[:, : empty[0]], nibbles[:, empty[-1] + 1 :]
    if left.shape != right.shape or not left.size:
        return None
    low, high = left.reshape(-1)[:_MOST_BYTES], right.reshape(-1)[:_MOST_BYTES]
    mask = _keystream(low.size)
    return ((low ^ mask) | (high ^ mask) << 4).astype(np.uint8).tobytes()


def _without_black_border(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    lit: NDArray[np.bool_] = np.any(pixels, axis=2)
    rows, columns = np.flatnonzero(np.any(lit, axis=1)), np.flatnonzero(np.any(lit, axis=0))
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else pixels[:0]


def _keystream(length: int) -> NDArray[np.uint8]:
    """The first ``length`` nibbles of the sequence."""
    values = np.array([_INCREMENT], np.uint32)
    factor, increment = _FACTOR, _INCREMENT  # how the sequence goes on by len(values) at once
    while len(values) < length:
        values = np.concatenate((values, values * np.uint32(factor) + np.uint32(increment)))
        factor, increment = factor * factor % 2**32, (factor + 1) * increment % 2**32
    return (values[:length] % 255 % 16).astype(np.uint8)


def _decoration(height: int, width: int, brightness: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Squares of a grey, (height, width) in the high nibbles; none is black, or readers would take it for a border."""
    size = 8
    rows, columns = -(-height // size), -(-width // size)
    cells = 16 * (1 + np.rint(np.clip(np.resize(brightness, (rows, columns)), 0, 1) * 6)).astype(np.uint8)
    return np.repeat(np.repeat(cells, size, axis=0), size, axis=1)[:height, :width].astype(np.uint8)
