"""How well hypernetworks learn styles: every style of picto's world from 12, 24 and 48 pictures, and what helps.

    python bench/quality_styles.py lessons                  # every lesson that has no result yet
    python bench/quality_styles.py lessons --only outline-48-0 sunset-12-1
    python bench/quality_styles.py ways                     # one style, one thing changed at a time
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

from bench import judging  # noqa: E402
from bench.judging import Asked  # noqa: E402
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
GUIDANCE = (1.0, 2.0)
"""None at all, and picto's own."""

Figures = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Lesson:
    """One style from so many pictures with one seed."""

    style: str
    pictures: int
    seed: int
    previews: int = 60

    @property
    def key(self) -> str:
        """Its name in results."""
        return f"{self.style}-{self.pictures}-{self.seed}"


OUTLINE = Lesson("outline", 48, 0, previews=40)
SUNSET = Lesson("sunset", 12, 0)


@dataclasses.dataclass(frozen=True)
class Way:
    """How a style is taught: what differs from the preset, or, with ``base``, from that instead.

    ``lesson``: in which it is compared with others.
    """

    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    base: Mapping[str, Any] | None = None
    lesson: Lesson = OUTLINE


BEST = Way(options={"activation_func": "relu", "weight_init": "XavierNormal"})
SHORT = {
    "learning_rate": "0 -> 4e-3:30, 4e-3 -> 1e-5 cosine",
    "steps": 400,
    "batch_size": 8,
    "caption_drop_out": 0.15,
    "latent_sampling_method": "deterministic",
}
"""What one thing at a time is changed of."""
RELU, XAVIER = {"activation_func": "relu"}, {"activation_func": "relu", "weight_init": "XavierNormal"}
DEBIASED = {"timestep_weighting": "debiased"}
SOAP = {"optimizer": "SOAP", "learning_rate": "0 -> 3e-3:30, 3e-3 -> 1e-5 cosine"}
FAST = {"optimizer": "SOAP", "learning_rate": "0 -> 8e-3:30, 8e-3 -> 1e-5 cosine"}
DROPOUT = {"dropout_structure": (0, 0.3, 0)}
WAYS: Mapping[str, Way] = {
    "base": Way(options=RELU, base=SHORT),
    "debiased weights": Way(DEBIASED, RELU, SHORT),
    "min-SNR weights": Way({"timestep_weighting": "min_snr"}, RELU, SHORT),
    "linear (1, 1)": Way(options={"layer_structure": (1, 1), "activation_func": "linear"}, base=SHORT),
    "rate 1e-2": Way({"learning_rate": "0 -> 1e-2:30, 1e-2 -> 1e-5 cosine"}, RELU, SHORT),
    "self-attention alone": Way(options={**RELU, "sizes": (96, 128, 144)}, base=SHORT),
    "text alone": Way(options={**RELU, "sizes": (112,)}, base=SHORT),
    "narrow (1, 0.25, 1)": Way(options={**RELU, "layer_structure": (1, 0.25, 1)}, base=SHORT),
    "Xavier weights": Way(options=XAVIER, base=SHORT),
    "weight decay 0.3": Way({"weight_decay": 0.3}, RELU, SHORT),
    "batch 4, 800 steps, debiased": Way({**DEBIASED, "batch_size": 4, "steps": 800}, RELU, SHORT),
    "SOAP, debiased": Way({**DEBIASED, **SOAP}, RELU, SHORT),
    "Xavier, debiased": Way(DEBIASED, XAVIER, SHORT),
    "SOAP 8e-3, Xavier, debiased": Way({**DEBIASED, **FAST}, XAVIER, SHORT),
    "the same, weight decay 1": Way({**DEBIASED, **FAST, "weight_decay": 1.0}, XAVIER, SHORT),
    "the same, dropout 0.3": Way({**DEBIASED, **FAST}, {**XAVIER, **DROPOUT}, SHORT),
    "the same, weight decay 1 and dropout 0.3": Way(
        {**DEBIASED, **FAST, "weight_decay": 1.0}, {**XAVIER, **DROPOUT}, SHORT
    ),
    "frame: SOAP 8e-3, Xavier, debiased": Way({**DEBIASED, **FAST}, XAVIER, SHORT, Lesson("frame", 48, 0)),
    "sunset from 12: SOAP 8e-3, Xavier, debiased": Way({**DEBIASED, **FAST}, XAVIER, SHORT, SUNSET),
    "sunset from 12: the same, weight decay 1": Way({**DEBIASED, **FAST, "weight_decay": 1.0}, XAVIER, SHORT, SUNSET),
    "sunset from 12: the demo's": Way({}, RELU, HYPERNETWORK.preset, SUNSET),
}


# --- a lesson --------------------------------------------------------------------------------------------------------


def teach(lesson: Lesson, way: Way, model: StableDiffusion) -> Figures:
    """Shares with and without guidance, the losses, and what the training took."""
    trained, held_out = (
        demo.random_scenes(count, lesson.seed, purpose, lesson.style)
        for count, purpose in ((lesson.pictures, "style"), (HELD_OUT, "held out"))
    )
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


def _settings(lesson: Lesson, way: Way, workspace: Workspace) -> TrainSettings:
    template = workspace.templates / "caption.txt"
    write_text(template, "[filewords]\n")
    preset = find_preset("style").settings(HYPERNETWORK.name, "picto") if way.base is None else way.base
    own = {"template": template.stem, "data": str(workspace.root / "data"), "preview_every": 0, "save_every": 0}
    return TrainSettings(
        kind=HYPERNETWORK.name, name=NAME, model="picto", seed=lesson.seed, **{**preset, **way.settings, **own}
    )


def asked(lesson: Lesson) -> Asked:
    """The previews: the captions of random scenes, and what they should show."""
    scenes = demo.random_scenes(lesson.previews, lesson.seed, "prompts", lesson.style)
    seeds = [randomness.torch_seed(lesson.seed, "demo preview", number) % 2**32 for number in range(len(scenes))]
    return Asked(scenes, [scene.caption() for scene in scenes], seeds, ("style",), ATTRIBUTES)


def _judged(
    lesson: Lesson, model: StableDiffusion, trained: Sequence[world.Scene], held_out: Sequence[world.Scene]
) -> Figures:
    wanted, shares = asked(lesson), {}
    for scale in GUIDANCE:
        pictures = judging.drawn(model, wanted, dataclasses.replace(DRAWING, guidance_scale=scale))
        shares[f"{scale:g}"] = judging.shares(wanted, pictures).to_dict()
    training_loss, loss = (
        judging.fixed_noise_loss(model, judging.encoded(model, scenes), [scene.caption() for scene in scenes])
        for scenes in (trained[:HELD_OUT], held_out)
    )
    return {"guidance": shares, "training_loss": round(training_loss, 5), "loss": round(loss, 5)}


def lessons() -> dict[str, Lesson]:
    """All of them, the first seed of each style first."""
    every = [Lesson(style, count, seed) for seed in range(SEEDS) for count in PICTURES for style in world.STYLES[1:]]
    return {lesson.key: lesson for lesson in every}


# --- the tables ------------------------------------------------------------------------------------------------------


def report(taught: Mapping[str, Figures], ways: Mapping[str, Figures]) -> str:
    """A row for each style and number of pictures, in whose cells the seeds follow each other; a row for each way."""
    rows = [["style", "pictures", "seeds", "style / content / both", "both with guidance 2", "loss (trained)"]]
    for style in world.STYLES[1:]:
        for count in sorted(PICTURES):
            own = [each for each in taught.values() if (each["style"], each["pictures"]) == (style, count)]
            if own:
                rows.append(_lesson_row(style, count, sorted(own, key=lambda each: int(each["seed"]))))
    changed = [["way", "previews", "style", "content", "both", "clear", "both with guidance 2", "CPU seconds"]]
    for name, figures in ways.items():
        shares = figures["guidance"]["1"]
        cells = [f"{shares[share]:.2f}" for share in ("taught", "rest", "both", "clear")]
        cells.append(f"{figures['guidance']['2']['both']:.2f}" if "2" in figures["guidance"] else "")
        changed.append([name, str(figures["previews"]), *cells, f"{figures['cpu_seconds']:.0f}"])
    return f"{_table(rows)}\n\n{_table(changed)}"


def _lesson_row(style: str, count: int, own: Sequence[Figures]) -> list[str]:
    def cells(guidance: str, *names: str) -> str:
        return ", ".join(" / ".join(f"{each['guidance'][guidance][name]:.2f}" for name in names) for each in own)

    losses = ", ".join(f"{each['loss']:.3f} ({each['training_loss']:.3f})" for each in own)
    seeds = ", ".join(str(each["seed"]) for each in own)
    return [style, str(count), seeds, cells("1", "taught", "rest", "both"), cells("2", "both"), losses]


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# --- command line ----------------------------------------------------------------------------------------------------


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in name) + ".json"


def read_results(folder: Path, names: Sequence[str]) -> dict[str, Figures]:
    """What is there, by name, in the order of ``names``."""
    paths = {name: folder / _file_name(name) for name in names}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["lessons", "ways", "report"])
    parser.add_argument("--only", nargs="*", default=[], help="lessons, such as outline-48-0, or ways; not given: all")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--docs", type=Path, default=DOCS)
    given = parser.parse_args(arguments)
    plan: dict[str, tuple[Lesson, Way]] = {name: (lesson, BEST) for name, lesson in lessons().items()}
    if given.part == "ways":
        plan = {name: (way.lesson, way) for name, way in WAYS.items()}
    if wrong := set(given.only) - set(plan):
        sys.exit(f"There is no {', '.join(sorted(wrong))}; there are {', '.join(plan)}.")
    if given.part == "report":
        tables = report(read_results(given.results / "lessons", [*plan]), read_results(given.results / "ways", [*WAYS]))
        put_between(given.docs, BEGIN, END, tables)
        return
    model, folder = load_model("picto"), given.results / given.part
    for name, (lesson, way) in plan.items():
        path = folder / _file_name(name)
        if (given.only and name not in given.only) or path.exists():
            continue
        figures = teach(lesson, way, model)
        write_text(path, json.dumps({"way": name, **figures} if given.part == "ways" else figures, indent=1) + "\n")
        print(name, figures["guidance"], f"{figures['cpu_seconds']} CPU seconds", flush=True)


if __name__ == "__main__":
    main()
