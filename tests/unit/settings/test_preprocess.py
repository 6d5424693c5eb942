from __future__ import annotations

from typing import Any

import pytest

from tincture.errors import UsageError
from tincture.preprocessing.cut_jobs import SplitRules
from tincture.preprocessing.geometry import MulticropRules
from tincture.preprocessing.rules import cut_rules
from tincture.settings.preprocess import PREPROCESS_FIELDS, PreprocessSettings

PLACES = {"source": "in", "destination": "out"}


def settings(**changes: Any) -> PreprocessSettings:
    return PreprocessSettings(**{**PLACES, **changes})


def test_the_defaults_are_allowed_and_are_those_of_the_webui() -> None:
    given = settings()
    assert (given.width, given.height, given.split_threshold, given.overlap_ratio) == (512, 512, 0.5, 0.2)
    assert (given.focal_face_weight, given.focal_entropy_weight, given.focal_corner_weight) == (0.9, 0.15, 0.5)
    rules = cut_rules(settings(multicrop=True, split=True), "none")
    assert (rules.multicrop, rules.split) == (MulticropRules(384, 768, 4096, 409600, "area", 0.1), SplitRules(0.5, 0.2))


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("source", " ", "not empty"),
        ("width", 0, "multiple of 8"),
        ("height", 100, "multiple of 8"),
        ("height", 20000, "16384"),
        ("split_threshold", 1.5, "at most 1"),
        ("overlap_ratio", 1.0, "at most 0.9"),
        ("focal_face_weight", -1.0, "at least 0"),
        ("face_detector", "dlib", "auto, yunet, haar or none"),
        ("multicrop_min_dim", 30, "multiple of 8"),
        ("multicrop_min_dim", 1024, "at most multicrop_max_dim, 768"),
        ("multicrop_min_area", 500000, "at most multicrop_max_area, 409600"),
        ("multicrop_objective", "size", "area or error"),
        ("existing_captions", "keep", "copy, ignore, prepend or append"),
        ("caption_encoding", "klingon", "an encoding of texts"),
        ("tag_threshold", 2.0, "at most 1"),
        ("validation_share", 1.0, "below 1"),
        ("near_duplicate_bits", 100, "at most 72"),
        ("workers", -1, "at least 0"),
        ("device", "gpu", "cuda"),
    ],
)
def test_a_value_that_is_not_allowed_is_told(name: str, value: Any, allowed: str) -> None:
    with pytest.raises(UsageError, match=name) as told:
        settings(**{name: value})
    assert allowed in str(told.value)


@pytest.mark.parametrize(
    ("least", "most"),
    [
        ("multicrop_min_dim", "multicrop_max_dim"),
        ("multicrop_min_area", "multicrop_max_area"),
        ("captioner_min_tokens", "captioner_max_tokens"),
    ],
)
def test_the_least_is_not_above_the_most(least: str, most: str) -> None:
    with pytest.raises(UsageError, match=rf"{least} is 64, but must be at most {most}, 32"):
        PreprocessSettings(source="in", destination="out", **{least: 64, most: 32})


def test_weights_that_are_all_0_leave_nothing_to_aim_at() -> None:
    none = {f"focal_{kind}_weight": 0 for kind in ("face", "entropy", "corner")}
    settings(**none)
    with pytest.raises(UsageError, match="the three focal weights are 0"):
        settings(focal_crop=True, **none)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(UsageError, match="3 settings") as told:
        PreprocessSettings.from_dict({"source": "in", "width": 5, "spilt": True})
    assert "destination is missing" in str(told.value)
    assert "the nearest is split" in str(told.value)


def test_rules_hold_what_was_asked_for() -> None:
    plain = cut_rules(settings(width=64, height=128), "haar")
    assert (plain.size, plain.split, plain.focal, plain.multicrop) == ((64, 128), None, None, None)
    rules = cut_rules(
        settings(
            split=True,
            split_threshold=0.4,
            overlap_ratio=0.1,
            focal_crop=True,
            focal_face_weight=1,
            focal_entropy_weight=2,
            focal_corner_weight=3,
            multicrop=True,
            multicrop_min_dim=64,
            multicrop_max_dim=128,
            multicrop_min_area=1,
            multicrop_max_area=9999,
            multicrop_objective="error",
            multicrop_threshold=0.3,
            keep_original_size=True,
            flip=True,
            keep_alpha=True,
            yunet_model="yunet.onnx",
        ),
        "yunet",
    )
    assert rules.split == SplitRules(0.4, 0.1)
    assert rules.focal and (rules.focal.faces, rules.focal.entropy, rules.focal.corners) == (1, 2, 3)
    assert rules.multicrop == MulticropRules(64, 128, 1, 9999, "error", 0.3)
    assert (rules.keep_original, rules.flip, rules.keep_alpha) == (True, True, True)
    assert (rules.detector, rules.yunet_model) == ("yunet", "yunet.onnx")


def test_what_decides_what_is_made_is_told_from_the_rest() -> None:
    making = settings().making()
    assert set(PREPROCESS_FIELDS) - set(making) == {"destination", "workers", "device", "caption_batch_size"}
    assert settings(workers=3, device="cpu", caption_batch_size=1).making() == making
