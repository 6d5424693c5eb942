from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tincture.data.decoded import DecodedPictures
from tincture.data.fitting import cover, stretch

FIT = stretch((16, 8))
BYTES = 16 * 8 * 3
PATHS = [Path(f"{number}.png") for number in range(4)]


def noise(mode: str = "RGB") -> Image.Image:
    shape = (8, 16, 3) if mode == "RGB" else (8, 16)
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


@pytest.mark.parametrize(("most_bytes", "count"), [(BYTES - 1, 0), (BYTES, 1), (3 * BYTES - 1, 2), (3 * BYTES, 3)])
def test_pictures_are_kept_up_to_the_last_byte(most_bytes: int, count: int) -> None:
    decoded = DecodedPictures(most_bytes)
    for path in PATHS[:3]:
        assert decoded.has_room(FIT) == (path in PATHS[:count])
        decoded.add_picture(path, FIT, noise())
    decoded.add_picture(PATHS[3], FIT, noise())  # the latest is kept until the next comes, and counts for nothing
    assert [path for path in PATHS if decoded.picture(path, FIT)] == [*PATHS[:count], PATHS[3]]


def test_nothing_is_kept_without_memory_for_it() -> None:
    decoded = DecodedPictures()
    decoded.add_picture(PATHS[0], FIT, noise())
    assert decoded.picture(PATHS[0], FIT) is None


def test_a_picture_that_comes_again_takes_no_more_memory() -> None:
    decoded = DecodedPictures(2 * BYTES)
    for path in (PATHS[0], PATHS[0], PATHS[1]):
        decoded.add_picture(path, FIT, noise())
    assert decoded.picture(PATHS[0], FIT) and decoded.picture(PATHS[1], FIT)


def test_released_pictures_are_gone_and_masks_stay() -> None:
    decoded = DecodedPictures(BYTES)
    for path in PATHS[:2]:
        decoded.add_picture(path, FIT, noise())
    decoded.add_mask(PATHS[0], FIT, noise("L"))
    decoded.release_pictures()
    decoded.add_picture(PATHS[2], FIT, noise())
    assert not any(decoded.picture(path, FIT) for path in PATHS)
    assert decoded.mask(PATHS[0], FIT) is not None


def test_masks_come_back_as_they_were_and_none_is_known_too() -> None:
    decoded, other = DecodedPictures(), cover((16, 8), (8, 8))
    assert not decoded.knows_mask(PATHS[0], FIT)
    decoded.add_mask(PATHS[0], FIT, noise("L"))
    decoded.add_mask(PATHS[1], FIT, None)
    found = decoded.mask(PATHS[0], FIT)
    assert found is not None and np.array_equal(np.asarray(found), np.asarray(noise("L")))
    assert decoded.knows_mask(PATHS[1], FIT) and decoded.mask(PATHS[1], FIT) is None
    assert not decoded.knows_mask(PATHS[0], other)
    with pytest.raises(KeyError):
        decoded.mask(PATHS[0], other)
