"""`tincture doctor`: what this machine can do."""

from __future__ import annotations

import typer

from tincture.cli.session import Session, command


def register(app: typer.Typer) -> None:
    command(app, "doctor")(doctor)


def doctor(session: Session) -> None:
    """Show what this machine can do: versions, devices, precisions, optional parts, models, the workspace."""
    workspace = session.workspace()
    from tincture.run import doctor as examination

    report = examination.examine(workspace)
    session.show(report, examination.as_text(report))
    if report["problems"]:
        raise typer.Exit(1)
