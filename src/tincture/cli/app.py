"""The program: its commands, and one place where errors become a sentence and an exit code."""

from __future__ import annotations

import contextlib
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from tincture.cli.commands import Program
from tincture.cli.session import Session, command, new_group, show_help, with_flags
from tincture.errors import LostProcessError, TinctureError, UsageError
from tincture.formats.software import VERSION
from tincture.processes.launch import find_launch

INTERRUPTED = 130
COMPUTED_TOGETHER = ("train", "resume")
"""Commands whose work the processes of a launcher share out; of the others, each would do the whole."""


def build_app() -> typer.Typer:
    app = new_group("tincture", Program)

    @command(app, "tincture", group=True)
    def root(
        session: Session,
        context: typer.Context,
        version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
    ) -> None:
        """Teach a frozen Stable Diffusion model a new subject or style, kept in one small file.

        Exit codes: 0 done, 1 failed, 2 bad usage, 130 interrupted after saving.
        """
        if version:
            session.show({"version": VERSION}, f"tincture {VERSION}")
            raise typer.Exit()
        if context.invoked_subcommand is None:
            show_help(context)
        else:
            _join_launch(session, context.invoked_subcommand)

    return app


def _join_launch(session: Session, name: str) -> None:
    """Lets one of several processes of a launcher speak for all; UsageError for what each would do by itself."""
    computes = name in COMPUTED_TOGETHER
    launch = find_launch(asked="" if computes else "1")
    if launch is None:
        return
    session.silent = launch.rank > 0
    if not computes:
        raise UsageError(
            f"{launch.by} says that a launcher started {launch.world_size} processes, and each would do the whole of "
            f"tincture {name}; start that once, without the launcher. Those that compute together are "
            f"{' and '.join(f'tincture {each}' for each in COMPUTED_TOGETHER)}."
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors go to stderr as one sentence."""
    session = Session()
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: session.say(f"warning: {with_flags(str(message))}")
        try:
            code = build_app()(
                args=None if arguments is None else list(arguments),
                prog_name="tincture",
                standalone_mode=False,
                obj=session,
            )
        except KeyboardInterrupt:
            session.say("interrupted")
            return INTERRUPTED
        except Exception as error:
            return _report(error, session)
    return code if isinstance(code, int) else 0


def _likely(error: TyperException, context: Any, session: Session) -> str:
    """What was meant where ``train`` is given a name without a kind."""
    wrong = re.fullmatch(r"No such command '(.+)'\.", error.format_message())
    if wrong is None or not context or context.command_path != "tincture train":
        return ""
    from tincture.cli.train import likely_command

    with contextlib.suppress(TinctureError):
        return f" {likely_command(wrong[1], session.workspace())}".rstrip()
    return ""


def _report(error: Exception, session: Session) -> int:
    if session.debug:
        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, TyperException):
        context = getattr(error, "ctx", None)  # bad usage knows the command it happened in
        likely, command_path = _likely(error, context, session), context.command_path if context else "tincture"
        session.say(f"error: {error.format_message()}{likely} See {command_path} --help.")
        return error.exit_code
    if isinstance(error, TinctureError):
        # Where the one that speaks for all is gone without a word, another one says so.
        session.silent = session.silent and not (isinstance(error, LostProcessError) and 0 in error.silent)
        session.say(f"error: {with_flags(error.sentence)}")
        return error.exit_code
    hint = "" if session.debug else " (run with --debug for the traceback)"
    session.say(f"error: {type(error).__name__}: {error}{hint}")
    return 1
