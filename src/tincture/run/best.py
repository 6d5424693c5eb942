"""The best adapter of a run by its validation: ``NAME-best`` in the run's folder and beside the finished adapter."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tincture.errors import TinctureError, UsageError
from tincture.events import CheckpointSaved, Event, RolledBack, RunEnded, RunStarted, Validated
from tincture.run.components import Components, load_adapter
from tincture.run.folder import RunFolder
from tincture.run.records import BEST, provenance
from tincture.run.split import find_folders
from tincture.settings.train import TrainSettings
from tincture.training.validation import Validator
from tincture.workspace import path_beside


def best_path(adapter_path: Path) -> Path:
    """Where the best one of the adapter in this file goes."""
    return path_beside(adapter_path, adapter_path.stem, "-best")


def require_place(settings: TrainSettings, adapter_path: Path) -> None:
    """Makes sure, before anything slow, that a run can be validated if it is to be.

    Raises:
        UsageError: folders and settings contradict each other, see ``find_folders``; or something else has the name
            that the best version of the adapter gets.
    """
    path = best_path(adapter_path)
    if find_folders(settings).are_validated and path.exists() and not _is_best_of(path, settings.kind, adapter_path):
        raise UsageError(
            f"{path} is there, and was not left by a training of {adapter_path.stem!r}, whose best version by "
            "validation would get that name; move or rename it, or train without validation (--validation-every 0)."
        )


def _is_best_of(path: Path, kind: str, adapter_path: Path) -> bool:
    try:
        made: Any = load_adapter(kind, path, path.stem).provenance.get(BEST)
    except TinctureError:
        return False
    return isinstance(made, Mapping) and made.get("of") == adapter_path.stem


class BestFile:
    """Writes the best adapter into the run's folder as soon as it is found, and beside the finished one at the end.

    The weights come from the run's states, by way of ``validator``: a run that goes on from an earlier state has that
    state's best one again, whatever was found afterwards.
    """

    def __init__(self, run: Components, folder: RunFolder, adapter_path: Path, validator: Validator) -> None:
        self.run, self.folder, self.validator = run, folder, validator
        self.path = best_path(adapter_path)
        self._copy = folder.copies / self.path.name
        self._of = adapter_path
        self._written: Validated | None = None
        # An object of its own: the run's will be attached, and have other weights.
        self._adapter = copy.deepcopy(run.adapter.published()).to("cpu")
        self._adapter.name = self.path.stem

    def on_event(self, event: Event) -> None:
        best = self.validator.best
        if best is None:
            return
        if isinstance(event, RunStarted | Validated | RolledBack) and best != self._written:
            self._save(self._copy, best)
            self._written = best
        elif isinstance(event, RunEnded):
            self._publish(best)

    def _publish(self, best: Validated) -> None:
        # It may have come in the meantime.
        if self.path.exists() and not _is_best_of(self.path, self.run.settings.kind, self._of):
            warnings.warn(f"{self.path} was made by somebody else meanwhile; the best is {self._copy}.", stacklevel=2)
            return
        self._save(self.path, best)
        self.run.trainer.emit(CheckpointSaved(best.global_step, self.path))

    def _save(self, path: Path, best: Validated) -> None:
        model = self.run.model
        adapter = self._adapter
        adapter.load_state_dict(self.validator.best_weights)
        adapter.step = best.global_step
        found = {
            "of": self._of.stem,
            "step": best.global_step,
            "validation_loss": best.loss,
            "validation_error": best.error,
        }
        about = {**provenance(self.run, self.run.adapter.published()), BEST: found}
        adapter.save(path, model_name=model.name, model_hash=model.hash, provenance=about)
