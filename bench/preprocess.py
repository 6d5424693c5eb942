"""How fast folders are preprocessed: python bench/preprocess.py [--pictures 48] [--size 2400 1600] [--rounds 5]

Decoding, resizing and saving are timed against a plain loop of Pillow in one thread, which makes the same crops;
finding a focal point against the webui's method, written plainly: a histogram for every window, the cascades at full
size. All take turns within each round, on pictures with the detail of photographs. A folder's time includes the start
of its processes, its report and its hashes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from PIL import Image, ImageOps  # noqa: E402

from tincture.formats.pictures import open_picture  # noqa: E402
from tincture.preprocessing.faces import FRONTAL, NEIGHBOURS, PROFILE, load_detector  # noqa: E402
from tincture.preprocessing.focal import FocalWeights, find_corners, find_interest, small_copy  # noqa: E402
from tincture.preprocessing.geometry import cover_size  # noqa: E402
from tincture.preprocessing.pipeline import preprocess  # noqa: E402

CROP = (512, 512)
Measured = dict[str, Any]


def photograph(width: int, height: int, seed: int) -> Image.Image:
    """Random detail of all sizes, as much of each as photographs have, and noise."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3), np.float32)
    cells = 4
    while cells < width:
        grid = rng.normal(0, 1, (max(2, cells * height // width), cells, 3)).astype(np.float32)
        picture += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) / cells**0.7
        cells *= 2
    picture = (picture - picture.mean()) / picture.std() * 50 + 120 + rng.normal(0, 2, picture.shape)
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


def make_pictures(folder: Path, count: int, size: tuple[int, int], ending: str) -> list[Path]:
    """Few different pictures, many files: what counts is decoding."""
    folder.mkdir(parents=True)
    drawn = [photograph(*size, seed) for seed in range(min(count, 4))]
    paths = [folder / f"{number}.{ending}" for number in range(count)]
    for number, path in enumerate(paths):
        options: dict[str, Any] = {"quality": 92} if ending == "jpg" else {"compress_level": 3}
        drawn[number % len(drawn)].save(path, **options)
    return paths


def plain_loop(paths: Sequence[Path], folder: Path) -> None:
    """The shortest program that makes the same crops."""
    folder.mkdir(parents=True)
    for path in paths:
        with open_picture(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
            ImageOps.fit(upright, CROP, Image.Resampling.LANCZOS).save(folder / f"{path.stem}.png")


def measure_folder(root: Path, ending: str, count: int, size: tuple[int, int], rounds: int) -> Measured:
    """Pictures per second of both ways from a folder of pictures to one of crops."""
    paths = make_pictures(root / "in", count, size, ending)
    ways: dict[str, Callable[[Path], object]] = {
        "plain loop": lambda out: plain_loop(paths, out),
        "tincture, 1 process": lambda out: preprocess(root / "in", out, workers=1),
        "tincture": lambda out: preprocess(root / "in", out),
    }
    seconds = _alternate({name: _to_new_folder(way, root / name) for name, way in ways.items()}, rounds)
    rates = {name: [count / each for each in times] for name, times in seconds.items()}
    return {"case": f"{ending} {size[0]}×{size[1]}", "unit": "pictures/s", **_summary(rates, "plain loop")}


def _to_new_folder(way: Callable[[Path], object], place: Path) -> Callable[[], object]:
    numbers = iter(range(10**6))
    return lambda: way(place / str(next(numbers)))


def plain_focal_point(copy: Image.Image, cascades: Sequence[Any]) -> tuple[float, float]:
    """The webui's method, one thing after the other, on a picture that covers the crop."""
    grey = np.asarray(copy.convert("L"))
    faces: list[Any] = []
    smallest = round(min(grey.shape) * 0.05)
    for cascade in cascades:
        if not len(faces):
            faces = list(cascade.detectMultiScale(grey, 1.1, NEIGHBOURS, minSize=(smallest, smallest)))
    window = _plain_window(grey)
    points = [((window[0] + window[2]) / 2, (window[1] + window[3]) / 2)]
    points += [tuple(np.mean(find_corners(grey), axis=0))]
    points += [tuple(np.mean([(x + w / 2, y + h / 2) for x, y, w, h in faces], axis=0))] if faces else []
    mean = np.mean(points, axis=0)
    return float(mean[0]), float(mean[1])


def _plain_window(grey: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    height, width = grey.shape
    best, found = -1.0, (0, 0, *CROP)
    for start in range(0, max(height - CROP[1], width - CROP[0]) + 1, 4):
        left, top = (start, 0) if width > height else (0, start)
        part = grey[top : top + CROP[1], left : left + CROP[0]]
        counts, _ = np.histogram(part, bins=256, range=(0, 256))
        shares = counts[counts > 0] / part.size
        entropy = float(-(shares * np.log2(shares)).sum())
        if entropy > best:
            best, found = entropy, (left, top, left + CROP[0], top + CROP[1])
    return found


def measure_focal(size: tuple[int, int], rounds: int) -> Measured:
    """Pictures per second of finding the focal point, in one thread, from decoded pictures."""
    cv2.setNumThreads(1)
    pictures = [photograph(*size, seed) for seed in range(4)]
    folder = Path(cv2.__file__).parent / "data"
    cascades = [cv2.CascadeClassifier(str(folder / name)) for name in (FRONTAL, PROFILE)]
    find_faces = load_detector("haar")

    def plain() -> None:
        for picture in pictures:
            covering = picture.resize(cover_size(picture.size, CROP), Image.Resampling.LANCZOS)
            plain_focal_point(covering, cascades)

    def ours() -> None:
        for picture in pictures:
            find_interest(small_copy(picture, CROP), CROP, FocalWeights(), find_faces)

    seconds = _alternate({"plainly": plain, "tincture": ours}, rounds)
    rates = {name: [len(pictures) / each for each in times] for name, times in seconds.items()}
    return {"case": f"focal point {size[0]}×{size[1]}", "unit": "pictures/s", **_summary(rates, "plainly")}


def _alternate(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in each round; they take turns, so that a busy machine slows all of them."""
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def _summary(rates: dict[str, list[float]], base: str) -> Measured:
    ratios = {
        name: [one / other for one, other in zip(each, rates[base], strict=True)]
        for name, each in rates.items()
        if name != base
    }
    return {
        "rates": {name: _spread(each) for name, each in rates.items()},
        "ratios": {f"{name}/{base}": _spread(each) for name, each in ratios.items()},
    }


def _spread(numbers: list[float]) -> dict[str, float]:
    return {"median": statistics.median(numbers), "min": min(numbers), "max": max(numbers)}


def measure(root: Path, count: int, size: tuple[int, int], rounds: int) -> list[Measured]:
    """All cases."""
    folders = [measure_folder(root / ending, ending, count, size, rounds) for ending in ("jpg", "png")]
    return [*folders, measure_focal(size, rounds)]


def table(measured: Sequence[Measured]) -> str:
    """One line for each way and each ratio."""
    lines = []
    for case in measured:
        for kind, unit in (("rates", f" {case['unit']}"), ("ratios", "")):
            for name, spread in case[kind].items():
                numbers = f"{spread['median']:.3g}{unit} ({spread['min']:.3g} to {spread['max']:.3g})"
                lines.append(f"{case['case']:<24} {name:<34} {numbers}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=int, default=48)
    parser.add_argument("--size", type=int, nargs=2, default=(2400, 1600), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tincture-bench-") as root:
        measured = measure(Path(root), args.pictures, tuple(args.size), args.rounds)
    print(json.dumps(measured, indent=1, ensure_ascii=False) if args.json else table(measured))


if __name__ == "__main__":
    main()
