"""Near-duplicates: pictures that show the same, up to size, compression, brightness, a slight crop, or mirroring.

Each picture is remembered by a thumbnail of 9 x 9 pixels. From it comes a difference hash (N. Krawetz, "Kind of like
that", 2013), here along rows and columns: a bit says whether a pixel is brighter than its neighbour. Two pictures are
near-duplicates when few bits differ, and little else of the thumbnails: pictures with much empty background have hashes
with few bits set, which are alike though the pictures are not.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 9
BITS = 2 * SIDE * (SIDE - 1)
CLEARLY_BRIGHTER = 4 * 3
"""Of the sum of red, green and blue: less than that is noise of compression."""
# Bounds for two thumbnails of colours 0..255. Copies of 400 pictograms and 48 photographs that were compressed, made
# smaller, brighter or paler keep them in 97 of 100 cases or more. So do 8 of 79,800 pairs of pictograms, which differ
# in texture or are mirrored, and no pair of the photographs.
MOST_BRIGHTER = 40.0
"""Of one as a whole."""
MOST_DIFFERENT = 12.0
"""Root mean square of what differs beyond that."""
MOST_OF_CONTRAST = 0.4
"""The same as a share of the contrast (standard deviation) of the paler one, or of the least contrast that counts."""
LEAST_CONTRAST = 5.0

Thumbnails = NDArray[np.uint8]  # (pictures, SIDE, SIDE, 3)


@dataclass(frozen=True)
class Pair:
    """Two near-duplicates by name: how many bits differ, and whether the second shows the first mirrored."""

    first: str
    second: str
    distance: int
    mirrored: bool


def thumbnail(picture: Image.Image) -> str:
    """What is remembered of an RGB picture, as text."""
    return base64.b64encode(picture.resize((SIDE, SIDE), Image.Resampling.BOX).tobytes()).decode()


def near_duplicates(thumbnails: Mapping[str, str], most_bits: int) -> list[Pair]:
    """Near-duplicates, in the order of `thumbnails` (text of `thumbnail` by the picture's name).

    Of many pictures that are alike, such as frames of a film, not all pairs are given, which would be millions: so many
    that all are connected by them.

    Args:
        most_bits: bits of 144 that may differ.
    """
    names = list(thumbnails)
    pixels = _decoded(list(thumbnails.values()))
    group = np.arange(len(names))  # of each picture; those of a group are connected already
    found: list[tuple[int, int, int, bool]] = []
    for turned, others in ((False, pixels), (True, pixels[:, :, ::-1])):
        for one, other, distance in _alike(pixels, others, most_bits, group):
            found.append((one, other, distance, turned))
            group[group == group[other]] = group[one]
    return [Pair(names[one], names[other], distance, turned) for one, other, distance, turned in sorted(found)]


def groups(names: Sequence[str], pairs: Sequence[Pair]) -> list[list[str]]:
    """The names in groups, so that near-duplicates, and near-duplicates of these, are together; order is kept."""
    leader = {name: name for name in names}

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for pair in pairs:
        leader[find(pair.second)] = find(pair.first)
    grouped: dict[str, list[str]] = {}
    for name in names:
        grouped.setdefault(find(name), []).append(name)
    return list(grouped.values())


def _decoded(texts: Sequence[str]) -> Thumbnails:
    content = b"".join(base64.b64decode(text) for text in texts)
    return np.frombuffer(content, np.uint8).reshape(-1, SIDE, SIDE, 3)


def _alike(
    pixels: Thumbnails, others: Thumbnails, most_bits: int, group: NDArray[np.int64]
) -> Iterator[tuple[int, int, int]]:
    """(index, a later index of the other, differing bits) of all that are alike and not in one group.

    Groups may grow meanwhile.
    """
    one, other = _hashes(pixels), _hashes(others)
    for index in range(len(pixels) - 1):
        later = slice(index + 1, None)
        distances = np.bitwise_count(one[index] ^ other[later]).sum(axis=1, dtype=np.int64)
        near = (distances <= most_bits) & (group[later] != group[index])
        for place in np.flatnonzero(near):
            column = index + 1 + int(place)
            if group[column] != group[index] and _looks_alike(pixels[index], others[column]):
                yield index, column, int(distances[place])


def _hashes(pixels: Thumbnails) -> NDArray[np.uint64]:
    """(pictures, 3): 144 bits each, the rest 0."""
    light = pixels.sum(axis=3, dtype=np.int64)
    rows = light[:, :, 1:] - light[:, :, :-1] > CLEARLY_BRIGHTER
    columns = light[:, 1:] - light[:, :-1] > CLEARLY_BRIGHTER
    bits = np.concatenate([rows.reshape(len(pixels), -1), columns.reshape(len(pixels), -1)], axis=1)
    padded = np.pad(bits, ((0, 0), (0, -BITS % 64)))
    return np.packbits(padded, axis=1).view(np.uint64)


def _looks_alike(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    change = one.astype(np.float64) - other
    brighter = abs(change.mean())
    different = change.std()
    contrast = max(min(_contrast(one), _contrast(other)), LEAST_CONTRAST)
    return bool(brighter <= MOST_BRIGHTER and different <= min(MOST_DIFFERENT, MOST_OF_CONTRAST * contrast))


def _contrast(pixels: NDArray[np.uint8]) -> float:
    return float((pixels - pixels.mean(axis=(0, 1))).std())
