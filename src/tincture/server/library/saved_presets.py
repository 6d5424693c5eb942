"""Presets of trainings as the server has them: those that are built in, and the workspace's own, one file each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tincture.errors import StorageError, UsageError
from tincture.formats.files import write_text
from tincture.server.errors import ConflictError, NotFoundError
from tincture.server.requests.places import Places
from tincture.settings.presets import NAMED, NOT_IN_ONE, SUFFIX, Preset, find_preset, own_presets
from tincture.settings.run_file import written
from tincture.settings.train import TrainSettings
from tincture.workspace import clean_name

MOST = 500
"""Own presets of a workspace."""
_OPEN = {"name": "any", "data": "."}
"""What a run must have, where it is not chosen yet."""


class Presets:
    """The presets of a workspace.

    Args:
        places: which paths settings may name, and the workspace.
    """

    def __init__(self, places: Places) -> None:
        self._places = places

    def own(self) -> list[str]:
        """Names of those that were saved, sorted."""
        return own_presets(self._places.workspace)

    def find(self, name: str) -> Preset:
        """The preset called ``name``; UsageError names those that there are, or says what is wrong with its file."""
        return find_preset(name, self._places.workspace)

    def save(self, name: str, settings: Mapping[str, Any], *, overwrite: bool = False) -> str:
        """Saves settings of a training, checked, under a name; returns that as it is saved.

        What is trained, on which pictures, with which model and where is left out.

        Raises:
            UsageError: the name or a setting is not allowed.
            ForbiddenPathError: a path leads out.
            ConflictError: there is one of this name, or there are too many.
            StorageError: the file cannot be written.
        """
        name = clean_name(name)
        if name in NAMED:
            raise UsageError(f"The preset {name!r} is built in; choose another name.")
        own = self.own()
        if name in own and not overwrite:
            raise ConflictError(f"There is a preset {name!r} already; choose another name, or allow overwriting it.")
        if len(own) >= MOST and name not in own:
            raise ConflictError(f"There are {MOST} presets already; delete one first.")
        text = self.run_file({**settings, **_OPEN, "model": "", "device": "auto"}, NOT_IN_ONE)
        write_text(self._file(name), text)
        return name

    def delete(self, name: str) -> None:
        """Deletes one that was saved; NotFoundError, StorageError."""
        if name not in self.own():
            there = f"there are {', '.join(self.own())}" if self.own() else "none was saved"
            raise NotFoundError(f"There is no preset {name!r} that could be deleted; {there}.")
        try:
            self._file(name).unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"The preset {name!r} cannot be deleted: {error.strerror or error}.") from error

    def run_file(self, settings: Mapping[str, Any], without: tuple[str, ...] = ()) -> str:
        """The settings as the text of a run file, checked, with every path in them resolved.

        Args:
            settings: fields of ``TrainSettings``; name and pictures may be missing, and then are in the file too.
            without: settings that the file leaves open.
        """
        lacking = tuple(name for name in _OPEN if not settings.get(name))
        values = {**settings, **{name: _OPEN[name] for name in lacking}}
        return written(self._as_usual(self._places.train_settings(values)), {*without, *lacking})

    def _as_usual(self, settings: TrainSettings) -> TrainSettings:
        """The folder of logs is named only where it is another one than usual."""
        usual = settings.log_dir and Path(settings.log_dir) == self._places.path(self._places.workspace.logs)
        return settings.replace(log_dir="") if usual else settings

    def _file(self, name: str) -> Path:
        return self._places.workspace.presets / f"{name}{SUFFIX}"
