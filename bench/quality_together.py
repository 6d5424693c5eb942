"""A subject and a style in one prompt: an embedding and a hypernetwork, each taught alone, that act at once."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from pathlib import Path

from bench import judging
from bench.quality_lessons import DRAWING, Figures, Lesson, Part, judge_of, picto, taught

from tincture.adapters.hypernetwork import Hypernetwork
from tincture.formats.files import write_text
from tincture.kinds.hypernetwork import HYPERNETWORK
from tincture.models.picto import oracle
from tincture.run import demo
from tincture.run.create import create_hypernetwork
from tincture.run.train import train
from tincture.settings.train import TrainSettings
from tincture.workspace import Workspace

STYLE, STYLE_PICTURES = "sunset", 24


@functools.cache
def style_network() -> Hypernetwork:
    """One for all lessons, taught as the embedded model's preset has it."""
    with tempfile.TemporaryDirectory(prefix="tincture-quality-") as folder:
        workspace = Workspace.open(folder)
        scenes = demo.random_scenes(STYLE_PICTURES, 0, "style beside subjects", STYLE)
        demo.write_pictures(workspace.root / "data", scenes, [scene.caption() for scene in scenes])
        write_text(workspace.templates / "caption.txt", "[filewords]\n")
        create_hypernetwork("style", model="picto", workspace=workspace, **HYPERNETWORK.preset_options)
        values = {**HYPERNETWORK.preset, "template": str(workspace.templates / "caption.txt"), "preview_every": 0}
        settings = TrainSettings(
            kind=HYPERNETWORK.name, name="style", model="picto", data=str(workspace.root / "data"), **values
        )
        return Hypernetwork.load(train(settings, workspace).adapter_path).train(False)


def teach_together(lesson: Lesson, part: Part) -> Figures:
    """Shares of the previews of a subject's name, drawn by the embedding alone, and with the hypernetwork beside it."""
    judge, network, rows = judge_of(lesson.subject, lesson.seed), style_network(), dict[int, Figures]()
    styled = dataclasses.replace(
        judge.asked, scenes=[dataclasses.replace(scene, style=STYLE) for scene in judge.asked.scenes]
    )
    with tempfile.TemporaryDirectory(prefix="tincture-quality-") as folder:
        for step, _ in taught(part.ways[lesson.way], part, judge, lesson, Path(folder)):
            alone = demo.judge(judge.asked.scenes, list(judging.drawn(picto(), judge.asked, DRAWING)))
            with network.attach(picto()):
                both = demo.judge(styled.scenes, list(judging.drawn(picto(), styled, DRAWING)))
            found = {
                "subject, alone": alone.share(demo.SUBJECT_ATTRIBUTES),
                "subject and the rest of the prompt, alone": alone.share(oracle.ATTRIBUTES),
                "subject, with the style": both.share(demo.SUBJECT_ATTRIBUTES),
                "style, with the subject": both.share(("style",)),
                "subject and style": both.share((*demo.SUBJECT_ATTRIBUTES, "style")),
                "subject, style and the rest of the prompt": both.share((*oracle.ATTRIBUTES, "style")),
            }
            rows[step] = {name: round(share, 4) for name, share in found.items()}
    return {**dataclasses.asdict(lesson), "rows": rows}
