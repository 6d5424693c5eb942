"""Faces in pictures, by OpenCV.

Two detectors work without a network: YuNet, a small neural network, when the user gives its ONNX file
(face_detection_yunet_2023mar.onnx of the OpenCV Zoo), and the Haar cascades that OpenCV 4 brings. OpenCV 5 brings none.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tincture.errors import UsageError

Detector = Literal["yunet", "haar", "none"]
FRONTAL, PROFILE = "haarcascade_frontalface_alt2.xml", "haarcascade_profileface.xml"
HAAR_SIDE = 384
"""Short side of the picture that cascades look at, in pixels. Their time grows with its area; the smallest face that
they can find is 24 pixels, a sixteenth of it."""
SMALLEST_FACE = 24
NEIGHBOURS = 7
"""A cascade fires at many places around a real face; so many at least make one."""
YUNET_SCORE = 0.8
NAMES: dict[Detector, str] = {"yunet": "YuNet", "haar": "Haar cascades", "none": "none"}


class Face(NamedTuple):
    """A box around a face, in pixels."""

    left: float
    top: float
    width: float
    height: float


Pixels = NDArray[np.uint8]
FindFaces = Callable[[Pixels], list[Face]]
"""From RGB (height, width, 3) to the faces in it, in no order."""


@dataclass(frozen=True)
class Chosen:
    """Which detector is used. `remarks` are sentences on why it is not the one before it in the chain."""

    detector: Detector
    remarks: tuple[str, ...] = ()


class UnavailableError(Exception):
    """Why a detector cannot be used, as words that follow its name."""


def opencv() -> ModuleType | None:
    """OpenCV; None when it is not installed."""
    try:
        import cv2
    except ImportError:
        return None
    return cv2


def choose_detector(wanted: Literal["auto", "yunet", "haar", "none"], yunet_model: str = "") -> Chosen:
    """The best detector that works here: YuNet, Haar cascades, none. One that is asked for by name must work.

    Args:
        wanted: `auto` for the whole chain.
        yunet_model: path of YuNet's ONNX file; `auto` leaves YuNet out without it.

    Raises:
        UsageError: the detector asked for does not work.
    """
    if wanted == "none":
        return Chosen("none")
    chain: list[Detector] = ["haar"] if wanted == "haar" or (wanted == "auto" and not yunet_model) else ["yunet"]
    if wanted == "auto" and yunet_model:
        chain.append("haar")
    remarks: list[str] = []
    for detector in chain:
        try:
            load_detector(detector, yunet_model)
        except UnavailableError as error:
            remark = f"The face detector {NAMES[detector]} {error}."
            if wanted != "auto":
                raise UsageError(remark) from None
            remarks.append(remark)
        else:
            return Chosen(detector, (*remarks, f"Faces are found by {NAMES[detector]} instead.") if remarks else ())
    return Chosen("none", (*remarks, "No face detector is left, so faces do not count for the crops."))


@functools.cache
def load_detector(detector: Detector, yunet_model: str = "") -> FindFaces:
    """What finds faces; loaded once in a process.

    Raises:
        UnavailableError: it does not work here.
    """
    if detector == "none":
        return lambda pixels: []
    cv2 = opencv()
    if cv2 is None:
        raise UnavailableError("needs OpenCV: pip install 'tincture[preprocess]'")
    return _yunet(cv2, yunet_model) if detector == "yunet" else _haar(cv2)


def _haar(cv2: Any) -> FindFaces:
    folder = getattr(getattr(cv2, "data", None), "haarcascades", "")
    paths = [os.path.join(folder, name) for name in (FRONTAL, PROFILE)]
    if not hasattr(cv2, "CascadeClassifier") or not all(os.path.isfile(path) for path in paths):
        raise UnavailableError(
            f"needs the cascades of OpenCV 4, but OpenCV {cv2.__version__} has none: "
            "pip install 'opencv-python-headless<5'"
        )
    frontal, profile = (cv2.CascadeClassifier(path) for path in paths)

    def find(pixels: Pixels) -> list[Face]:
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        shrink = min(1.0, HAAR_SIDE / min(grey.shape))
        if shrink < 1:
            grey = cv2.resize(grey, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        # Frontal cascades are wrong less often; the profile one knows faces that look to the left only.
        faces = _detect(frontal, grey) or _detect(profile, grey) or _mirrored(_detect(profile, grey[:, ::-1]), grey)
        return [Face(*(value / shrink for value in face)) for face in faces]

    return find


def _detect(cascade: Any, grey: Pixels) -> list[Face]:
    found = cascade.detectMultiScale(
        np.ascontiguousarray(grey), scaleFactor=1.1, minNeighbors=NEIGHBOURS, minSize=(SMALLEST_FACE, SMALLEST_FACE)
    )
    return [Face(*(float(value) for value in box)) for box in found]


def _mirrored(faces: list[Face], grey: Pixels) -> list[Face]:
    return [face._replace(left=grey.shape[1] - face.left - face.width) for face in faces]


def _yunet(cv2: Any, model: str) -> FindFaces:
    if not hasattr(cv2, "FaceDetectorYN"):
        raise UnavailableError(f"needs OpenCV 4.5.4 or newer, but this is {cv2.__version__}")
    if not model:
        raise UnavailableError("needs its ONNX file; give --yunet-model face_detection_yunet_2023mar.onnx")
    if not os.path.isfile(model):
        raise UnavailableError(f"finds no file {model!r}; check --yunet-model")
    try:
        network = cv2.FaceDetectorYN.create(model, "", (320, 320), YUNET_SCORE)
        network.detect(np.zeros((320, 320, 3), np.uint8))
    except cv2.error as error:
        reason = " ".join(str(error).split()).partition(" error: ")[2][:160]
        raise UnavailableError(f"cannot use {model!r} as its ONNX file ({reason})") from None

    def find(pixels: Pixels) -> list[Face]:
        network.setInputSize((pixels.shape[1], pixels.shape[0]))
        _, rows = network.detect(np.ascontiguousarray(pixels[:, :, ::-1]))
        return [] if rows is None else [Face(*(float(value) for value in row[:4])) for row in rows]

    return find
