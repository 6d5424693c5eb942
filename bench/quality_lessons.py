"""A lesson on a subject: taught one way with one seed, and judged at some of its steps."""

from __future__ import annotations

import dataclasses
import functools
import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import judging, peer_loops
from bench.peer_loops import Material, PeerRecipe
from bench.quality_recipes import Recipe

from tincture.adapters.embedding import Embedding
from tincture.formats.files import write_text
from tincture.kinds.embedding import EMBEDDING
from tincture.models.loading.load import load_model
from tincture.models.picto import world
from tincture.models.stable_diffusion import StableDiffusion
from tincture.run import demo
from tincture.run.create import create_embedding
from tincture.run.train import train
from tincture.settings.train import TrainSettings
from tincture.workspace import Workspace

NAME = "glimmer"
HELD_OUT, PREVIEWS = 6, 12
DRAWING = dataclasses.replace(judging.DRAWING, steps=5)

Way = Recipe | PeerRecipe
Figures = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Part:
    """Ways, and how they are taught.

    Attributes:
        at: steps at which a lesson is judged.
        batch: pictures in a step; 0: as each way has it.
        every_subject: whether each round has all subjects; otherwise round n has the n-th subject alone.
    """

    ways: Mapping[str, Way]
    at: tuple[int, ...]
    batch: int = 0
    every_subject: bool = True


@dataclasses.dataclass(frozen=True)
class Lesson:
    """One subject in one way with one seed."""

    way: str
    subject: str
    seed: int

    @property
    def key(self) -> str:
        """Its name in results."""
        return f"{self.way} / {self.subject} / {self.seed}"


@functools.cache
def picto() -> StableDiffusion:
    """The model that all lessons are about."""
    return load_model("picto")


class Judge:
    """Judges what is attached to the model by the previews and the pictures of one subject and seed."""

    def __init__(self, model: StableDiffusion, subject: world.Subject, seed: int) -> None:
        self.model = model
        self.trained, held_out, wanted = judging.subject_scenes(subject, seed, HELD_OUT, PREVIEWS)
        self.asked = judging.asked_of_subject(wanted, seed, NAME)
        self.in_words = judging.drawn(model, judging.asked_of_subject(wanted, seed), DRAWING)
        self.sides = [
            (judging.encoded(model, scenes), judging.asked_of_subject(scenes, seed, NAME).prompts)
            for scenes in (self.trained, held_out)
        ]

    def figures(self, embedding: Embedding) -> Figures:
        """What ``embedding``, which is attached, is worth."""
        pictures = judging.drawn(self.model, self.asked, DRAWING)
        training_loss, loss = (judging.fixed_noise_loss(self.model, *side) for side in self.sides)
        norm = float(embedding.vectors["clip_l"].detach().norm(dim=1).mean())
        return {
            **judging.shares(self.asked, pictures).to_dict(),
            "loss": round(loss, 5),
            "training_loss": round(training_loss, 5),
            "drift": round(judging.drift(pictures, self.in_words), 4),
            "norm": round(norm / self.model.text.token_norms()["clip_l"], 3),
        }


@functools.lru_cache(maxsize=1)
def judge_of(subject: str, seed: int) -> Judge:
    """Lessons of one subject and seed follow each other, and share what the plain model draws."""
    return Judge(picto(), world.parse_subject(subject), seed)


def teach(lesson: Lesson, part: Part) -> Figures:
    """The figures at each of the part's steps."""
    started, way = time.process_time(), part.ways[lesson.way]
    judge = judge_of(lesson.subject, lesson.seed)
    rows: dict[int, Figures] = {}
    with tempfile.TemporaryDirectory(prefix="tincture-quality-") as folder:
        for step, embedding in taught(way, part, judge, lesson, Path(folder)):
            rows[step] = judge.figures(embedding)
    return {**dataclasses.asdict(lesson), "rows": rows, "cpu_seconds": round(time.process_time() - started, 1)}


def taught(way: Way, part: Part, judge: Judge, lesson: Lesson, folder: Path) -> Iterator[tuple[int, Embedding]]:
    """The embedding after each of the steps, attached."""
    shape = world.parse_subject(lesson.subject).shape
    captions = [", ".join(scene.tags()[1:]) for scene in judge.trained]
    if isinstance(way, PeerRecipe):
        material = Material(NAME, judging.pixels(judge.trained), captions, shape)
        yield from peer_loops.teach(judge.model, way, material, part.at, lesson.seed, part.batch)
        return
    workspace = Workspace.open(folder)
    demo.write_pictures(folder / "data", judge.trained, captions)
    for lengths in [[step] for step in part.at] if way.needs_length else [list(part.at)]:
        for step, path in _run(way, part, workspace, lengths, lesson.seed, shape):
            embedding = Embedding.load(path)
            embedding.name = NAME
            with embedding.attach(judge.model):
                yield step, embedding


def _run(
    way: Recipe, part: Part, workspace: Workspace, at: Sequence[int], seed: int, shape: str
) -> Iterator[tuple[int, Path]]:
    """Trains to the last of the steps; a copy of the embedding after each."""
    settings = dict(way.settings)
    if way.lines:
        template = workspace.templates / "lesson.txt"
        write_text(template, "\n".join(way.lines) + "\n")
        settings["template"] = str(template)
    if part.batch:
        settings["batch_size"] = part.batch
    options: dict[str, Any] = {
        name: str(value).replace("{class}", shape) if name == "init_text" else value
        for name, value in way.options.items()
    }
    create_embedding(NAME, model="picto", workspace=workspace, overwrite=True, **options)
    every = functools.reduce(math.gcd, at)
    run = TrainSettings(
        kind=EMBEDDING.name, name=NAME, model="picto", data=str(workspace.root / "data"), seed=seed, steps=at[-1],
        preview_every=0, save_every=every, **settings
    )  # fmt: skip
    result = train(run, workspace)
    for step in at:
        yield step, result.run_dir / EMBEDDING.plural / f"{NAME}-{step}.pt"
