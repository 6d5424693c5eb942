"""All commands, each with the module that knows it, which is loaded when the command is called: the help needs none."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from tincture.cli.session import new_group
from tincture.kinds.registry import any_of, kind_names, kinds


class Entry(NamedTuple):
    """A command in the list of all: its module of this package, and the first sentence of its own help."""

    module: str
    summary: str


def entries() -> Mapping[str, Entry]:
    """The commands by name, in the order of the help."""
    return {
        "demo": Entry("demo", "Teach the embedded model a subject and a style, and measure how well it learned them."),
        "create": Entry("create", f"Make a new {any_of(kind_names())} file."),
        "train": Entry("train", f"Train {any_of([kind.one for kind in kinds()])}."),
        "resume": Entry("train", "Go on with a stopped run exactly where it stopped, with all its settings."),
        "preview": Entry("train", "Let a run that goes on draw previews after its present step."),
        "sweep": Entry(
            "sweep",
            "Run a run file over a grid, a list of points, or points drawn at random, and compare what comes of them.",
        ),
        "runs": Entry("looking_back", "List runs: how each stands, its step, loss and curve."),
        "compare": Entry(
            "looking_back", "Compare runs: curves over one another, settings that differ, previews side by side."
        ),
        "rerun": Entry(
            "rerun",
            "Train once more with the settings of a run, from the adapter as it was before the run's first step.",
        ),
        "generate": Entry("generate", "Make pictures; their settings are kept in the PNG files."),
        "preprocess": Entry("preprocess", "Crop pictures for training, and write captions beside the crops."),
        "inspect": Entry(
            "inspect",
            "Say what files are: kind, format, traits, hashes, which programs read them, what is odd about them.",
        ),
        "convert": Entry(
            "convert", "Write an embedding or hypernetwork in another format; what gets lost is told before."
        ),
        "merge": Entry("merge", "Merge adapters into one file by weights, or make one weaker, stronger or smaller."),
        "serve": Entry("serve", "Serve the HTTP API, a queue of jobs and the web page, until Ctrl-C."),
        "doctor": Entry(
            "doctor",
            "Show what this machine can do: versions, devices, precisions, optional parts, models, the workspace.",
        ),
    }


def load_command(name: str) -> Any:
    """The command of that name, whole; KeyError for one that is not there."""
    module = importlib.import_module(f"tincture.cli.{entries()[name].module}")
    app = new_group(name)
    module.register(app)
    return get_group(app).commands[name]


class Program(TyperGroup):
    """The group of all commands, in which stands of each what the help says until it is called."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        for name, entry in entries().items():
            self.commands[name] = TyperCommand(name, help=entry.summary, rich_markup_mode=None)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, found, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name else found, rest
