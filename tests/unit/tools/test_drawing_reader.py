import numpy as np
import pytest
from tools import drawings
from tools.drawing_reader import Reader, Reading, shares, unlike
from tools.drawings import Scene, random_scenes

from tests.unit.tools.stand_ins import icons

pytest.importorskip("resvg_py", reason="resvg-py renders the drawings: pip install 'tincture[dev]'")

SETS = {style: drawings.svgs(icons(style)) for style in ("noto", "fluent", "openmoji")}
SUBJECTS = [name for name in sorted(SETS["noto"]) if drawings.plain_name(name)]


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader({style: SETS[style] for style in ("noto", "fluent")}, SUBJECTS)


def test_every_scene_is_read_as_it_was_drawn(reader: Reader) -> None:
    scenes = random_scenes(SUBJECTS, ("noto", "fluent"), 60, seed=1)
    assert len({scene.position for scene in scenes}) == 5 and len({scene.background for scene in scenes}) == 6
    readings = reader.read([drawings.draw(scene, SETS[scene.style][scene.subject]) for scene in scenes])
    for scene, reading in zip(scenes, readings, strict=True):
        assert reading.subjects[0] == scene.subject
        assert len(set(reading.subjects)) == 5
        assert (reading.style, reading.size, reading.position, reading.background) == (
            scene.style,
            scene.size,
            scene.position,
            scene.background,
        )
        assert reading.distance < 2


def test_other_sizes_places_and_shades_are_read_too(reader: Reader) -> None:
    scenes = random_scenes(SUBJECTS, ("noto", "fluent"), 60, seed=2)
    rng = np.random.default_rng(0)
    figures = shares(scenes, reader.read([unlike(scene, SETS[scene.style][scene.subject], rng) for scene in scenes]))
    assert min(figures[part] for part in ("subject", "style", "size", "position", "background")) >= 0.95
    assert figures["distance"] > 4


def test_noise_is_far_from_every_drawing(reader: Reader) -> None:
    noise = np.random.default_rng(0).integers(0, 256, size=(64, 64, 3), dtype=np.uint8)
    assert reader.read([noise])[0].distance > 40


def test_shares_count_what_was_read() -> None:
    scene = Scene("a", "noto", "small", "on the left", "navy")
    right = Reading(("a", "b"), "noto", "small", "on the left", "navy", 1.0)
    wrong = Reading(("b", "a"), "fluent", "large", "in the center", "sky", 3.0)
    figures = shares([scene, scene], [right, wrong])
    assert figures == {
        "subject": 0.5,
        "subject in five": 1.0,
        "style": 0.5,
        "size": 0.5,
        "position": 0.5,
        "background": 0.5,
        "distance": 2.0,
    }
