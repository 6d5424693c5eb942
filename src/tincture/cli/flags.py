"""Command-line flags made from the fields of settings."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tincture.settings.fields import FieldSpec
from tincture.settings.paths import pasted_path


def flag(spec: FieldSpec, *, hidden: bool = False, ranged: bool = False) -> inspect.Parameter:
    """The command-line option of one setting; None when it was not given, so that a run file can say it.

    Numbers of a list are one text, with commas between them.

    Args:
        ranged: whether the command line itself refuses a number out of the setting's bounds.
    """
    name = f"--{(spec.alias or spec.name).replace('_', '-')}"
    names = [f"{name}/--no-{name[2:]}"] if spec.type is bool else [name]
    if spec.repeated and spec.type is str and name.endswith("s"):
        names.append(name.removesuffix("s"))
    value_type: Any = typing.Literal[spec.choices] if spec.choices else spec.type
    if spec.repeated:
        value_type = list[str] if spec.type is str else str
    help_text = spec.help + _default_text(spec)
    bounds = spec.bounds if ranged and not spec.repeated else None
    limits: dict[str, Any] = {"min": bounds.minimum, "max": bounds.maximum} if bounds else {}
    option = typer.Option(
        *names, help=help_text, rich_help_panel=spec.group, show_default=False, hidden=hidden, **limits
    )
    return inspect.Parameter(
        spec.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[value_type | None, option]
    )


def typed_path(path: Path | str) -> Path:
    """A path of the command line that is no setting, as people paste it; see ``pasted_path``."""
    return Path(pasted_path(str(path)))


def given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that stood on the command line."""
    return {name: value for name, value in flags.items() if value is not None and value != []}


def _default_text(spec: FieldSpec) -> str:
    if spec.required or spec.default in (None, "", ()):
        return ""
    default = ", ".join(spec.default) if isinstance(spec.default, tuple) else str(spec.default)
    shown = {True: "yes", False: "no"}[spec.default] if spec.type is bool else default
    return f" [default: {shown if shown.strip() else repr(shown)}]"
