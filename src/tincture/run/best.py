"""The best adapter of a run by its validation: ``NAME-best`` in the run's folder and beside the finished adapter."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tincture.adapters.adapter import Adapter
from tincture.errors import TinctureError, UsageError
from tincture.events import CheckpointSaved, Event, RolledBack, RunEnded, RunStarted, Validated
from tincture.run.averages import check_beside
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


def check_places(settings: TrainSettings, adapter: Adapter, paths: Sequence[Path]) -> None:
    """Makes sure that all files which a run adds beside its adapters' are its own to write.

    Raises:
        UsageError: see ``check_beside`` and ``require_place``.
    """
    for member, path in zip(adapter.members(), paths, strict=True):
        check_beside(settings, member, path)
        require_place(settings, member.kind, path)


def require_place(settings: TrainSettings, kind: str, adapter_path: Path) -> None:
    """Makes sure, before anything slow, that a run can be validated if it is to be.

    Raises:
        UsageError: folders and settings contradict each other, see ``find_folders``; or something else has the name
            that the best version of the adapter gets.
    """
    path = best_path(adapter_path)
    if find_folders(settings).are_validated and path.exists() and not _is_best_of(path, kind, adapter_path):
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
    """Writes the best adapters into the run's folder as soon as they are found, and beside the finished at the end.

    The weights come from the run's states, by way of ``validator``: a run that goes on from an earlier state has that
    state's best one again, whatever was found afterwards.

    Args:
        folders: the run's, as each of its adapters sees it.
        adapter_paths: of the adapters' files.

    Attributes:
        paths: where the best of each goes at the end.
    """

    def __init__(
        self, run: Components, folders: Sequence[RunFolder], adapter_paths: Sequence[Path], validator: Validator
    ) -> None:
        self.run, self.folders, self.validator = run, folders, validator
        self.paths = [best_path(path) for path in adapter_paths]
        self._of = adapter_paths
        self._written: Validated | None = None
        # An object of its own: the run's will be attached, and have other weights.
        self._adapter = copy.deepcopy(run.adapter.published()).to("cpu")
        for member, path in zip(self._adapter.members(), self.paths, strict=True):
            member.name = path.stem

    def on_event(self, event: Event) -> None:
        best = self.validator.best
        if best is None:
            return
        if isinstance(event, RunStarted | Validated | RolledBack) and best != self._written:
            for folder, path in zip(self.folders, self.paths, strict=True):
                self._save(folder, folder.copies / path.name, best)
            self._written = best
        elif isinstance(event, RunEnded):
            for folder, path in zip(self.folders, self.paths, strict=True):
                self._publish(folder, path, best)

    def _publish(self, folder: RunFolder, path: Path, best: Validated) -> None:
        # It may have come in the meantime.
        if path.exists() and not _is_best_of(path, folder.kind, self._of[folder.number]):
            written = folder.copies / path.name
            warnings.warn(f"{path} was made by somebody else meanwhile; the best is {written}.", stacklevel=2)
            return
        self._save(folder, path, best)
        self.run.trainer.emit(CheckpointSaved(best.global_step, path))

    def _save(self, folder: RunFolder, path: Path, best: Validated) -> None:
        model, member = self.run.model, self.run.adapter.members()[folder.number]
        self._adapter.load_state_dict(self.validator.best_weights)
        self._adapter.step = best.global_step
        adapter = self._adapter.members()[folder.number]
        found = {
            "of": self._of[folder.number].stem,
            "step": best.global_step,
            "validation_loss": best.loss,
            "validation_error": best.error,
        }
        about = {**provenance(self.run, member, member.published()), BEST: found}
        adapter.save(path, model_name=model.name, model_hash=model.hash, provenance=about)
