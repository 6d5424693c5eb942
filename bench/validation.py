"""Whether the lowest validation loss lies where an adapter is best: lessons on picto, which an oracle can judge.

    python bench/validation.py                   # all lessons that have no result yet, one after the other
    python bench/validation.py subject-0 style-2 # these
    python bench/validation.py --report          # the table of docs/quality.md anew, from the results

A lesson trains on few pictures and for long, so that it learns too much of them, and validates on pictures of the same
subject, or in the same style, that are not trained. Each copy of the adapter draws the same prompts with the same
seeds, and the oracle reads what came of them. A lesson's result is a file of its own: what is there is not done again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tincture import randomness
from tincture.adapters.embedding import Embedding
from tincture.adapters.hypernetwork import Hypernetwork
from tincture.events import Event, Validated
from tincture.formats.files import write_text
from tincture.kinds.embedding import EMBEDDING
from tincture.kinds.hypernetwork import HYPERNETWORK
from tincture.models.loading.load import load_model
from tincture.models.picto import world
from tincture.models.picto.oracle import ATTRIBUTES
from tincture.models.sampling import generate
from tincture.models.stable_diffusion import StableDiffusion
from tincture.run import demo
from tincture.run.create import create_embedding, create_hypernetwork
from tincture.run.train import train
from tincture.settings.drawing import Drawing
from tincture.settings.train import TrainSettings
from tincture.workspace import Workspace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # when run as a program
from bench.report import put_between

RESULTS = Path(__file__).parent / "results" / "validation"
DOCS = Path(__file__).parents[1] / "docs" / "quality.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
NAME = "lesson"
STEPS, EVERY, PAIRS, HELD_OUT = 240, 30, 24, 8
DRAWING = Drawing(steps=10, sampler="DPM++ 2M")
"""Half the steps of a usual preview: there are many."""
NEAR = 0.2
"""Of the steps: how far the lowest validation loss may be from a step at which the adapter is best."""

Figures = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Lesson:
    """What is taught from ``pictures`` pictures at ``rate``, each ``repeats`` times in a step.

    ``quality``: the attributes that previews must show.
    """

    kind: str
    taught: str
    seed: int
    pictures: int
    rate: str
    quality: tuple[str, ...]
    repeats: int = 1


def lessons() -> dict[str, Lesson]:
    """All of them, by name: the same on every call.

    Some have so few pictures that they are learned by heart; of some the rate becomes far too high late in the run.
    """
    rng = randomness.generator(0, "lessons of validation")
    taught = [str(world.random_scene(rng).subject) for _ in range(3)]
    outline, frame, sunset = world.STYLES[1:4]
    attributes, style = demo.SUBJECT_ATTRIBUTES, ("style",)
    return {
        "subject-0": Lesson(EMBEDDING.name, taught[0], 0, 3, "0.02", attributes),
        "style-0": Lesson(HYPERNETWORK.name, outline, 0, 4, "3e-3", style),
        "style-1": Lesson(HYPERNETWORK.name, sunset, 1, 8, "1e-3", style),
        "subject-1": Lesson(EMBEDDING.name, taught[1], 1, 3, "0.01:180, 0.1", attributes, repeats=2),
        "style-2": Lesson(HYPERNETWORK.name, frame, 2, 8, "1e-3", style),
        "subject-2": Lesson(EMBEDDING.name, taught[2], 2, 3, "0.01:180, 0.1", attributes, repeats=2),
        "style-3": Lesson(HYPERNETWORK.name, outline, 3, 8, "1e-3:150, 2e-2", style),
    }


# --- a lesson --------------------------------------------------------------------------------------------------------


class _Curve:
    """Keeps what is measured."""

    def __init__(self) -> None:
        self.measured: list[Validated] = []

    def on_event(self, event: Event) -> None:
        if isinstance(event, Validated):
            self.measured.append(event)


def teach(lesson: Lesson, model: StableDiffusion) -> Figures:
    """Both losses and the quality at every measurement."""
    with tempfile.TemporaryDirectory(prefix="tincture-validation-") as folder:
        workspace, curve = Workspace.open(folder), _Curve()
        scenes, prompts = _write(lesson, workspace)
        start = _create(lesson, workspace)
        begun = start.read_bytes()
        result = train(_settings(lesson, workspace), workspace, [curve])
        copies = {
            step: result.run_dir / EMBEDDING.plural / f"{NAME}-{step}.pt" for step in range(EVERY, STEPS + 1, EVERY)
        }
        if lesson.kind == HYPERNETWORK.name:
            copies = {step: result.run_dir / HYPERNETWORK.plural / path.name for step, path in copies.items()}
        start.write_bytes(begun)
        quality = {step: _quality(lesson, path, model, scenes, prompts) for step, path in {0: start, **copies}.items()}
    losses = {each.global_step: (each.loss, each.training_loss) for each in curve.measured}
    rows = [[step, *losses[step], *quality[step]] for step in sorted(losses)]
    return {**dataclasses.asdict(lesson), "steps": STEPS, "pairs": PAIRS, "rows": rows}


def _write(lesson: Lesson, workspace: Workspace) -> tuple[list[world.Scene], list[str]]:
    """The pictures of both sides; returns what previews are asked for."""
    write_text(workspace.templates / "caption.txt", "[filewords]\n")
    if lesson.kind == HYPERNETWORK.name:
        trained, held_out, wanted = (
            demo.random_scenes(count, lesson.seed, f"validation {purpose}", lesson.taught)
            for count, purpose in ((lesson.pictures, "lessons"), (HELD_OUT, "held out"), (PAIRS, "previews"))
        )
        captions = [[scene.caption() for scene in scenes] for scenes in (trained, held_out, wanted)]
    else:
        subject = world.parse_subject(lesson.taught)
        shown, unseen = demo.subject_scenes(subject, lesson.seed)
        rng = randomness.generator(lesson.seed, "validation held out")
        every = [unseen[int(index)] for index in rng.permutation(len(unseen))]
        trained = shown[: lesson.pictures]
        held_out = [_scene(subject, *every[index], **world.jitter(rng)) for index in range(HELD_OUT)]
        rest = every[HELD_OUT:]
        wanted = [_scene(subject, *rest[number % len(rest)]) for number in range(PAIRS)]
        captions = [[", ".join(scene.tags()[1:]) for scene in scenes] for scenes in (trained, held_out)]
        captions.append([scene.caption(NAME) for scene in wanted])
    demo.write_pictures(workspace.root / "trained", trained, captions[0])
    demo.write_pictures(workspace.root / "held-out", held_out, captions[1])
    return list(wanted), captions[2]


def _scene(subject: world.Subject, position: str, background: str, **jitter: Any) -> world.Scene:
    return world.Scene(**dataclasses.asdict(subject), position=position, background=background, **jitter)


def _create(lesson: Lesson, workspace: Workspace) -> Path:
    if lesson.kind == HYPERNETWORK.name:
        return create_hypernetwork(NAME, workspace=workspace, seed=lesson.seed, **HYPERNETWORK.preset_options)
    return create_embedding(NAME, workspace=workspace, **EMBEDDING.preset_options)


def _settings(lesson: Lesson, workspace: Workspace) -> TrainSettings:
    is_style = lesson.kind == HYPERNETWORK.name
    preset = HYPERNETWORK.preset if is_style else EMBEDDING.preset
    own = {
        "learning_rate": lesson.rate,
        "steps": STEPS,
        "batch_size": lesson.pictures,
        "gradient_accumulation_steps": lesson.repeats,
        "data": str(workspace.root / "trained"),
        "validation_data": str(workspace.root / "held-out"),
        "validation_every": EVERY,
        "save_every": EVERY,
        "preview_every": 0,
        **({"template": "caption"} if is_style else {}),
    }
    return TrainSettings(kind=lesson.kind, name=NAME, seed=lesson.seed, **{**preset, **own})


def _quality(
    lesson: Lesson, path: Path, model: StableDiffusion, scenes: Sequence[world.Scene], prompts: Sequence[str]
) -> tuple[float, float]:
    """Shares of previews that show what was taught, and of those that show all that the prompt says too."""
    adapter = Embedding.load(path) if lesson.kind == EMBEDDING.name else Hypernetwork.load(path)
    adapter.name = NAME
    with adapter.train(False).attach(model):
        seeds = [randomness.torch_seed(lesson.seed, "validation preview", number) % 2**32 for number in range(PAIRS)]
        pictures = list(generate(model, prompts, DRAWING, seeds=seeds).numpy())
    judged = demo.judge(scenes, pictures)
    everything = tuple(dict.fromkeys([*ATTRIBUTES, *lesson.quality]))
    return judged.share(lesson.quality), judged.share(everything)


# --- what the lessons say --------------------------------------------------------------------------------------------


def best_steps(rows: Sequence[Sequence[float]], column: int, pairs: int) -> list[int]:
    """Steps whose share is the highest, or lower by no more than one standard error of the highest."""
    highest = max(row[column] for row in rows)
    room = math.sqrt(highest * (1 - highest) / pairs)
    return [int(row[0]) for row in rows if row[column] >= highest - room]


def verdict(figures: Mapping[str, Any], column: int = 3) -> tuple[int, list[int], int]:
    """The step of the lowest validation loss, the steps at which the adapter is best, and the way to the nearest."""
    lowest = int(min(figures["rows"], key=lambda row: row[1])[0])
    best = best_steps(figures["rows"], column, figures["pairs"])
    return lowest, best, min(abs(lowest - step) for step in best)


def report(results: Mapping[str, Figures]) -> str:
    """A row for each lesson, and how many hold."""
    head = [
        "lesson",
        "taught",
        "lowest validation loss",
        "lowest training loss",
        "best (share)",
        "apart",
        "with the prompt",
        "apart",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(_row(name, figures)) + " |" for name, figures in results.items()]
    near = [sum(_is_near(figures, column) for figures in results.values()) for column in (3, 4)]
    lines.append("")
    lines.append(
        f"Within {NEAR:.0%} of the steps: {near[0]} of {len(results)} lessons by what was taught, {near[1]} of "
        f"{len(results)} by what was taught together with the rest of the prompt."
    )
    return "\n".join(lines)


def _row(name: str, figures: Figures) -> Iterator[str]:
    rows = figures["rows"]
    yield name
    yield f"{figures['taught']}, {figures['pictures']} pictures"
    lowest = min(rows, key=lambda row: row[1])
    yield f"{lowest[1]:.4f} at {lowest[0]:.0f} (at the end {rows[-1][1]:.4f})"
    trained = min(rows, key=lambda row: row[2])
    yield f"{trained[2]:.4f} at {trained[0]:.0f}"
    for column in (3, 4):
        _, best, apart = verdict(figures, column)
        yield f"{_spans(best)} ({max(row[column] for row in rows):.2f}; at the end {rows[-1][column]:.2f})"
        yield f"{apart} of {figures['steps']}"


def _spans(steps: Sequence[int]) -> str:
    """Steps that follow each other as one span."""
    spans: list[list[int]] = []
    for step in steps:
        if spans and step - spans[-1][-1] == EVERY:
            spans[-1].append(step)
        else:
            spans.append([step])
    return ", ".join(f"{span[0]}" if len(span) == 1 else f"{span[0]}-{span[-1]}" for span in spans)


def _is_near(figures: Figures, column: int) -> bool:
    return verdict(figures, column)[2] <= NEAR * int(figures["steps"])


def read_results(folder: Path) -> dict[str, Figures]:
    """What is there, by the names of the lessons."""
    paths = {name: folder / f"{name}.json" for name in lessons()}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="lessons; none: all")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--docs", type=Path, default=DOCS)
    parser.add_argument("--report", action="store_true", help="only make the table anew")
    given = parser.parse_args(arguments)
    every = lessons()
    if wrong := set(given.names) - set(every):
        sys.exit(f"There is no lesson {', '.join(sorted(wrong))}; there are {', '.join(every)}.")
    if not given.report:
        model = load_model("picto")
        for name in [name for name in given.names or every if not (given.results / f"{name}.json").exists()]:
            figures = teach(every[name], model)
            write_text(given.results / f"{name}.json", json.dumps(figures, indent=1) + "\n")
            print(name, *verdict(figures), flush=True)
    put_between(given.docs, BEGIN, END, report(read_results(given.results)))


if __name__ == "__main__":
    main()
