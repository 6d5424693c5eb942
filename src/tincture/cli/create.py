"""`tincture create`: new adapter files, a command for each kind, with a flag for each of its options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from tincture.cli.models import named_model
from tincture.cli.session import Session, command, new_group, parameters_of, show_help
from tincture.kinds.registry import AdapterKind, Option, any_of, kind_names, kinds
from tincture.settings.number_lists import typed_numbers
from tincture.settings.paths import pasted_path


def register(app: typer.Typer) -> None:
    group = new_group("create")
    create.__doc__ = f"Make a new {any_of(kind_names())} file."
    command(group, "create", group=True)(create)
    for kind in kinds():
        name, *others = parameters_of(_of_every_kind)
        command(group, kind.name, extra=[name, *map(_flag, kind.options), *others])(_maker(kind))
    app.add_typer(group)


def create(session: Session, context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        show_help(context)


def _of_every_kind(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name; also the file's name.")],
    model: Annotated[
        str,
        typer.Option(
            help="Base model: picto, a checkpoint file, a diffusers folder, or a name in the workspace; else its only "
            "or last used one, or picto where there is none."
        ),
    ] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file of that name.")] = False,
) -> None:
    """What is chosen for a new adapter of any kind; only the signature is used."""


def _maker(kind: AdapterKind) -> Callable[..., None]:
    def make(session: Session, **given: Any) -> None:
        workspace, name = session.workspace(), given.pop("name")
        given["model"] = pasted_path(given["model"])
        workspace.adapter_path(kind.name, name)  # a wrong name is told before anything heavy is loaded
        options = {option.name: _value(option, given.pop(option.name)) for option in kind.options}
        from tincture import recipe

        if not options.get("sizes"):
            given["model"] = named_model(session, given["model"], workspace)
        path = recipe.create(kind.name, name, workspace=workspace, **options, **given)
        session.show({"kind": kind.name, "path": str(path)}, f"made {path}")

    make.__doc__ = f"Make a new {kind.title} in ROOT/{kind.folder}."
    return make


def _flag(option: Option) -> inspect.Parameter:
    """Numbers are typed with commas between them."""
    default, named = option.default, option.flags or ((option.flag,) if isinstance(option.default, bool) else ())
    if option.several:
        default = ",".join(f"{number:g}" for number in option.default or ())
    made = typer.Option(*named, help=option.help, **option.flag_bounds)
    annotation: Any = Annotated[type(default), made]
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _value(option: Option, given: Any) -> Any:
    if not option.several:
        return given
    if option.default is None and not given:
        return None
    return typed_numbers(option.flag, given, whole=option.several is int, or_word=option.or_word)
