from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tincture.models.picto import oracle, world
from tincture.models.picto.oracle import ATTRIBUTES, Reading, read
from tincture.models.picto.world import Scene

OTHER = {
    "shape": "star",
    "colour": "green",
    "texture": "plain",
    "size": "large",
    "position": "top",
    "background": "white",
}
MOON = Scene("moon", "cyan", "dotted", "small", "left", "navy")


@pytest.fixture(scope="module")
def readings() -> list[tuple[Scene, Reading]]:
    rng = np.random.default_rng(2026)
    scenes = [world.random_scene(rng) for _ in range(150)]
    return [(scene, read(world.render(scene))) for scene in scenes]


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_reads_each_attribute_of_rendered_pictures(readings: list[tuple[Scene, Reading]], attribute: str) -> None:
    assert oracle.accuracy(readings)[attribute] >= 0.99


def test_reads_no_style_where_there_is_none(readings: list[tuple[Scene, Reading]]) -> None:
    assert oracle.accuracy(readings, ["style"])["all"] >= 0.99


@pytest.mark.parametrize("style", world.STYLES[1:])
def test_reads_styles_and_what_they_cover(style: str) -> None:
    rng = np.random.default_rng(7)
    scenes = [world.random_scene(rng, style) for _ in range(30)]
    accuracy = oracle.accuracy([(scene, read(world.render(scene))) for scene in scenes], (*ATTRIBUTES, "style"))
    assert accuracy["style"] >= 0.97
    assert accuracy["all"] >= 0.95


@pytest.mark.parametrize("style", world.STYLES)
def test_what_is_smeared_or_noisy_is_not_taken_for_a_shadow(style: str) -> None:
    rng = np.random.default_rng(3)
    for scene in [world.random_scene(rng, style) for _ in range(8)]:
        picture = world.render(scene)
        smeared = np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(4)))
        noisy = np.clip(picture + rng.normal(0, 20, picture.shape), 0, 255).astype(np.uint8)
        for each in (read(smeared), read(noisy)):
            assert each.style != "shadow" or (style == "shadow" and each.clear), (scene, each)


def test_styles_of_the_background_are_read_without_a_thing() -> None:
    for style in ("hatching", "frame", "sunset"):
        empty = world.paint(
            np.full((64, 64), 99, np.float32),
            world.rgb(world.COLOURS["red"]),
            world.rgb(world.LIGHT_INK),
            world.rgb(world.BACKGROUNDS["mint"]),
            "plain",
            style,
            world.rgb(world.contrast_ink(world.BACKGROUNDS["mint"])),
        )
        reading = read(np.round(empty * 255).astype(np.uint8))
        assert (reading.style, reading.background, reading.clear) == (style, "mint", False)


@pytest.mark.parametrize("seed", range(5))
def test_noise_shows_nothing(seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, size=(64, 64, 3), dtype=np.uint8)
    reading = read(noise)
    assert not reading.clear
    assert not reading.shows(MOON, ["background"])


@pytest.mark.parametrize("shape", world.SHAPES)
def test_what_is_blurred_away_is_not_clear(shape: str) -> None:
    picture = Image.fromarray(world.render(dataclasses.replace(MOON, shape=shape)))
    assert read(np.asarray(picture)).clear
    assert not read(np.asarray(picture.filter(ImageFilter.GaussianBlur(9)))).clear


def test_an_empty_picture_shows_its_background_and_no_thing() -> None:
    reading = read(np.full((64, 64, 3), world.BACKGROUNDS["mint"], dtype=np.uint8))
    assert reading.background == "mint"
    assert (reading.shape, reading.explained, reading.clear) == ("", 0.0, False)


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_a_scene_wrong_in_one_attribute_is_not_shown(attribute: str) -> None:
    reading = read(world.render(MOON))
    wrong = dataclasses.replace(MOON, **{attribute: OTHER[attribute]})
    assert reading.shows(MOON)
    assert not reading.shows(wrong)
    assert not reading.shows(wrong, [attribute])
    assert reading.shows(wrong, [name for name in ATTRIBUTES if name != attribute])


def test_accuracy_counts_pictures_per_attribute_and_all_at_once() -> None:
    reading = read(world.render(MOON))
    pairs = [
        (MOON, reading),
        (MOON, reading),
        (dataclasses.replace(MOON, shape="star"), reading),
        (dataclasses.replace(MOON, colour="red"), reading),
    ]
    assert oracle.accuracy(pairs, ("shape", "colour")) == {"shape": 0.75, "colour": 0.75, "all": 0.5}


@pytest.mark.parametrize(
    "picture", [np.zeros((32, 32, 3), np.uint8), np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3), np.float32)]
)
def test_pictures_of_another_kind_are_refused(picture: np.ndarray) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=r"\(64, 64, 3\) uint8"):
        read(picture)
