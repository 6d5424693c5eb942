"""What masks do for a subject that is taught from cluttered pictures, on picto.

python bench/attention_mask.py                     6 subjects, each by every method
python bench/attention_mask.py --show clutter.png  only draws the teaching pictures and masks of the first subject

Each subject is taught from five pictures that also show other things, which no caption names: a companion, the same in
all five, and strangers, others in each. A method is to use no masks (none), or some of these, joined by +: to weigh the
loss by them (loss, the setting use_weight), with a floor for what they hide (floor=WEIGHT, unmasked_weight), and to
hold the attention to them (attention=WEIGHT, attention_mask_weight). The oracle judges as in the demo, on prompts
that were not trained on. What is learned of the other things shows as pictures that it cannot read, or reads as
something else.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from PIL import Image  # noqa: E402

from tincture import randomness, recipe  # noqa: E402
from tincture.adapters.embedding import Embedding  # noqa: E402
from tincture.kinds.embedding import EMBEDDING  # noqa: E402
from tincture.models.loading.load import load_model  # noqa: E402
from tincture.models.picto import oracle, world  # noqa: E402
from tincture.run import demo  # noqa: E402
from tincture.settings.train import TrainSettings  # noqa: E402
from tincture.workspace import Workspace  # noqa: E402

RADII = (7.0, 11.0)
TRIES = 12
METHODS = ("none", "loss", "attention=0.1", "loss+attention=0.01")
NUMBERS = {"attention": "attention_mask_weight", "floor": "unmasked_weight"}

Picture = NDArray[np.uint8]


# --- cluttered pictures ----------------------------------------------------------------------------------------------


class Other(NamedTuple):
    """Something beside the subject. ``centre`` and ``radius`` are in pixels."""

    shape: str
    colour: str
    texture: str
    centre: tuple[float, float]
    radius: float
    tint: tuple[float, ...] = (0.0, 0.0, 0.0)


def random_other(rng: np.random.Generator, subject: world.Subject, like: Other | None = None) -> Other:
    """Something that shares neither shape nor colour with the subject; ``like`` another one, but in another place."""
    shape, colour, texture = (
        str(rng.choice([word for word in words if word != taken]))
        for words, taken in (
            (tuple(world.SHAPES), subject.shape),
            (tuple(world.COLOURS), subject.colour),
            (world.TEXTURES, ""),
        )
    )
    radius = float(rng.uniform(*RADII))
    centre = (float(rng.uniform(radius, world.SIZE - radius)), float(rng.uniform(radius, world.SIZE - radius)))
    if like is not None:
        shape, colour, texture, radius = like.shape, like.colour, like.texture, like.radius
    return Other(shape, colour, texture, centre, radius)


def freest(rng: np.random.Generator, scene: world.Scene, placed: Sequence[Other], like: Other | None = None) -> Other:
    """Of some random things the one that is farthest from the subject and from what is placed already."""

    def room(other: Other) -> float:
        column, row = (int(at) for at in other.centre)
        subject = world.distance(scene.shape, scene.centre, scene.radius)[row, column]
        gaps = [math.dist(other.centre, one.centre) - one.radius for one in placed]
        return min([float(subject), *gaps]) - other.radius

    return max((random_other(rng, scene.subject, like) for _ in range(TRIES)), key=room)


def clutter(scenes: Sequence[world.Scene], others: int, companion: bool, seed: int) -> list[list[Other]]:
    """For every scene its other things: with a ``companion``, the first of them is the same everywhere."""
    rng = randomness.generator(seed, "clutter", *str(scenes[0].subject).encode())
    shared = random_other(rng, scenes[0].subject) if companion else None
    found = []
    for scene in scenes:
        placed: list[Other] = []
        for number in range(others):
            placed.append(freest(rng, scene, placed, shared if number == 0 else None))
        found.append(placed)
    return found


def paint(scene: world.Scene, others: Sequence[Other]) -> tuple[Picture, Picture]:
    """The picture (64, 64, 3) with the subject before all others, and the subject's mask (64, 64)."""
    ground = world.rgb(world.BACKGROUNDS[scene.background], scene.tints[3:])
    picture = np.broadcast_to(ground, (world.SIZE, world.SIZE, 3)).astype(np.float32)
    subject = Other(scene.shape, scene.colour, scene.texture, scene.centre, scene.radius, scene.tints[:3])
    for thing in (*others, subject):
        edge = world.distance(thing.shape, thing.centre, thing.radius)
        colour = world.COLOURS[thing.colour]
        picture = world.blend(picture, world.rgb(colour, thing.tint), world.coverage(edge))
        ink = world.coverage(edge + np.float32(1.0)) * world.marks(thing.texture)
        picture = world.blend(picture, world.rgb(world.contrast_ink(colour)), ink)
    mask = world.coverage(world.distance(scene.shape, scene.centre, scene.radius))
    return np.round(picture * 255).astype(np.uint8), np.round(mask * 255).astype(np.uint8)


def write_lesson(folder: Path, scenes: Sequence[world.Scene], clutter: Sequence[Sequence[Other]]) -> None:
    """Pictures with captions that name place and background alone, and their masks in the folder ``mask``."""
    (folder / "mask").mkdir(parents=True)
    for number, (scene, others) in enumerate(zip(scenes, clutter, strict=True), start=1):
        picture, mask = paint(scene, others)
        Image.fromarray(picture).save(folder / f"{number:02}.png")
        Image.fromarray(mask).save(folder / "mask" / f"{number:02}.png")
        (folder / f"{number:02}.txt").write_text(", ".join(scene.tags()[1:]) + "\n", encoding="utf-8")


# --- lessons ---------------------------------------------------------------------------------------------------------


class Lesson(NamedTuple):
    """One training. ``steps`` 0 stands for the demo's."""

    subject: str
    seed: int
    method: str
    others: int
    companion: bool
    pairs: int
    steps: int


def teach(lesson: Lesson) -> dict[str, Any]:
    """Fidelity, editability and the share of clear previews after a lesson, and its seconds of training."""
    torch.set_num_threads(1)
    subject = world.parse_subject(lesson.subject)
    scenes, unseen = demo.subject_scenes(subject, lesson.seed)
    with tempfile.TemporaryDirectory(prefix="tincture-lesson-") as root:
        workspace = Workspace.open(root)
        folder = workspace.root / "data"
        write_lesson(folder, scenes, clutter(scenes, lesson.others, lesson.companion, lesson.seed))
        path = recipe.create_embedding(demo.EMBEDDING_NAME, workspace=workspace, **EMBEDDING.preset_options)
        settings = {**EMBEDDING.preset, **settings_of(lesson.method), "seed": lesson.seed, "preview_every": 0}
        if lesson.steps:
            settings["steps"] = lesson.steps
        started = time.monotonic()
        recipe.train(TrainSettings(kind="embedding", name=demo.EMBEDDING_NAME, data=str(folder), **settings), workspace)
        seconds = time.monotonic() - started
        judged = draw(
            Embedding.load(path), subject, [unseen[n % len(unseen)] for n in range(lesson.pairs)], lesson.seed
        )
    return {
        **lesson._asdict(),
        "fidelity": judged.share(demo.SUBJECT_ATTRIBUTES),
        "editability": judged.share(oracle.ATTRIBUTES),
        "clear": judged.share(()),
        "seconds": round(seconds, 1),
    }


def settings_of(method: str) -> dict[str, Any]:
    """The settings of a method such as none, loss or loss+attention=0.01+floor=0.1; ValueError for another."""
    found: dict[str, Any] = {}
    for part in method.split("+"):
        name, given, value = part.partition("=")
        if (name in NUMBERS) != bool(given) or name not in ("none", "loss", *NUMBERS):
            raise ValueError(f"There is no method {method!r}; give none, or loss, attention=WEIGHT, floor=WEIGHT by +.")
        if name == "loss":
            found["use_weight"] = True
        elif given:
            found[NUMBERS[name]] = float(value)
    return found


def draw(embedding: Embedding, subject: world.Subject, pairs: Sequence[tuple[str, str]], seed: int) -> demo.Judged:
    """Previews in places and on backgrounds that were not trained on."""
    model = load_model("picto")
    scenes = [
        world.Scene(**dataclasses.asdict(subject), position=position, background=background)
        for position, background in pairs
    ]
    with embedding.attach(model):
        return demo.draw(model, scenes, [scene.caption(demo.EMBEDDING_NAME) for scene in scenes], seed)


def plan(args: argparse.Namespace) -> list[Lesson]:
    """Every subject by every method, so that what is broken off has compared something."""
    rng = randomness.generator(args.seed, "subjects among clutter")
    subjects = [str(world.random_scene(rng).subject) for _ in range(args.subjects)]
    return [
        Lesson(subject, number, method, args.others, not args.no_companion, args.pairs, args.steps)
        for number, subject in enumerate(subjects)
        for method in args.methods
    ]


def records(lessons: Sequence[Lesson], processes: int) -> Iterator[dict[str, Any]]:
    """The figures of each lesson as it ends."""
    if processes == 1:
        yield from map(teach, lessons)
        return
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for done in as_completed([pool.submit(teach, lesson) for lesson in lessons]):
            yield done.result()


# --- figures ---------------------------------------------------------------------------------------------------------


def table(found: Sequence[dict[str, Any]], methods: Sequence[str]) -> str:
    """Markdown: for every method the median (least to greatest) of each share, and the seconds."""
    names = ("fidelity", "editability", "clear", "seconds")
    lines = ["| method | lessons | " + " | ".join(names) + " |", "| --- " * (2 + len(names)) + "|"]
    for method in methods:
        own = [record for record in found if record["method"] == method]
        if own:
            cells = [spread([record[name] for record in own], 0 if name == "seconds" else 2) for name in names]
            lines.append(f"| {method} | {len(own)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def spread(values: Sequence[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def pairs(found: Sequence[dict[str, Any]], one: str, other: str) -> str:
    """How ``other`` differs from ``one`` on the same subject, seed and pictures: mean and standard error."""
    by = {(record["method"], record["subject"], record["seed"]): record for record in found}
    keys = [key[1:] for key in by if key[0] == one and (other, *key[1:]) in by]
    if len(keys) < 2:
        return ""
    cells = []
    for name in ("fidelity", "editability"):
        gains = [by[other, *key][name] - by[one, *key][name] for key in keys]
        error = statistics.stdev(gains) / math.sqrt(len(gains))
        better, worse = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
        cells.append(f"{name} {statistics.mean(gains):+.3f} ± {error:.3f}, better in {better}, worse in {worse}")
    return f"{other} against {one}, {len(keys)} pairs: " + "; ".join(cells)


def show(path: Path, lesson: Lesson) -> None:
    """Draws a lesson's pictures above its masks, four times their size."""
    scenes, _ = demo.subject_scenes(world.parse_subject(lesson.subject), lesson.seed)
    painted = [
        paint(scene, others)
        for scene, others in zip(scenes, clutter(scenes, lesson.others, lesson.companion, lesson.seed), strict=True)
    ]
    top = np.concatenate([picture for picture, _ in painted], axis=1)
    masks = np.concatenate([mask for _, mask in painted], axis=1)
    sheet = Image.fromarray(np.concatenate([top, np.repeat(masks[..., None], 3, axis=2)]))
    sheet.resize((sheet.width * 4, sheet.height * 4), Image.Resampling.NEAREST).save(path)


def main() -> None:
    args = parser().parse_args()
    lessons = plan(args)
    if args.show:
        show(args.show, lessons[0])
        return
    found: list[dict[str, Any]] = []
    for record in records(lessons, args.processes):
        found.append(record)
        print(json.dumps(record), flush=True)
    print(table(found, args.methods))
    first = args.methods[0]
    print("\n".join(filter(None, (pairs(found, first, method) for method in args.methods[1:]))))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "--methods",
        nargs="+",
        default=METHODS,
        metavar="METHOD",
        help=f"such as loss+attention=0.01+floor=0.1 (default {' '.join(METHODS)})",
    )
    made.add_argument("--subjects", type=int, default=6)
    made.add_argument("--others", type=int, default=2, help="things beside the subject in each picture (default 2)")
    made.add_argument("--no-companion", action="store_true", help="no thing is the same in all pictures")
    made.add_argument("--pairs", type=int, default=60, help="previews of a lesson (default 60)")
    made.add_argument("--steps", type=int, default=0, help="steps of a lesson (default: as in the demo)")
    made.add_argument("--seed", type=int, default=0, help="of the subjects (default 0)")
    made.add_argument("--processes", type=int, default=2, help="lessons at a time, one thread each (default 2)")
    made.add_argument("--show", type=Path, help="draw the first subject's teaching pictures into this file instead")
    return made


if __name__ == "__main__":
    main()
