"""Measures picto, the embedded model, and writes the figures into docs/picto.md.

    python tools/measure_picto.py all                 # 1,000 pictures each; 10 subjects and 3 styles, 3 seeds each
    python tools/measure_picto.py oracle --count 200  # one part; the figures of the others are kept

Parts: ``oracle`` reads rendered pictures; ``vae`` reads them after they went through the VAE; ``prompts`` reads what
picto draws for random prompts; ``subjects`` teaches embeddings and ``styles`` hypernetworks, as the demo does. Every
figure comes from a fixed seed, whatever the number of processes. docs/picto-figures.json keeps the counts; the measured
section of docs/picto.md is made anew from it each time.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import multiprocessing
import platform
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import tincture
from tincture import randomness
from tincture.formats.files import write_text
from tincture.models.loading.load import load_model
from tincture.models.picto import world
from tincture.models.picto.oracle import ATTRIBUTES
from tincture.models.stable_diffusion import StableDiffusion
from tincture.run import demo
from tincture.workspace import Workspace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # when run as a program
from bench.report import put_between

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
CHUNK = 50
"""Pictures that one process draws and reads at a time."""
PARTS = ("oracle", "vae", "prompts", "subjects", "styles")
READ = (*ATTRIBUTES, "all", "style")
WORLDS = {"none": "plain", **{style: style for style in world.STYLES if style != "none"}}

Figures = dict[str, Any]


class Chunk(NamedTuple):
    """Some of the pictures of one part and style. ``number`` counts the chunks of a style and is part of the seed."""

    part: str
    style: str
    seed: int
    number: int
    size: int


class Lesson(NamedTuple):
    """One training of the demo. ``part``: ``subjects`` (an embedding) or ``styles`` (a hypernetwork)."""

    part: str
    taught: str
    seed: int
    pairs: int


# --- pictures --------------------------------------------------------------------------------------------------------


def read_chunk(chunk: Chunk) -> Counter[str]:
    """How many of the chunk's pictures show each attribute, all six at once, and the style."""
    scenes = demo.random_scenes(chunk.size, chunk.seed, f"measured {chunk.part} {chunk.number}", chunk.style)
    if chunk.part == "prompts":
        seed = randomness.torch_seed(chunk.seed, "measured prompts", chunk.number)
        return tally(demo.draw(_picto(), scenes, [scene.caption() for scene in scenes], seed))
    pictures = np.stack([world.render(scene) for scene in scenes])
    if chunk.part == "vae":
        pictures = through_vae(_picto(), pictures)
    return tally(demo.judge(scenes, list(pictures)))


def tally(judged: demo.Judged) -> Counter[str]:
    """Counts what :data:`READ` names; "all" is the six attributes at once, style aside."""
    wanted = {name: ATTRIBUTES if name == "all" else (name,) for name in READ}
    counts = Counter({name: 0 for name in READ})
    for scene, reading in zip(judged.scenes, judged.readings, strict=True):
        counts.update(name for name, attributes in wanted.items() if reading.shows(scene, attributes))
    return counts


@torch.no_grad()
def through_vae(model: StableDiffusion, pictures: np.ndarray[Any, np.dtype[np.uint8]]) -> Any:
    """Encodes pictures (B, H, W, 3) uint8 to the latents' mean and decodes them again."""
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    mean, _ = model.encode_pictures(pixels)
    decoded = ((model.decode_latents(mean).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return decoded.permute(0, 2, 3, 1).contiguous().numpy()


@functools.cache
def _picto() -> StableDiffusion:
    return load_model("picto")


def measure_pictures(part: str, count: int, seed: int, run: Callable[..., Iterable[Any]]) -> Figures:
    """Counts of one part: for every style, or for ``prompts`` of the plain world alone, which is all they can name."""
    styles = ("none",) if part == "prompts" else tuple(WORLDS)
    counts: Figures = {}
    for style in styles:
        chunks = [
            Chunk(part, style, seed, number, min(CHUNK, count - start))
            for number, start in enumerate(range(0, count, CHUNK))
        ]
        total: Counter[str] = Counter()
        for done, found in enumerate(run(read_chunk, chunks), start=1):
            total.update(found)
            print(f"{part}, {WORLDS[style]}: {done} of {len(chunks)} chunks", flush=True)
        counts[style] = {name: total[name] for name in READ}
    return {"count": count, "seed": seed, "shown": counts}


# --- lessons ---------------------------------------------------------------------------------------------------------


def lesson_plan(part: str, subjects: int, seeds: int, pairs: int, seed: int) -> list[Lesson]:
    """``subjects`` random subjects, none twice, or every style, each with ``seeds`` seeds."""
    rng = randomness.generator(seed, "measured subjects")
    taught: dict[str, None] = {}
    while part == "subjects" and len(taught) < subjects:
        taught[str(world.random_scene(rng).subject)] = None
    if part == "styles":
        taught = dict.fromkeys(style for style in world.STYLES if style != "none")
    return [Lesson(part, name, number, pairs) for name in taught for number in range(seeds)]


def teach(lesson: Lesson) -> Figures:
    """Runs one lesson in a workspace of its own."""
    with tempfile.TemporaryDirectory(prefix="tincture-lesson-") as folder:
        workspace = Workspace.open(folder)
        if lesson.part == "subjects":
            subject = world.parse_subject(lesson.taught)
            shares, seconds = demo.teach_subject(_picto(), workspace, subject, lesson.seed, lesson.pairs)
        else:
            base = _plain_pictures(lesson.seed, lesson.pairs)
            shares, seconds = demo.teach_style(_picto(), workspace, lesson.taught, lesson.seed, base)
    return {"taught": lesson.taught, "seed": lesson.seed, **shares, "seconds": round(seconds, 1)}


@functools.cache
def _plain_pictures(seed: int, pairs: int) -> demo.Judged:
    """What the demo compares a style with: the plain model's pictures of random prompts."""
    scenes = demo.random_scenes(pairs, seed, "prompts")
    return demo.draw(_picto(), scenes, [scene.caption() for scene in scenes], seed)


def measure_lessons(plan: Sequence[Lesson], processes: int, run: Callable[..., Iterable[Any]]) -> Iterator[Figures]:
    """The figures after each lesson, so that a run that is broken off leaves what it has."""
    records: list[Figures] = []
    for record in run(teach, plan):
        records.append(record)
        shares = ", ".join(f"{name} {share:.2f}" for name, share in record["after"].items())
        print(f"{len(records)} of {len(plan)}: {record['taught']}, seed {record['seed']}: {shares}", flush=True)
        yield {"pairs": plan[0].pairs, "processes": processes, "records": records}


# --- docs ------------------------------------------------------------------------------------------------------------


def save(docs: Path, part: str, figures: Figures, command: str) -> None:
    """Merges one part's figures into picto-figures.json and makes the measured section of picto.md anew."""
    path = docs / "picto-figures.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    provenance = {
        "command": command,
        "software": f"tincture {tincture.version()}",
        "model_hash": "" if part == "oracle" else _picto().hash,
        "machine": platform.machine(),
    }
    known[part] = {**provenance, **figures}
    write_text(path, json.dumps(known, indent=1) + "\n")
    put_between(docs / "picto.md", BEGIN, END, section(known))


HEADINGS = {
    "oracle": ("The oracle on rendered pictures", "rendered pictures of each world, read as they are"),
    "vae": ("Through the VAE", "rendered pictures of each world, encoded, decoded and read"),
    "prompts": ("Pictures of random prompts", "pictures of random prompts, drawn with the default settings and read"),
}


def section(figures: Mapping[str, Figures]) -> str:
    """The measured section: a heading, the command and a table per part that was measured."""
    parts = [_pictures_section(part, figures[part]) for part in HEADINGS if part in figures]
    parts += [_lessons_section(part, figures[part]) for part in LESSONS if part in figures]
    return "".join(f"\n{part}\n" for part in parts) + "\n"


def _pictures_section(part: str, figures: Figures) -> str:
    heading, what = HEADINGS[part]
    count = figures["count"]
    rows = [
        [WORLDS[style], *(_share(shown[name], count) for name in READ)] for style, shown in figures["shown"].items()
    ]
    return "\n".join(
        [
            f"### {heading}",
            "",
            f'`{figures["command"]}`: {count:,} {what}. Share ± standard error; "all" is all six attributes at once.',
            "",
            table(["world", *READ], rows),
        ]
    )


def _share(shown: int, count: int) -> str:
    return f"{shown / count:.3f} ± {standard_error(shown / count, count):.3f}"


def standard_error(share: float, count: int) -> float:
    """Of a share of ``count`` independent trials."""
    return math.sqrt(share * (1 - share) / count)


LESSONS = {
    "subjects": ("Embeddings: random subjects", "subject", ("fidelity", "editability")),
    "styles": ("Hypernetworks: styles", "style", ("style", "content")),
}


def _lessons_section(part: str, figures: Figures) -> str:
    heading, what, names = LESSONS[part]
    pairs, records = figures["pairs"], figures["records"]
    lines = [
        f"### {heading}",
        "",
        f"`{figures['command']}`: each share is one of {pairs} previews, so its standard error is at most "
        f"{standard_error(0.5, pairs):.3f}, and {standard_error(0.9, pairs):.3f} at 0.9. Seconds are of training, on "
        f"one thread, {figures['processes']} at a time.",
        "",
        _spread(records, names),
        "",
        _by_taught(records, what, names),
    ]
    return "\n".join(lines)


def _spread(records: Sequence[Figures], names: Sequence[str]) -> str:
    columns = {
        f"{when} {name}": [record[when][name] for record in records] for when in ("before", "after") for name in names
    }
    columns["seconds"] = [record["seconds"] for record in records]
    rows = [
        [name, *(_number(name, pick(values)) for pick in (statistics.median, min, max))]
        for name, values in columns.items()
    ]
    return table([f"lessons: {len(records)}", "median", "least", "most"], rows)


def _by_taught(records: Sequence[Figures], what: str, names: Sequence[str]) -> str:
    """A row for each thing taught; a cell lists the seeds in order."""
    rows = []
    for taught in dict.fromkeys(record["taught"] for record in records):
        own = sorted((record for record in records if record["taught"] == taught), key=lambda record: record["seed"])
        cells = [" / ".join(f"{record['after'][name]:.2f}" for record in own) for name in names]
        rows.append([taught, " / ".join(str(record["seed"]) for record in own), *cells])
    return table([what, "seeds", *(f"{name} after" for name in names)], rows)


def _number(name: str, value: float) -> str:
    return f"{value:.1f}" if name == "seconds" else f"{value:.3f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# --- command line ----------------------------------------------------------------------------------------------------


@contextmanager
def pool(processes: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """A ``map`` over so many processes of one thread each; one process is this one."""
    if processes == 1:
        yield map
        return
    # spawned, not forked: torch's threads do not survive a fork
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        processes, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)
    ) as workers:
        yield workers.map


def command_line(args: argparse.Namespace, part: str) -> str:
    """The command that measures ``part`` alone as it was measured."""
    options = {"subjects": ["subjects", "seeds", "pairs", "seed"], "styles": ["seeds", "pairs", "seed"]}
    given = [f"--{name} {getattr(args, name)}" for name in options.get(part, ["count", "seed"])]
    return " ".join(["python tools/measure_picto.py", part, *given])


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    for part in PARTS:
        if args.part not in (part, "all"):
            continue
        command = command_line(args, part)
        with pool(args.processes) as run:
            if part in LESSONS:
                plan = lesson_plan(part, args.subjects, args.seeds, args.pairs, args.seed)
                for figures in measure_lessons(plan, args.processes, run):
                    save(args.docs, part, figures, command)
            else:
                save(args.docs, part, measure_pictures(part, args.count, args.seed, run), command)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("part", choices=[*PARTS, "all"])
    made.add_argument("--count", type=_positive, default=1000, help="pictures for each figure (default 1000)")
    made.add_argument("--subjects", type=_positive, default=10, help="random subjects to teach (default 10)")
    made.add_argument("--seeds", type=_positive, default=3, help="seeds for each subject and style (default 3)")
    made.add_argument("--pairs", type=_positive, default=120, help="previews before and after a lesson (default 120)")
    made.add_argument("--seed", type=int, default=0, help="of scenes, prompts and subjects (default 0)")
    made.add_argument("--processes", type=_positive, default=2, help="at a time, one thread each (default 2)")
    made.add_argument("--docs", type=Path, default=DOCS, help="folder of picto.md and picto-figures.json")
    return made


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    main()
