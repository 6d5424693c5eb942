"""`tincture rerun`: a run once more, with the settings that an adapter's file or a run's folder has."""

from __future__ import annotations

import functools
from typing import Annotated, Any

import typer

from tincture.cli.flags import flag, given
from tincture.cli.looking_back import inspect_lazily
from tincture.cli.session import Session, command
from tincture.cli.train import DryRun, Events, NoTiming, begin_training, show_plan
from tincture.errors import UsageError
from tincture.events import Callback
from tincture.settings.fields import specs_of
from tincture.settings.train import TrainSettings


def register(app: typer.Typer) -> None:
    flags = [flag(spec) for name, spec in specs_of(TrainSettings).items() if name not in ("kind", "name")]
    command(app, "rerun", extra=flags)(rerun)


def rerun(
    session: Session,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE|RUN",
            help="An adapter's file, or a run: its folder, its id (DATE/NAME), the name of the adapter it trained.",
        ),
    ] = None,
    name: Annotated[
        str,
        typer.Option("--name", "--out", help="Name of the new adapter; else the first one's with -again behind it."),
    ] = "",
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Take the first adapter's name, or --name, and replace what is there."),
    ] = False,
    dry_run: DryRun = False,
    no_timing: NoTiming = False,
    events: Events = "",
    **flags: Any,
) -> None:
    """Train once more with the settings of a run, from the adapter as it was before the run's first step.

    Options win over these settings. What changed since is said: model, pictures, template, versions.
    """
    if not source:
        raise UsageError("Give what to make again: an adapter's file, or a run; tincture runs lists the runs.")
    if no_timing and not dry_run:
        raise UsageError("--no-timing leaves something out of what --dry-run shows; give both, or neither.")
    if dry_run and events:
        raise UsageError("--events says what happens in a run, and --dry-run begins none; give one of them.")
    workspace = session.workspace()
    from tincture import recipe
    from tincture.run.past.again import ChangesSince, Renewed, find_again
    from tincture.run.past.changes import changes

    again = find_again(source, workspace, inspect_lazily, session.say)
    settings = again.with_settings(given(flags))
    remark = functools.partial(_warn, session)
    with Renewed(again, settings, workspace, name, overwrite, recipe.create) as renewed:
        for sentence in renewed.remarks:
            remark(sentence)
        if dry_run:
            timing: Any = "none" if no_timing else "measure"
            plan = recipe.plan(renewed.settings, workspace, timing=timing, digests=True, alone=True)
            since = changes(again.then, plan.pop("facts"))
            show_plan(session, renewed.settings, {"again": again.source, "changed_since": since, **plan})
            return
        further: list[Callback] = [renewed, ChangesSince(again.then, remark)]
        begin_training(session, renewed.settings, False, False, "", events, further)


def _warn(session: Session, sentence: str) -> None:
    session.say(f"warning: {sentence}")
