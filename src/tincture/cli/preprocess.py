"""`tincture preprocess`: pictures as they are found -> crops to train on. Flags are made from the settings' fields."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tincture.cli.flags import flag, given
from tincture.cli.interrupt import stop_on_interrupt
from tincture.cli.session import Session, command
from tincture.settings.preprocess import PREPROCESS_FIELDS, PreprocessSettings
from tincture.settings.toml import read_toml

if TYPE_CHECKING:
    from tincture.preprocessing.pipeline import PreprocessResult

MOST_SHOWN = 10
"""So many skipped pictures are shown on the screen; the report has all."""


def register(app: typer.Typer) -> None:
    flags = [flag(spec) for name, spec in PREPROCESS_FIELDS.items() if name not in ("source", "destination")]
    command(app, "preprocess", extra=flags)(preprocess)


def preprocess(
    session: Session,
    source: Annotated[
        str | None, typer.Argument(metavar="SRC", help="Folder of pictures; they stay as they are.")
    ] = None,
    destination: Annotated[str | None, typer.Argument(metavar="DST", help="Folder for the crops.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings; flags win over it.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make everything anew, whatever is in DST; other files there stay.")
    ] = False,
    **flags: Any,
) -> None:
    """Crop pictures for training, and write captions beside the crops.

    Without flags, each picture is resized to cover 512×512 and cut around its middle. Call it again with the same flags
    to go on after an interruption, or when pictures were added. DST/preprocess-report.json tells what became of each.
    """
    from_flags = given({"source": source, "destination": destination, **flags})
    from_file = read_toml(config) if config else {}
    settings = PreprocessSettings.from_dict({**from_file, **from_flags}, source=str(config or ""))
    from tincture.cli.progress import progress
    from tincture.preprocessing import pipeline

    with progress() as callback, stop_on_interrupt(session.say, "the pictures at hand") as stop:
        result = pipeline.preprocess(**settings.to_dict(), overwrite=overwrite, callbacks=[callback], stop=stop)
    _finish(session, result)


def _finish(session: Session, result: PreprocessResult) -> None:
    for source, reason in result.skipped[:MOST_SHOWN]:
        session.say(f"skipped {source}: {reason}")
    if len(result.skipped) > MOST_SHOWN:
        session.say(f"skipped {len(result.skipped) - MOST_SHOWN} more; see {result.report}")
    shown = {
        "destination": str(result.destination),
        "report": str(result.report),
        **result.counts,
        "new": result.new,
        "skipped_sources": dict(result.skipped),
        "interrupted": result.interrupted,
        "seconds": round(result.seconds, 2),
    }
    session.show(shown, as_text(result))
    if result.interrupted:
        session.say("stopped; the same command goes on")
        raise typer.Exit(130)


def as_text(result: PreprocessResult) -> str:
    """What came of it, for a person."""
    counts = result.counts
    lines = [
        f"{result.destination}: {counts['pictures']} pictures, {counts['captions']} with captions, "
        f"from {counts['used']} of {counts['sources']} sources in {result.seconds:.1f} s"
    ]
    if result.new < counts["used"]:
        lines.append(f"{counts['used'] - result.new} sources were done before")
    if counts["validation"]:
        lines.append(f"sources for training: {counts['training']}, for validation: {counts['validation']}")
    if counts["near_duplicates"]:
        lines.append(f"pairs of near-duplicates: {counts['near_duplicates']}")
    return "\n".join([*lines, f"report: {result.report}"])
