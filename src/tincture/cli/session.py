"""What every command shares: the options --root, --debug and --json, and the way results are shown."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import re
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

from tincture.settings.paths import pasted_path
from tincture.workspace import ROOT_VARIABLE, Workspace

Parameters = Sequence[inspect.Parameter]


@dataclass
class Session:
    """One call of the program. Options may stand before or behind the command's name; the later one wins.

    ``silent`` is that of a process which computes with others of a launcher: one of them says what there is to say.
    """

    root: Path | None = None
    debug: bool = False
    json: bool = False
    silent: bool = False

    def update(self, root: Path | None, debug: bool, json: bool) -> None:
        self.root = root or self.root
        self.debug = self.debug or debug
        self.json = self.json or json

    def workspace(self) -> Workspace:
        root = self.root or os.environ.get(ROOT_VARIABLE)
        return Workspace.open(pasted_path(str(root)) if root else None)

    def given_workspace(self) -> Workspace | None:
        """The one that the user named; None when only the current folder is left."""
        return self.workspace() if self.root or os.environ.get(ROOT_VARIABLE) else None

    def show(self, result: Mapping[str, Any] | Sequence[Mapping[str, Any]], text: str) -> None:
        """Write a result to stdout: for a program when --json was given, else for a person."""
        if not self.silent:
            print(json.dumps(result, indent=2, default=str, ensure_ascii=False) if self.json else text)

    def say(self, text: str) -> None:
        """Write a remark to stderr, where it does not mix with results; a terminal that was closed goes without."""
        with contextlib.suppress(OSError):
            if not self.silent:
                print(text, file=sys.stderr)


def with_flags(sentence: str) -> str:
    """The same, with flags where it names settings as all callers know them: "the setting log_dir" is --log-dir."""
    named = re.compile(r"\bthe setting ([a-z]\w*)|`([a-z][a-z0-9_]*)`")
    return named.sub(lambda found: "--" + (found[1] or found[2]).replace("_", "-"), sentence)


def shared_options(
    root: Annotated[
        Path | None,
        typer.Option(help=f"Workspace folder, laid out like a webui's; else {ROOT_VARIABLE} or the current folder."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Write the result as JSON.")] = False,
) -> None:
    """The options of every command; only the signature is used."""


def new_group(name: str, cls: type[TyperGroup] = TyperGroup) -> typer.Typer:
    """A group of commands. Plain help, not Rich's: it shows names in full and needs half the time."""
    return typer.Typer(name=name, cls=cls, rich_markup_mode=None, pretty_exceptions_enable=False)


class PanelCommand(TyperCommand):
    """A command whose options are shown under the headings given as `rich_help_panel`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        panels: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            heading = getattr(parameter, "rich_help_panel", None)
            heading = heading or ("Arguments" if parameter.param_type_name == "argument" else "Options")
            if record := parameter.get_help_record(ctx):
                panels.setdefault(heading, []).append(record)
        for heading, records in panels.items():
            with formatter.section(heading):
                formatter.write_dl(records, col_max=34)


def show_help(context: typer.Context) -> None:
    """Answer a call that asks for nothing with the help, as bad usage."""
    print(context.get_help())
    raise typer.Exit(2)


def parameters_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters of `function` by keyword, their annotations evaluated."""
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    return [parameter.replace(annotation=hints[parameter.name]) for parameter in parameters]


def command(
    app: typer.Typer, name: str, *, extra: Parameters = (), group: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register `function(session, ...)` as a command with the shared options.

    Args:
        app: where the command goes.
        name: the command's name.
        extra: parameters made by a program, handed to the function by keyword beside those it names.
        group: register as what `app` does when called without a sub-command; the function gets `context` too.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        own = [parameter for parameter in parameters_of(function) if parameter.kind is not parameter.VAR_KEYWORD]
        own = [parameter for parameter in own if parameter.name not in ("session", "context")]
        shared = parameters_of(shared_options)

        def run(context: typer.Context, **given: Any) -> None:
            session: Session = context.obj
            session.update(**{parameter.name: given.pop(parameter.name) for parameter in shared})
            if group:
                given["context"] = context
            function(session, **given)

        context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        _sign(run, function, [context, *own, *extra, *shared])
        app.callback(invoke_without_command=True)(run) if group else app.command(name, cls=PanelCommand)(run)
        return function

    return register


def _sign(run: Callable[..., None], function: Callable[..., None], parameters: Parameters) -> None:
    by_keyword = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    signed = cast(Any, run)
    signed.__name__ = function.__name__
    signed.__doc__ = function.__doc__
    signed.__signature__ = inspect.Signature(by_keyword)
    signed.__annotations__ = {parameter.name: parameter.annotation for parameter in by_keyword}
