"""The cluttered pictures are what they are said to be, and a lesson with each method runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bench import attention_mask
from bench.attention_mask import METHODS, Lesson, clutter, paint, pairs, settings_of, table, teach, write_lesson
from PIL import Image

from tincture.data.folders import load_dataset
from tincture.models.picto import oracle, world
from tincture.run import demo

pytestmark = pytest.mark.slow

SUBJECT = world.parse_subject("medium gray dotted ring")
SCENES, _ = demo.subject_scenes(SUBJECT, 0)


def test_without_other_things_a_picture_is_the_worlds() -> None:
    for scene in SCENES:
        picture, mask = paint(scene, [])
        assert np.array_equal(picture, world.render(scene))
        assert oracle.read(picture).shows(scene)
        assert (mask > 0).sum() > 200


def test_the_mask_covers_the_subject_and_nothing_else() -> None:
    for scene, others in zip(SCENES, clutter(SCENES, 2, True, 0), strict=True):
        (plain, mask), (picture, same_mask) = paint(scene, []), paint(scene, others)
        assert np.array_equal(mask, same_mask)
        assert np.array_equal(plain[mask == 255], picture[mask == 255])
        assert (plain != picture).any(axis=2).sum() > 80


def test_a_companion_is_the_same_everywhere_and_strangers_are_not() -> None:
    found = clutter(SCENES, 3, True, 0)
    assert found == clutter(SCENES, 3, True, 0) != clutter(SCENES, 3, True, 1)
    kinds = [{(other.shape, other.colour, other.texture) for other in others} for others in zip(*found, strict=True)]
    assert [len(kind) > 1 for kind in kinds] == [False, True, True]
    assert len({others[0] for others in clutter(SCENES, 1, False, 0)}) > 1
    assert not any(SUBJECT.shape == other.shape or SUBJECT.colour == other.colour for row in found for other in row)


def test_lessons_are_written_with_masks(tmp_path: Path) -> None:
    write_lesson(tmp_path / "data", SCENES, clutter(SCENES, 2, True, 0))
    dataset = load_dataset(tmp_path / "data", width=64, height=64, masks="")
    assert len(dataset) == demo.SUBJECT_PICTURES
    assert all(sample.mask is not None and "ring" not in sample.caption for sample in dataset)


@pytest.mark.parametrize("method", METHODS)
def test_a_lesson_runs_by_every_method(method: str) -> None:
    record = teach(Lesson(str(SUBJECT), 0, method, 2, True, pairs=2, steps=1))
    assert record["method"] == method
    assert all(0 <= record[name] <= 1 for name in ("fidelity", "editability", "clear"))


@pytest.mark.parametrize("method", ["", "all", "loss=1", "attention", "none=0", "loss+"])
def test_an_unknown_method_is_refused(method: str) -> None:
    with pytest.raises(ValueError, match="There is no method"):
        settings_of(method)


def test_figures_are_compared_by_subject() -> None:
    found = [
        {
            "method": method,
            "subject": subject,
            "seed": 0,
            "fidelity": share,
            "editability": share,
            "clear": 1,
            "seconds": 9,
        }
        for method, shares in {"none": (0.1, 0.5, 0.3), "loss": (0.4, 0.4, 0.6)}.items()
        for subject, share in zip("abc", shares, strict=True)
    ]
    assert "| none | 3 | 0.30 (0.10 to 0.50) |" in table(found, ["none", "loss"])
    compared = pairs(found, "none", "loss")
    assert compared.startswith("loss against none, 3 pairs: fidelity +0.167 ± 0.133, better in 2, worse in 1")
    assert pairs(found[:4], "none", "loss") == ""


def test_the_sheet_shows_pictures_above_masks(tmp_path: Path) -> None:
    attention_mask.show(tmp_path / "sheet.png", Lesson(str(SUBJECT), 0, "none", 2, True, 1, 1))
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (5 * 64 * 4, 2 * 64 * 4)
