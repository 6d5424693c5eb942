"""How well hypernetworks learn styles: every style of picto's world from 12, 24 and 48 pictures, and what helps.

    python bench/quality_styles.py lessons                  # every lesson that has no result yet
    python bench/quality_styles.py lessons --only outline-48-0 sunset-12-1
    python bench/quality_styles.py ways                     # one style, one thing changed at a time
    python bench/quality_styles.py peers                    # as other trainers do, at equal steps
    python bench/quality_styles.py report                   # the tables of docs/quality.md anew, from the results

A lesson is one style from so many pictures with one seed, taught by the preset ``style``. Pictures, prompts and noise
are drawn by the seed; no prompt that is judged was trained on. Its result is a file of its own, so that a bench that
was stopped goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench import judging, peer_loops, quality_tables  # noqa: E402
from bench.judging import Asked  # noqa: E402
from bench.peer_loops import PeerRecipe  # noqa: E402
from bench.quality_style_ways import BEST, PEERS, PEERS_AT, PEERS_BATCH, WAYS, Lesson, Way  # noqa: E402
from bench.report import put_between  # noqa: E402

from tincture import randomness  # noqa: E402
from tincture.adapters.hypernetwork import Hypernetwork  # noqa: E402
from tincture.formats.files import write_text  # noqa: E402
from tincture.kinds.hypernetwork import HYPERNETWORK  # noqa: E402
from tincture.models.loading.load import load_model  # noqa: E402
from tincture.models.picto import world  # noqa: E402
from tincture.models.picto.oracle import ATTRIBUTES  # noqa: E402
from tincture.models.stable_diffusion import StableDiffusion  # noqa: E402
from tincture.run import demo  # noqa: E402
from tincture.run.create import create_hypernetwork  # noqa: E402
from tincture.run.train import train  # noqa: E402
from tincture.settings.drawing import Drawing  # noqa: E402
from tincture.settings.presets import find_preset  # noqa: E402
from tincture.settings.train import TrainSettings  # noqa: E402
from tincture.workspace import Workspace  # noqa: E402

RESULTS = ROOT / "bench" / "results" / "styles"
DOCS = ROOT / "docs" / "quality.md"
BEGIN, END = "<!-- styles: begin -->", "<!-- styles: end -->"
NAME = "lesson"
PICTURES, SEEDS = (48, 24, 12), 3
HELD_OUT = 24
DRAWING = Drawing(steps=10, sampler="DPM++ 2M")
GUIDANCE = (1.0, 1.5, 2.0)
"""None at all, the preset's, and picto's own."""
OWN = "1.5"
PLAIN = ("{}",)
"""A hypernetwork acts whatever the prompt says."""
NAMED = tuple(f"{{}}, {said}" for said in (f"in the style of {NAME}", f"art by {NAME}", NAME))
"""An embedding has to be named; in several wordings, so that no template wins by being the one that is asked for."""
PEER_STYLES = ("sunset", "outline")
PARTS = ("lessons", "ways", "peers")

Figures = dict[str, Any]


# --- a lesson --------------------------------------------------------------------------------------------------------


def teach(lesson: Lesson, way: Way, model: StableDiffusion) -> Figures:
    """Shares with and without guidance, the losses, and what the training took."""
    trained, held_out = _scenes(lesson)
    with tempfile.TemporaryDirectory(prefix="tincture-styles-") as folder:
        workspace = Workspace.open(folder)
        demo.write_pictures(workspace.root / "data", trained, [scene.caption() for scene in trained])
        path = create_hypernetwork(NAME, model="picto", workspace=workspace, seed=lesson.seed, **way.options)
        started, cpu = time.monotonic(), time.process_time()
        train(_settings(lesson, way, workspace), workspace)
        taken = {"seconds": round(time.monotonic() - started, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}
        hypernetwork = Hypernetwork.load(path)
    with hypernetwork.train(False).attach(model):
        return {**dataclasses.asdict(lesson), **taken, **_judged(lesson, model, trained, held_out)}


def teach_peer(lesson: Lesson, way: Way | PeerRecipe, model: StableDiffusion) -> Figures:
    """What ``teach`` finds, or of an embedding the like, after each number of steps in ``PEERS_AT``."""
    rows: dict[int, Figures] = {}
    if isinstance(way, Way):
        for step in PEERS_AT:
            equal = {"steps": step, "batch_size": PEERS_BATCH, "gradient_accumulation_steps": 1}
            rows[step] = teach(lesson, dataclasses.replace(way, settings={**way.settings, **equal}), model)["guidance"]
        return {**dataclasses.asdict(lesson), "rows": rows}
    trained, held_out = _scenes(lesson)
    material = peer_loops.Material(NAME, judging.pixels(trained), [scene.caption() for scene in trained], "")
    for step, _ in peer_loops.teach(model, way, material, PEERS_AT, lesson.seed, PEERS_BATCH):
        rows[step] = _judged(lesson, model, trained, held_out, NAMED)["guidance"]
    return {**dataclasses.asdict(lesson), "rows": rows}


def _scenes(lesson: Lesson) -> tuple[list[world.Scene], list[world.Scene]]:
    """Those that are trained, and those that are held out for the loss."""
    return (
        demo.random_scenes(lesson.pictures, lesson.seed, "style", lesson.style),
        demo.random_scenes(HELD_OUT, lesson.seed, "held out", lesson.style),
    )


def _settings(lesson: Lesson, way: Way, workspace: Workspace) -> TrainSettings:
    template = workspace.templates / "caption.txt"
    write_text(template, "[filewords]\n")
    preset = find_preset("style").settings(HYPERNETWORK.name, "picto") if way.base is None else way.base
    own = {"template": template.stem, "data": str(workspace.root / "data"), "preview_every": 0, "save_every": 0}
    return TrainSettings(
        kind=HYPERNETWORK.name, name=NAME, model="picto", seed=lesson.seed, **{**preset, **way.settings, **own}
    )


def asked(lesson: Lesson, wordings: Sequence[str] = PLAIN) -> Asked:
    """The previews: the captions of random scenes, and what they should show.

    Args:
        wordings: what is said of a caption, by turns.
    """
    scenes = demo.random_scenes(lesson.previews, lesson.seed, "prompts", lesson.style)
    seeds = [randomness.torch_seed(lesson.seed, "demo preview", number) % 2**32 for number in range(len(scenes))]
    return Asked(scenes, _worded(scenes, wordings), seeds, ("style",), ATTRIBUTES)


def _worded(scenes: Sequence[world.Scene], wordings: Sequence[str]) -> list[str]:
    return [wordings[number % len(wordings)].format(scene.caption()) for number, scene in enumerate(scenes)]


def _judged(
    lesson: Lesson,
    model: StableDiffusion,
    trained: Sequence[world.Scene],
    held_out: Sequence[world.Scene],
    wordings: Sequence[str] = PLAIN,
) -> Figures:
    wanted, shares = asked(lesson, wordings), {}
    for scale in GUIDANCE:
        pictures = judging.drawn(model, wanted, dataclasses.replace(DRAWING, guidance_scale=scale))
        shares[f"{scale:g}"] = judging.shares(wanted, pictures).to_dict()
    training_loss, loss = (
        judging.fixed_noise_loss(model, judging.encoded(model, scenes), _worded(scenes, wordings))
        for scenes in (trained[:HELD_OUT], held_out)
    )
    return {"guidance": shares, "training_loss": round(training_loss, 5), "loss": round(loss, 5)}


def lessons() -> dict[str, Lesson]:
    """All of them, the first seed of each style first."""
    every = [Lesson(style, count, seed) for seed in range(SEEDS) for count in PICTURES for style in world.STYLES[1:]]
    return {lesson.key: lesson for lesson in every}


def plan_of(part: str) -> dict[str, tuple[Lesson, Any]]:
    """What a part consists of, by name: lessons and how they are taught, a way or a recipe."""
    if part == "ways":
        return {name: (way.lesson, way) for name, way in WAYS.items()}
    if part == "peers":
        shared = [Lesson(style, 24, seed) for seed in range(SEEDS) for style in PEER_STYLES]
        return {f"{name} / {lesson.key}": (lesson, PEERS[name]) for lesson in shared for name in PEERS}
    return {name: (lesson, BEST) for name, lesson in lessons().items()}


# --- the tables ------------------------------------------------------------------------------------------------------


def report(taught: Mapping[str, Figures], ways: Mapping[str, Figures], peers: Mapping[str, Figures]) -> str:
    """A row for each style and number of pictures, in whose cells the seeds follow each other; a row for each way."""
    head = ["style", "pictures", "seeds", f"style / content / both with guidance {OWN}", "both with 1", "both with 2"]
    rows = [[*head, "loss (trained)", "CPU seconds"]]
    for style in world.STYLES[1:]:
        for count in sorted(PICTURES):
            own = [each for each in taught.values() if (each["style"], each["pictures"]) == (style, count)]
            if own:
                rows.append(_lesson_row(style, count, sorted(own, key=lambda each: int(each["seed"]))))
    more = [f"both with guidance {OWN}", "both with 2"]
    changed = [["way", "previews", "style", "content", "both", "clear", *more, "loss (trained)", "CPU seconds"]]
    for name, figures in ways.items():
        shares = figures["guidance"]["1"]
        cells = [f"{shares[share]:.2f}" for share in ("taught", "rest", "both", "clear")]
        cells += [f"{figures['guidance'][own]['both']:.2f}" if own in figures["guidance"] else "" for own in (OWN, "2")]
        cells += [_losses(figures), f"{figures['cpu_seconds']:.0f}"]
        changed.append([name, str(figures["previews"]), *cells])
    tables = (rows, changed, _peer_rows(peers))
    return "\n\n".join(quality_tables.table(each[0], each[1:]) for each in tables if len(each) > 1)


def _peer_rows(peers: Mapping[str, Figures]) -> list[list[str]]:
    """Means over all lessons of a way, with the preset's guidance."""
    columns = [(share, step) for step in PEERS_AT for share in ("taught", "rest", "both")]
    titles = {"taught": "style", "rest": "content", "both": "both"}
    rows = [["recipe", "lessons", *(f"{titles[share]} at {step}" for share, step in columns)]]
    for way in PEERS:
        own = [figures["rows"] for name, figures in peers.items() if name.startswith(f"{way} / ")]
        cells = [quality_tables.mean([each[str(step)][OWN][share] for each in own]) for share, step in columns]
        if own:
            rows.append([way, str(len(own)), *cells])
    return rows


def _lesson_row(style: str, count: int, own: Sequence[Figures]) -> list[str]:
    def cells(guidance: str, *names: str) -> str:
        return ", ".join(" / ".join(f"{each['guidance'][guidance][name]:.2f}" for name in names) for each in own)

    seeds = ", ".join(str(each["seed"]) for each in own)
    shares = [cells(OWN, "taught", "rest", "both"), cells("1", "both"), cells("2", "both")]
    taken = ", ".join(f"{each['cpu_seconds']:.0f}" for each in own)
    return [style, str(count), seeds, *shares, ", ".join(map(_losses, own)), taken]


def _losses(figures: Figures) -> str:
    return f"{figures['loss']:.3f} ({figures['training_loss']:.3f})" if "loss" in figures else ""


# --- command line ----------------------------------------------------------------------------------------------------


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in name) + ".json"


def read_results(folder: Path, names: Sequence[str]) -> dict[str, Figures]:
    """What is there, by name, in the order of ``names``."""
    paths = {name: folder / _file_name(name) for name in names}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*PARTS, "report"])
    parser.add_argument("--only", nargs="*", default=[], help="lessons, such as outline-48-0, or ways; not given: all")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--docs", type=Path, default=DOCS)
    given = parser.parse_args(arguments)
    plan = plan_of(given.part)
    if wrong := set(given.only) - set(plan):
        sys.exit(f"There is no {', '.join(sorted(wrong))}; there are {', '.join(plan)}.")
    if given.part == "report":
        found = [read_results(given.results / part, [*plan_of(part)]) for part in PARTS]
        put_between(given.docs, BEGIN, END, report(*found))
        return
    model, folder = load_model("picto"), given.results / given.part
    for name, (lesson, way) in plan.items():
        path = folder / _file_name(name)
        if (given.only and name not in given.only) or path.exists():
            continue
        figures = {"way": name, **(teach_peer if given.part == "peers" else teach)(lesson, way, model)}
        write_text(path, json.dumps(figures, indent=1) + "\n")
        print(name, figures, flush=True)


if __name__ == "__main__":
    main()
