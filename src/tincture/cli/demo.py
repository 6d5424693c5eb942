"""`tincture demo`: the main job on the embedded model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tincture.cli.flags import typed_path
from tincture.cli.session import Session, command
from tincture.randomness import LARGEST_SEED


def register(app: typer.Typer) -> None:
    command(app, "demo")(demo)


def demo(
    session: Session,
    out: Annotated[Path, typer.Option(help="Folder for pictures, adapters, contact sheets and report.json.")] = Path(
        "demo-out"
    ),
    subject: Annotated[
        str | None, typer.Option(help='Subject to teach, like "small cyan dotted moon"; not given: chosen by the seed.')
    ] = None,
    style: Annotated[str | None, typer.Option(help="Style to teach; not given: the demo's own.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Everything random depends on this number.")] = 0,
) -> None:
    """Teach the embedded model a subject and a style, and measure how well it learned them."""
    given = {"subject": subject, "style": style}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    from tincture.cli.progress import progress
    from tincture.run import demo as job

    with progress() as callback:
        report = job.run(typed_path(out), seed=seed, callbacks=[callback], on_stage=session.say, **chosen)
    session.show(report, table(report))


def table(report: Mapping[str, Any]) -> str:
    """The numbers of a report, one a line, nested keys joined by dots."""
    rows = list(_rows(report))
    width = max((len(key) for key, _ in rows), default=0)
    return "\n".join(f"{key:<{width}}  {value}" for key, value in rows)


def _rows(report: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in report.items():
        if isinstance(value, Mapping):
            yield from _rows(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", f"{value:.3f}" if isinstance(value, float) else str(value)
