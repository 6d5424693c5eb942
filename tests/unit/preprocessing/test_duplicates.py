from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from tests.unit.preprocessing.pictures import portrait, texture
from tincture.models.picto.world import random_scene, render
from tincture.preprocessing.duplicates import Pair, groups, near_duplicates, thumbnail

BITS = 12


def alike(one: Image.Image, other: Image.Image, most_bits: int = BITS) -> list[Pair]:
    return near_duplicates({"one": thumbnail(one), "other": thumbnail(other)}, most_bits)


def compressed(picture: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "jpeg", quality=40)
    return Image.open(buffer).convert("RGB")


SAME = {
    "itself": lambda picture: picture,
    "compressed": compressed,
    "smaller": lambda picture: picture.resize((picture.width // 3, picture.height // 3)),
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.15),
    "paler": lambda picture: ImageEnhance.Contrast(picture).enhance(0.85),
    "stretched": lambda picture: picture.resize((picture.width, picture.height * 2)),
    "cropped a little": lambda picture: picture.crop((4, 3, picture.width - 4, picture.height - 3)),
}
PICTURES = {"texture": texture(320, 240, 5), "face": portrait(320, 240, 60, 20, 200)}


@pytest.mark.parametrize("change", SAME)
@pytest.mark.parametrize("name", PICTURES)
def test_changed_copies_are_found(name: str, change: str) -> None:
    (pair,) = alike(PICTURES[name], SAME[change](PICTURES[name]))
    assert (pair.first, pair.second, pair.mirrored) == ("one", "other", False)
    assert pair.distance <= BITS


def test_a_mirrored_copy_is_found_as_such() -> None:
    picture = texture(320, 240, 5)
    assert alike(picture, ImageOps.mirror(picture)) == [Pair("one", "other", 0, True)]


def test_other_pictures_are_not_alike() -> None:
    thumbnails = {str(seed): thumbnail(texture(160, 120, seed)) for seed in range(60)}
    assert near_duplicates(thumbnails, BITS) == []
    places = {str(left): thumbnail(portrait(320, 240, left, 40, 100)) for left in (0, 60, 110)}
    assert near_duplicates(places, BITS) == []


def test_few_pictograms_are_taken_for_each_other() -> None:
    rng = np.random.default_rng(1)
    scenes = [random_scene(rng) for _ in range(150)]
    thumbnails = {str(number): thumbnail(Image.fromarray(render(scene))) for number, scene in enumerate(scenes)}
    pairs = near_duplicates(thumbnails, BITS)
    assert len(pairs) <= 6  # of 11,175
    for pair in pairs:
        one, other = scenes[int(pair.first)], scenes[int(pair.second)]
        assert one.subject.colour == other.subject.colour or one.background == other.background


def test_the_number_of_bits_is_a_bound() -> None:
    one, other = texture(160, 120, 1), ImageEnhance.Brightness(texture(160, 120, 1)).enhance(1.15)
    distances = {bits: alike(one, other, bits) for bits in range(73)}
    (found,) = distances[72]
    assert all(bool(pairs) == (bits >= found.distance) for bits, pairs in distances.items())


def test_many_that_are_alike_are_connected_by_few_pairs() -> None:
    kinds = [texture(40, 30, number % 7) for number in range(20)]
    turned = [ImageOps.mirror(kind) if number >= 14 else kind for number, kind in enumerate(kinds)]
    thumbnails = {str(number): thumbnail(picture) for number, picture in enumerate(turned)}
    pairs = near_duplicates(thumbnails, BITS)
    assert len(pairs) == 20 - 7
    assert all(int(pair.first) < int(pair.second) for pair in pairs)
    assert all(pair.mirrored == (int(pair.first) < 14 <= int(pair.second)) for pair in pairs)
    found = groups(list(thumbnails), pairs)
    assert [[int(name) for name in group] for group in found] == [list(range(kind, 20, 7)) for kind in range(7)]


def test_thousands_of_frames_that_are_alike_take_no_more_memory_than_pictures() -> None:
    frame = thumbnail(texture(40, 30, 1))
    tracemalloc.start()
    try:
        pairs = near_duplicates({str(number): frame for number in range(3000)}, BITS)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(pairs) == 2999
    assert most < 10_000_000  # 4.5 million pairs would be hundreds


def test_groups_join_chains_and_keep_order() -> None:
    pairs = [Pair("b", "d", 0, False), Pair("d", "e", 0, False), Pair("c", "f", 0, True)]
    assert groups(list("abcdefg"), pairs) == [["a"], ["b", "d", "e"], ["c", "f"], ["g"]]
    assert groups([], []) == []
