"""`tincture runs` and `tincture compare`: what runs left behind. Neither loads torch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tincture.cli.flags import typed_path
from tincture.cli.session import Session, command
from tincture.errors import UsageError
from tincture.formats.files import write_atomically, write_text
from tincture.kinds.registry import any_of, kind_names
from tincture.run.past.past_run import MOST_COMPARED, STATES, PastRun, runs_in, sparkline, summary

MARKS, ASCII_MARKS = "▁▂▃▄▅▆▇█", "12345678"
POINTS = 16
"""Marks of a curve in one line."""
Sort = Literal["newest", "oldest", "name", "loss", "best", "step", "state"]
_ORDERS: Mapping[str, Callable[[PastRun], Any]] = {
    "newest": lambda run: -run.written_at,
    "oldest": lambda run: run.written_at,
    "name": lambda run: (run.name, run.id),
    "loss": lambda run: (run.loss is None, run.loss),
    "best": lambda run: (run.best is None, run.best and run.best[1]),
    "step": lambda run: -run.global_step,
    "state": lambda run: (STATES.index(run.state), -run.written_at),
}
_HEADS = ("RUN", "STATE", "STEP", "LOSS", "BEST", "CURVE", "KIND", "MODEL")


def register(app: typer.Typer) -> None:
    command(app, "runs")(runs)
    command(app, "compare")(compare_runs)


def runs(
    session: Session,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[WORD]...", help="Only runs with all of these in their id, name, model or pictures."),
    ] = None,
    state: Annotated[
        list[str] | None, typer.Option(help=f"Only runs that are {any_of(STATES)}; repeat for several.")
    ] = None,
    kind: Annotated[str, typer.Option(help=f"Only runs of {any_of(kind_names())}.")] = "",
    name: Annotated[str, typer.Option(help="Only runs of the adapter of this name.")] = "",
    model: Annotated[str, typer.Option(help="Only runs on the base model of this name, or a part of it.")] = "",
    sort: Annotated[Sort, typer.Option(help="What the first ones are.")] = "newest",
    limit: Annotated[int, typer.Option(help="So many at most; 0: all.")] = 50,
    log_dir: Annotated[Path | None, typer.Option(help="Folder of the runs; else that of the workspace.")] = None,
) -> None:
    """List runs: how each stands, its step, loss and curve.

    The loss is the mean over the last 100 steps, BEST the lowest by validation. "broken off" are runs that neither
    ended nor go on: they failed, or were killed.
    """
    if wrong := [each for each in state or () if each not in STATES]:
        raise UsageError(f"--state is {wrong[0]!r}, but must be {any_of(STATES)}.")
    if kind and kind not in kind_names():
        raise UsageError(f"--kind is {kind!r}, but must be {any_of(kind_names())}.")
    if limit < 0:
        raise UsageError(f"--limit is {limit}, but must be at least 0.")
    logs = typed_path(log_dir) if log_dir else session.workspace().logs
    if log_dir and not logs.is_dir():
        raise UsageError(f"--log-dir is {str(logs)!r}, which is no folder; give that of the runs.")
    found = [
        run
        for run in runs_in(logs.resolve())
        if (not kind or run.kind == kind)
        and (not name or run.name == name)
        and model.lower() in run.model.lower()
        and all(word.lower() in _text(run) for word in words or ())
        and (not state or run.state in state)
    ]
    found.sort(key=_ORDERS[sort])
    shown = found[:limit] if limit else found
    session.show([summary(run, POINTS) for run in shown], _table(shown) if shown else f"no such run in {logs}")
    if len(shown) < len(found):
        session.say(f"{len(found) - len(shown)} more; --limit 0 shows all")


def compare_runs(
    session: Session,
    given: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN...",
            help="Runs, each by its folder, its id (DATE/NAME) or the beginning of that, the name of the adapter that "
            "it trained, or an adapter's file.",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="File of the comparison (.html); a picture of it (.png) is put beside it.")
    ] = Path("comparison.html"),
    step: Annotated[
        int | None, typer.Option(help="Step of the previews; else those that the runs have in common.")
    ] = None,
    smoothing: Annotated[
        float, typer.Option(help="Of the training loss: 0 shows every step, 100 the mean over a fourth of the run.")
    ] = 30.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files of that name.")] = False,
) -> None:
    """Compare runs: curves over one another, settings that differ, previews side by side.

    The HTML file stands alone: it needs no network, and can be passed on.
    """
    if not given or len(given) < 2:
        raise UsageError(f"Give the runs to compare, 2 to {MOST_COMPARED}; tincture runs lists them.")
    if not 0 <= smoothing <= 100:
        raise UsageError(f"--smoothing is {smoothing:g}, but must be from 0 to 100.")
    page = typed_path(out)
    if page.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--out is {str(out)!r}, but must be a file that ends in .html.")
    if not page.absolute().parent.is_dir():
        raise UsageError(f"--out is {str(out)!r}, but there is no folder {page.parent}; make it, or give another one.")
    picture = page.with_suffix(".png")
    from tincture.run.past.finding import RunFinder
    from tincture.run.presence import refuse_existing

    for path in (page, picture):
        refuse_existing(path, overwrite)

    finder = RunFinder(session.workspace(), inspect_lazily, session.say)
    runs = [finder.find(text) for text in given]
    from tincture.run.past.comparing import compare  # loads numpy and Pillow

    found = compare(runs, smoothing=smoothing, step=step)
    content = found.to_png()
    write_text(page, found.to_html())
    write_atomically(picture, lambda file: _write(file, content))
    text = "\n".join([str(page), str(picture), *_differences(found.differing)])
    session.show({"html": str(page), "png": str(picture), **found.to_dict()}, text)


def inspect_lazily(path: Path) -> Mapping[str, Any]:
    """See ``inspect_file``."""
    from tincture.adapters.files.inspection import inspect_file  # loads torch

    return inspect_file(path)


def _write(file: Any, content: bytes) -> None:
    file.write(content)


def _differences(differing: Mapping[str, Sequence[Any]]) -> list[str]:
    if not differing:
        return ["the same settings"]
    from tincture.run.past.comparing import in_words  # loads numpy and Pillow

    return [
        "settings that differ:",
        *(f"  {name}: {' | '.join(map(in_words, each))}" for name, each in differing.items()),
    ]


def _text(run: PastRun) -> str:
    """What words are looked for in."""
    return f"{run.id} {run.name} {run.kind} {run.model} {run.settings.get('data')}".lower()


def _table(found: Sequence[PastRun]) -> str:
    marks = MARKS if _can_show(MARKS) else ASCII_MARKS
    rows = [_HEADS, *(_row(run, marks) for run in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(run: PastRun, marks: str) -> tuple[str, ...]:
    loss = "" if run.loss is None else f"{run.loss:.4f}"
    best = "" if run.best is None else f"{run.best[1]:.4f} @{run.best[0]}"
    curve = sparkline(run.curve(POINTS), marks)
    cells = (run.id, run.state, f"{run.global_step}/{run.steps}", loss, best, curve, run.kind, run.model)
    return tuple("".join(letter if letter.isprintable() else "\ufffd" for letter in cell) for cell in cells)


def _can_show(text: str) -> bool:
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
