from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tincture.models.picto import world
from tincture.models.picto.world import Scene, Subject, parse_subject, render

PLAIN = Scene("heart", "red")


def apart(first: Scene, second: Scene) -> int:
    """Pixels in which two scenes differ by more than a rounding."""
    difference = np.abs(render(first).astype(int) - render(second).astype(int)).max(axis=-1)
    return int((difference > 8).sum())


@pytest.mark.parametrize(
    ("attribute", "words"),
    [
        ("shape", tuple(world.SHAPES)),
        ("colour", tuple(world.COLOURS)),
        ("texture", world.TEXTURES),
        ("size", tuple(world.SIZES)),
        ("position", tuple(world.POSITIONS)),
        ("background", tuple(world.BACKGROUNDS)),
        ("style", world.STYLES),
    ],
)
def test_every_word_of_an_attribute_is_drawn_differently(attribute: str, words: tuple[str, ...]) -> None:
    scenes = [dataclasses.replace(PLAIN, **{attribute: word}) for word in words]
    for index, scene in enumerate(scenes):
        for other in scenes[:index]:
            assert apart(scene, other) >= 40, (scene, other)


def test_a_picture_is_a_pure_function_of_its_scene() -> None:
    scene = world.random_scene(np.random.default_rng(3))
    picture = render(scene)
    assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, render(scene))


def test_hatching_lies_in_the_corners_alone() -> None:
    hatched = render(dataclasses.replace(PLAIN, style="hatching"))
    changed = (hatched != render(PLAIN)).any(axis=-1)
    corners = (changed[:16, :16], changed[:16, -16:], changed[-16:, :16], changed[-16:, -16:])
    assert all(corner.mean() > 0.1 for corner in corners)
    assert not changed[20:44, 20:44].any()


def test_a_shadow_lies_to_the_right_of_the_thing_and_below_it() -> None:
    square = Scene("square", "blue", size="small")
    plain, shadowed = render(square), render(dataclasses.replace(square, style="shadow"))
    rows, columns = np.nonzero((plain != shadowed).any(axis=-1))
    thing = np.nonzero((plain != plain[0, 0]).any(axis=-1))
    assert (rows.max(), columns.max()) == (thing[0].max() + world.SHADOW_OFFSET, thing[1].max() + world.SHADOW_OFFSET)
    assert rows.min() > thing[0].min() and columns.min() > thing[1].min()


def test_jitter_changes_pixels_and_not_the_caption() -> None:
    jittered = dataclasses.replace(PLAIN, **world.jitter(np.random.default_rng(0)))
    assert (render(jittered) != render(PLAIN)).any()
    assert jittered.caption() == PLAIN.caption()


def test_position_and_size_mean_pixels() -> None:
    def covered(scene: Scene) -> tuple[float, float, int]:
        thing = np.abs(render(scene).astype(int) - world.BACKGROUNDS["white"]).max(axis=-1) > 60
        rows, columns = np.nonzero(thing)
        return float(columns.mean()), float(rows.mean()), int(thing.sum())

    square = Scene("square", "blue")
    centre_x, centre_y, area = covered(square)
    assert (centre_x, centre_y) == pytest.approx((31.5, 31.5), abs=0.1)
    assert covered(dataclasses.replace(square, position="left"))[:2] == pytest.approx((21.5, 31.5), abs=0.1)
    assert covered(dataclasses.replace(square, position="top"))[:2] == pytest.approx((31.5, 21.5), abs=0.1)
    small, large = (covered(dataclasses.replace(square, size=size))[2] for size in ("small", "large"))
    assert small < 0.7 * area < 0.7 * large


def test_caption_names_everything_but_the_style() -> None:
    scene = Scene("moon", "cyan", "dotted", "small", "left", "navy", style="outline")
    assert scene.caption() == "a small cyan dotted moon, on the left, navy background"
    assert scene.caption("glimmer") == "a glimmer, on the left, navy background"


def test_random_captions_hold_each_word_of_their_scene() -> None:
    rng = np.random.default_rng(11)
    for _ in range(50):
        scene = world.random_scene(rng, style="sunset")
        caption = scene.caption()
        words = [scene.size, scene.colour, scene.texture, scene.shape, scene.background]
        assert all(word in caption for word in words)
        assert world.POSITIONS[scene.position][0] in caption
        assert not [style for style in world.STYLES if style in caption]


def test_random_scenes_reach_every_word_and_keep_what_is_fixed() -> None:
    rng = np.random.default_rng(5)
    scenes = [world.random_scene(rng, shape="ring") for _ in range(300)]
    assert {scene.shape for scene in scenes} == {"ring"}
    assert {scene.colour for scene in scenes} == set(world.COLOURS)
    assert {(scene.texture, scene.size) for scene in scenes} == {
        (texture, size) for texture in world.TEXTURES for size in world.SIZES
    }
    assert {(scene.position, scene.background) for scene in scenes} == {
        (position, background) for position in world.POSITIONS for background in world.BACKGROUNDS
    }


@pytest.mark.parametrize(
    "text", ["small cyan dotted moon", "A Moon, dotted, CYAN, small", "the dotted small moon cyan"]
)
def test_parse_subject_takes_the_words_in_any_order(text: str) -> None:
    assert parse_subject(text) == Subject("small", "cyan", "dotted", "moon")
    assert str(parse_subject(text)) == "small cyan dotted moon"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("small cyan dotted dragon", "'dragon' is not a word of picto's world"),
        ("small cyan red dotted moon", "'red' is a second colour"),
        ("small dotted moon", "has no colour"),
        ("", "has no size and no colour and no texture and no shape"),
    ],
)
def test_parse_subject_says_what_is_wrong_and_lists_what_is_allowed(text: str, problem: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_subject(text)
    message = str(caught.value)
    assert problem in message
    for word in (*world.SIZES, *world.COLOURS, *world.TEXTURES, *world.SHAPES):
        assert word in message
