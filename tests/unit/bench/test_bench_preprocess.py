"""The benchmark of preprocessing compares what makes the same; how fast anything is, no test asks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from bench import preprocess as bench
from PIL import Image

from tincture.preprocessing import pipeline
from tincture.preprocessing.faces import load_detector
from tincture.preprocessing.focal import FocalWeights, find_interest, small_copy

pytestmark = pytest.mark.slow

KINDS = ("rates", "ratios")


def test_both_ways_make_the_same_crops(tmp_path: Path) -> None:
    for ending in ("jpg", "png"):
        paths = bench.make_pictures(tmp_path / ending, 3, (900, 700), ending)
        bench.plain_loop(paths, tmp_path / f"plain-{ending}")
        pipeline.preprocess(tmp_path / ending, tmp_path / f"ours-{ending}", workers=1)
        for number, path in enumerate(sorted(path.name for path in paths)):
            stem = Path(path).stem
            plain, ours = tmp_path / f"plain-{ending}", tmp_path / f"ours-{ending}"
            with Image.open(plain / f"{stem}.png") as one, Image.open(ours / f"{number:05}-0-{stem}.png") as other:
                difference = np.asarray(one, dtype=float) - np.asarray(other)
            assert difference.shape == (512, 512, 3)
            assert np.abs(difference).mean() < 1


def test_both_ways_find_the_same_point() -> None:
    picture = bench.photograph(900, 512, seed=1)
    copy = small_copy(picture, bench.CROP)
    assert copy.size == picture.size
    ours = find_interest(copy, bench.CROP, FocalWeights(0, 1, 1), load_detector("none"))
    assert bench.plain_focal_point(copy, []) == pytest.approx(ours.point)


def test_every_way_is_timed_in_every_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "CROP", (64, 64))
    measured = bench.measure_folder(tmp_path, "jpg", 2, (96, 64), rounds=2)
    assert set(measured["rates"]) == {"plain loop", "tincture, 1 process", "tincture"}
    assert set(measured["ratios"]) == {"tincture, 1 process/plain loop", "tincture/plain loop"}
    focal = bench.measure_focal((96, 64), rounds=1)
    assert set(focal["rates"]) == {"plainly", "tincture"} and set(focal["ratios"]) == {"tincture/plainly"}
    assert all(spread["min"] > 0 for case in (measured, focal) for kind in KINDS for spread in case[kind].values())
    text = bench.table([measured, focal])
    assert len(text.splitlines()) == 8 and "pictures/s" in text
    cv2.setNumThreads(-1)
