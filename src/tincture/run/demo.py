"""The main job on the embedded model: teach a subject and a style from pictures on disk, and measure what was learned.

Everything goes the way a user's own pictures would: files with caption files, create, train, generate. Only the judging
is particular: the oracle reads every preview, so that quality is a number.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tincture import randomness
from tincture.adapters.adapter import Adapter
from tincture.adapters.embedding import Embedding
from tincture.adapters.hypernetwork import Hypernetwork
from tincture.drawing.sheets import save_sheet
from tincture.errors import UsageError
from tincture.events import Callback
from tincture.formats.files import write_text
from tincture.kinds.embedding import EMBEDDING
from tincture.kinds.hypernetwork import HYPERNETWORK
from tincture.models.diffusion_model import DiffusionModel
from tincture.models.loading.load import load_model
from tincture.models.picto import oracle, world
from tincture.models.sampling import generate
from tincture.run.create import create_embedding, create_hypernetwork
from tincture.run.folder import write_json
from tincture.run.train import train
from tincture.settings.train import TrainSettings
from tincture.workspace import Workspace

SUBJECT_PICTURES, STYLE_PICTURES = 5, 12
EMBEDDING_NAME, HYPERNETWORK_NAME = "glimmer", "demo-style"
DEFAULT_SUBJECT, DEFAULT_STYLE = "small cyan dotted moon", "sunset"
SUBJECT_ATTRIBUTES = ("shape", "colour", "texture", "size")
SHOWN = 10
"""Pictures per row of a contact sheet."""


@dataclasses.dataclass(frozen=True)
class Judged:
    """Pictures of prompts, beside the scenes that the prompts name and what the oracle read."""

    scenes: Sequence[world.Scene]
    pictures: Sequence[NDArray[np.uint8]]
    readings: Sequence[oracle.Reading]

    def share(self, attributes: Sequence[str]) -> float:
        """Share of pictures that agree with their scene in all of ``attributes``."""
        shows = [reading.shows(scene, attributes) for scene, reading in zip(self.scenes, self.readings, strict=True)]
        return float(np.mean(shows))


def run(
    out: Path,
    *,
    subject: str = DEFAULT_SUBJECT,
    style: str = DEFAULT_STYLE,
    seed: int = 0,
    pairs: int = 120,
    callbacks: Sequence[Callback] = (),
    on_stage: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Runs the main job into the folder ``out`` (a workspace) and returns the report, also in ``out/report.json``.

    Args:
        subject: size, colour, texture and shape of what the embedding is taught.
        style: what the hypernetwork is taught, one of ``world.STYLES``.
        seed: of the pictures, of training and of the previews.
        pairs: previews per measurement, each another pair of prompt and seed, none of whose prompts was trained on.
        on_stage: gets a sentence on what happens next.

    Raises:
        UsageError: subject or style is not of picto's world, or ``out`` holds something else.
    """
    randomness.require_seeds([seed])
    taught, workspace = _checked(out, subject, style)
    model = load_model("picto", workspace=workspace)
    on_stage("Reading rendered pictures with the oracle, and pictures that picto draws for random prompts.")
    scenes = random_scenes(pairs, seed, "prompts")
    rendered = judge(scenes, [world.render(scene) for scene in scenes])
    base = draw(model, scenes, [scene.caption() for scene in scenes], seed)
    report: dict[str, Any] = {
        "subject": str(taught),
        "style": style,
        "seed": seed,
        "pairs": pairs,
        "oracle": {"accuracy": rendered.share(oracle.ATTRIBUTES)},
        "picto": {"prompt_accuracy": base.share(oracle.ATTRIBUTES)},
    }
    on_stage(f"Teaching an embedding the {taught} from {SUBJECT_PICTURES} pictures.")
    report[EMBEDDING.name], embedding_seconds = teach_subject(model, workspace, taught, seed, pairs, callbacks)
    on_stage(f"Teaching a hypernetwork the style {style!r} from {STYLE_PICTURES} pictures.")
    report[HYPERNETWORK.name], style_seconds = teach_style(model, workspace, style, seed, base, callbacks)
    report["seconds"] = {EMBEDDING.name: embedding_seconds, HYPERNETWORK.name: style_seconds}
    write_json(out / "report.json", report)
    return report


def _checked(out: Path, subject: str, style: str) -> tuple[world.Subject, Workspace]:
    try:
        taught = world.parse_subject(subject)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if style not in world.STYLES[1:]:
        raise UsageError(f"There is no style {style!r}; choose one of {', '.join(world.STYLES[1:])}.")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; give a folder by --out.")
    if out.exists() and any(out.iterdir()) and not (out / "report.json").exists() and not (out / "data").exists():
        raise UsageError(f"{out} holds other files; give a new or an empty folder by --out.")
    out.mkdir(parents=True, exist_ok=True)
    return taught, Workspace(out.resolve())


# --- pictures --------------------------------------------------------------------------------------------------------


def random_scenes(count: int, seed: int, purpose: str, style: str = "none") -> list[world.Scene]:
    """``count`` scenes drawn at random, other ones for each ``purpose``."""
    rng = randomness.generator(seed, f"demo {purpose}")
    return [world.random_scene(rng, style) for _ in range(count)]


def subject_scenes(subject: world.Subject, seed: int) -> tuple[list[world.Scene], list[tuple[str, str]]]:
    """The training scenes of a subject, each in another place on another background, and the (position, background)

    pairs that none of them shows.
    """
    rng = randomness.generator(seed, "demo subject")
    places = rng.permutation(list(world.POSITIONS))
    grounds = rng.permutation(list(world.BACKGROUNDS))
    shown = list(zip(map(str, places), map(str, grounds), strict=True))[:SUBJECT_PICTURES]
    scenes = [
        world.Scene(**dataclasses.asdict(subject), position=position, background=background, **world.jitter(rng))
        for position, background in shown
    ]
    every = [(position, background) for position in world.POSITIONS for background in world.BACKGROUNDS]
    return scenes, [pair for pair in every if pair not in shown]


def write_pictures(folder: Path, scenes: Sequence[world.Scene], captions: Sequence[str]) -> None:
    """Writes rendered pictures with a caption file each: ``01.png``, ``01.txt``, …"""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (scene, caption) in enumerate(zip(scenes, captions, strict=True), start=1):
        Image.fromarray(world.render(scene)).save(folder / f"{number:02}.png")
        (folder / f"{number:02}.txt").write_text(caption + "\n", encoding="utf-8")


def draw(model: DiffusionModel, scenes: Sequence[world.Scene], prompts: Sequence[str], seed: int) -> Judged:
    """Generates a picture per prompt, each with a seed of its own, and judges it against its scene."""
    seeds = [randomness.torch_seed(seed, "demo preview", number) % 2**32 for number in range(len(prompts))]
    pictures = list(generate(model, prompts, seeds=seeds).numpy())
    return judge(scenes, pictures)


def judge(scenes: Sequence[world.Scene], pictures: Sequence[NDArray[np.uint8]]) -> Judged:
    """Has the oracle read every picture."""
    return Judged(scenes, pictures, [oracle.read(picture) for picture in pictures])


# --- the two lessons -------------------------------------------------------------------------------------------------


def teach_subject(
    model: DiffusionModel,
    workspace: Workspace,
    subject: world.Subject,
    seed: int,
    pairs: int,
    callbacks: Sequence[Callback] = (),
) -> tuple[dict[str, Any], float]:
    """Teaches an embedding ``subject`` in ``workspace``: ``fidelity`` and ``editability`` before and after, in shares

    of ``pairs`` previews whose prompts were not trained on, and the seconds of training.
    """
    lessons, unseen = subject_scenes(subject, seed)
    folder = workspace.root / "data" / "subject"
    write_pictures(folder, lessons, [", ".join(scene.tags()[1:]) for scene in lessons])
    path = create_embedding(
        EMBEDDING_NAME, model="picto", workspace=workspace, overwrite=True, **EMBEDDING.preset_options
    )
    chosen = [unseen[number % len(unseen)] for number in range(pairs)]
    scenes = [
        world.Scene(**dataclasses.asdict(subject), position=position, background=background)
        for position, background in chosen
    ]
    prompts = [scene.caption(EMBEDDING_NAME) for scene in scenes]
    before = _draw_with(Embedding.load(path), model, scenes, prompts, seed)
    started = time.monotonic()
    train(
        TrainSettings(
            kind=EMBEDDING.name,
            name=EMBEDDING_NAME,
            data=str(folder),
            seed=seed,
            preview_every=0,
            processes="1",
            **EMBEDDING.preset,
        ),
        workspace,
        callbacks,
    )
    seconds = time.monotonic() - started
    after = _draw_with(Embedding.load(path), model, scenes, prompts, seed)
    _save_comparison(workspace.root / "subject.png", lessons, before, after)
    return {
        "before": {"fidelity": before.share(SUBJECT_ATTRIBUTES), "editability": before.share(oracle.ATTRIBUTES)},
        "after": {"fidelity": after.share(SUBJECT_ATTRIBUTES), "editability": after.share(oracle.ATTRIBUTES)},
    }, seconds


def teach_style(
    model: DiffusionModel,
    workspace: Workspace,
    style: str,
    seed: int,
    base: Judged,
    callbacks: Sequence[Callback] = (),
) -> tuple[dict[str, Any], float]:
    """Teaches a hypernetwork ``style`` in ``workspace``: the shares of ``style`` and ``content`` before and after, over

    the prompts of ``base`` (pictures of the plain model, drawn with ``seed``), and the seconds of training.
    """
    lessons = random_scenes(STYLE_PICTURES, seed, "style", style)
    folder = workspace.root / "data" / "style"
    write_pictures(folder, lessons, [scene.caption() for scene in lessons])
    template = workspace.templates / "caption.txt"
    write_text(template, "[filewords]\n")
    shape = HYPERNETWORK.preset_options
    path = create_hypernetwork(
        HYPERNETWORK_NAME, model="picto", workspace=workspace, seed=seed, overwrite=True, **shape
    )
    scenes = [dataclasses.replace(scene, style=style) for scene in base.scenes]
    before = Judged(scenes, base.pictures, base.readings)
    started = time.monotonic()
    train(
        TrainSettings(
            kind=HYPERNETWORK.name,
            name=HYPERNETWORK_NAME,
            data=str(folder),
            seed=seed,
            preview_every=0,
            processes="1",
            template=template.stem,
            **HYPERNETWORK.preset,
        ),
        workspace,
        callbacks,
    )
    seconds = time.monotonic() - started
    after = _draw_with(Hypernetwork.load(path), model, scenes, [scene.caption() for scene in scenes], seed)
    _save_comparison(workspace.root / "style.png", lessons, before, after)
    return {
        "before": {"style": before.share(("style",)), "content": before.share(oracle.ATTRIBUTES)},
        "after": {"style": after.share(("style",)), "content": after.share(oracle.ATTRIBUTES)},
    }, seconds


def _draw_with(
    adapter: Adapter | None, model: DiffusionModel, scenes: Sequence[world.Scene], prompts: Sequence[str], seed: int
) -> Judged:
    attached: AbstractContextManager[None] = nullcontext()
    if adapter is not None:
        attached = adapter.train(False).attach(model)
    with attached:
        return draw(model, scenes, prompts, seed)


def _save_comparison(path: Path, lessons: Sequence[world.Scene], before: Judged, after: Judged) -> None:
    rows = {
        "pictures": [world.render(scene) for scene in lessons[:SHOWN]],
        "before": list(before.pictures[:SHOWN]),
        "after": list(after.pictures[:SHOWN]),
    }
    save_sheet(path, rows)
