"""Which folder somebody means who wants to go on with a run, told without loading torch."""

from __future__ import annotations

import json
from pathlib import Path

from tincture.errors import TinctureError, UsageError
from tincture.run.folder import RECORD
from tincture.run.past.past_run import run_folders, state_steps
from tincture.settings.train import TrainSettings
from tincture.workspace import Workspace

MOST_NAMED = 5


def require_run_folder(given: Path | None, workspace: Workspace) -> Path:
    """The folder of a run that was given.

    Raises:
        UsageError: it is none; the likely command is named.
    """
    if given is None:
        raise UsageError(f"Missing argument 'RUN_DIR': the folder of the run to go on with. {_newest(workspace)}")
    if given.is_dir() and (given / RECORD).is_file():
        return given
    above = next((place for place in given.absolute().parents if (place / RECORD).is_file()), None)
    if given.exists() and above is not None:
        what = "a file" if given.is_file() else "a folder"
        raise UsageError(f"{given} is {what} of a run; give the folder of the run: {_command(above)}.")
    if not given.is_dir():
        raise UsageError(
            f"The run folder {str(given)!r} is not a folder; give the one that train showed. {_newest(workspace)}"
        )
    if inner := list(run_folders(given)):
        named = ", ".join(str(run.relative_to(given)) for run in inner[:MOST_NAMED])
        more = f" and {len(inner) - MOST_NAMED} more" if len(inner) > MOST_NAMED else ""
        raise UsageError(
            f"{given} is not the folder of a run, but holds runs: {named}{more}. The newest: {_command(inner[0])}."
        )
    return given  # whoever reads it says what is wrong with it


def _newest(workspace: Workspace) -> str:
    found = next((run for run in run_folders(workspace.logs) if _can_go_on(run)), None)
    if found is None:
        return f"There is none in {workspace.logs} that could go on."
    return f"The newest that can go on: {_command(found)}."


def _command(run: Path) -> str:
    return f"tincture resume {str(run)!r}"


def _can_go_on(run: Path) -> bool:
    try:
        settings = TrainSettings.from_dict(json.loads((run / RECORD).read_text(encoding="utf-8"))["settings"])
    except (OSError, ValueError, KeyError, TypeError, TinctureError):
        return False
    return max(state_steps(run), default=0) < settings.last_step
