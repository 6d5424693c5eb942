"""`tincture inspect`: what files are."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tincture.cli.flags import typed_path
from tincture.cli.session import Session, command
from tincture.errors import TinctureError
from tincture.settings.conversion import INSPECTION_FIELDS

FLAGLESS = ("path",)
"""Settings without a flag: files stand alone."""
_WIDTH = 110
# Texts within metadata, such as a thumbnail, may have megabytes.
_LONGEST_TEXT = 300


def register(app: typer.Typer) -> None:
    command(app, "inspect")(inspect)


def inspect(
    session: Session,
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help=INSPECTION_FIELDS["path"].help),
    ],
) -> None:
    """Say what files are: kind, format, traits, hashes, which programs read them, what is odd about them."""
    files = [typed_path(file) for file in files]
    from tincture.run.presence import require_files

    if len(files) == 1:
        require_files(files)
    from tincture.adapters.files.inspection import inspect_file

    if len(files) == 1:
        report = inspect_file(files[0])
        session.show(report, as_text(report))
        return
    reports: list[dict[str, Any]] = []
    for path in files:
        try:
            reports.append(inspect_file(path))
        except TinctureError as error:
            session.say(f"error: {error.sentence}")
            reports.append({"path": str(path), "error": str(error)})
    session.show(reports, "\n\n".join(as_text(report) for report in reports if "error" not in report))
    if any("error" in report for report in reports):
        raise typer.Exit(1)


def as_text(report: Mapping[str, Any]) -> str:
    """A report of ``inspect_file`` for a person: what the file does not say is left out."""
    rows = list(_rows(report))
    width = max(len(label) for label, _ in rows)
    lines = []
    for label, text in rows:
        first, *more = textwrap.wrap(_printable(text), _WIDTH - width - 2) or [""]
        lines.append(f"{label:<{width}}  {first}".rstrip())
        lines += [f"{'':<{width}}  {line}" for line in more]
    return "\n".join(lines)


def _rows(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in report.items():
        if value in (None, "", [], {}):
            continue
        label = key.replace("_", " ")
        if key == "provenance":
            yield from ((f"  {name}".replace("_", " "), _text(part)) for name, part in value.items())
        elif key in ("notes", "lost"):
            yield from (("note" if key == "notes" else "lost", sentence) for sentence in value)
        else:
            yield label, _text(value)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(part)}" for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(_text(part) for part in value)
    if isinstance(value, int):
        return str(value)
    text = "-" if value is None else str(value)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}… ({len(text)} characters)"


def _printable(text: str) -> str:
    """Without what a terminal would take for a command."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in text)
