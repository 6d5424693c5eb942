from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.unit.preprocessing.pictures import portrait, texture, write_yunet
from tincture.errors import UsageError
from tincture.preprocessing import faces
from tincture.preprocessing.faces import Face, choose_detector, load_detector


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    load_detector.cache_clear()
    yield
    load_detector.cache_clear()


@pytest.fixture
def without_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faces, "opencv", lambda: None)


@pytest.fixture
def opencv_5(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV as version 5 is: no cascades."""
    fake = types.SimpleNamespace(__version__="5.0.0", FaceDetectorYN=cv2.FaceDetectorYN, error=cv2.error)
    monkeypatch.setattr(faces, "opencv", lambda: fake)


@pytest.mark.parametrize(
    ("width", "height", "left", "top", "side"), [(500, 400, 200, 60, 160), (1500, 1000, 900, 200, 500)]
)
def test_haar_cascades_find_a_face_where_it_is(width: int, height: int, left: int, top: int, side: int) -> None:
    found = load_detector("haar")(np.asarray(portrait(width, height, left, top, side)))
    assert len(found) == 1
    centre = found[0].left + found[0].width / 2, found[0].top + found[0].height / 2
    assert centre == pytest.approx((left + side / 2, top + side / 2), abs=side / 10)
    assert 0.5 * side < found[0].width < 1.1 * side


def test_haar_cascades_find_no_face_where_none_is() -> None:
    assert load_detector("haar")(np.asarray(texture(400, 300))) == []


def test_profiles_are_looked_for_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray[Any, Any]] = []

    def fake(cascade: Any, grey: np.ndarray[Any, Any]) -> list[Face]:
        seen.append(grey)
        return [Face(10, 20, 30, 40)] if len(seen) == 3 else []

    monkeypatch.setattr(faces, "_detect", fake)
    pixels = np.asarray(texture(200, 100))
    assert load_detector("haar")(pixels) == [Face(200 - 10 - 30, 20, 30, 40)]
    assert (seen[1] == seen[2][:, ::-1]).all()


def test_yunet_finds_faces_in_pictures_of_any_size(tmp_path: Path) -> None:
    find = load_detector("yunet", str(write_yunet(tmp_path / "yunet.onnx")))
    for height, width in ((200, 300), (64, 160), (333, 97)):
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[32:64, 64:96] = 255
        assert find(pixels) == [Face(64, 32, 32, 32)]
    assert find(np.zeros((50, 50, 3), np.uint8)) == []


def test_the_chain_begins_with_yunet_where_its_file_is_given(tmp_path: Path) -> None:
    assert choose_detector("auto") == faces.Chosen("haar")
    assert choose_detector("auto", str(write_yunet(tmp_path / "yunet.onnx"))) == faces.Chosen("yunet")
    assert choose_detector("haar", "absent.onnx") == faces.Chosen("haar")
    assert choose_detector("none") == faces.Chosen("none")
    assert load_detector("none")(np.asarray(portrait(300, 300, 50, 50, 200))) == []


@pytest.mark.parametrize("name", ["absent.onnx", "text.onnx"])
def test_a_detector_that_does_not_work_is_told_and_the_next_one_taken(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.onnx").write_text("no network")
    chosen = choose_detector("auto", str(tmp_path / name))
    assert chosen.detector == "haar"
    assert f"The face detector YuNet {'finds no file' if name == 'absent.onnx' else 'cannot use'}" in chosen.remarks[0]
    assert chosen.remarks[1] == "Faces are found by Haar cascades instead."
    with pytest.raises(UsageError, match="YuNet"):
        choose_detector("yunet", str(tmp_path / name))


def test_without_opencv_no_detector_is_left(without_opencv: None) -> None:
    chosen = choose_detector("auto", "some.onnx")
    assert chosen.detector == "none"
    assert ["tincture[preprocess]" in remark for remark in chosen.remarks] == [True, True, False]
    assert chosen.remarks[2] == "No face detector is left, so faces do not count for the crops."
    with pytest.raises(UsageError, match=r"Haar cascades needs OpenCV: pip install 'tincture\[preprocess\]'"):
        choose_detector("haar")


def test_opencv_5_has_no_cascades(opencv_5: None, tmp_path: Path) -> None:
    chosen = choose_detector("auto")
    assert chosen.detector == "none"
    assert "OpenCV 5.0.0 has none" in chosen.remarks[0]
    assert choose_detector("auto", str(write_yunet(tmp_path / "yunet.onnx"))).detector == "yunet"


def test_yunet_must_be_given_its_file() -> None:
    with pytest.raises(UsageError, match=r"YuNet needs its ONNX file; give `yunet_model`"):
        choose_detector("yunet")
