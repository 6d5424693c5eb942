"""`tincture serve`. The flags are made from the fields of the server's settings."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tincture.cli.flags import flag, given
from tincture.cli.session import Session, command
from tincture.errors import UsageError
from tincture.settings.server import SERVER_FIELDS, ServerSettings
from tincture.settings.toml import read_toml

VARIABLES = {"auth": "TINCTURE_AUTH", "token": "TINCTURE_TOKEN"}

Config = Annotated[Path | None, typer.Option(help="File (TOML) with settings; variables and flags win over it.")]


def register(app: typer.Typer) -> None:
    command(app, "serve", extra=[flag(spec) for spec in SERVER_FIELDS.values()])(serve)


def serve(session: Session, config: Config = None, **flags: Any) -> None:
    """Serve the HTTP API, a queue of jobs and the web page, until Ctrl-C.

    Jobs survive: what runs when the server ends, or the power goes, goes on at the next start exactly where it
    stopped. Every flag is also a key of the file that --config names, with _ for -.
    """
    settings = server_settings(config, flags, os.environ)
    workspace = session.workspace()
    from tincture.server.requests.places import allowed_folder

    for folder in settings.allow_dir:
        allowed_folder(folder)
    try:
        from tincture.server.serving import serve as serve_workspace
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] == "tincture":
            raise
        raise UsageError(
            f"The server needs {error.name}, which is not installed: pip install 'tincture[ui]', "
            "or 'tincture[server]' for a server without the page."
        ) from None

    def listening(address: Mapping[str, Any]) -> None:
        if session.json:
            session.show(address, "")
            sys.stdout.flush()  # who started the server waits for it

    code = serve_workspace(workspace, settings, session.say, listening)
    if code:
        raise typer.Exit(code)


def server_settings(config: Path | None, flags: Mapping[str, Any], environment: Mapping[str, str]) -> ServerSettings:
    """Flags win over the variables of the environment, these over the file."""
    from_file = read_toml(config) if config else {}
    from_variables = {name: environment[variable] for name, variable in VARIABLES.items() if environment.get(variable)}
    return ServerSettings.from_dict({**from_file, **from_variables, **given(flags)}, source=str(config or ""))
