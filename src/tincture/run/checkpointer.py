"""When a run writes copies of its adapters and training states, and which of them stay."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from tincture.adapters.adapter import Adapter
from tincture.errors import DivergedError
from tincture.events import CheckpointSaved, Event, RolledBack, RunEnded, RunStarted, Stage, StepEnd
from tincture.run.duration import SAVING
from tincture.run.folder import RunFolder
from tincture.training.checkpoint import TWO_STATES, Retention, save_state
from tincture.training.trainer import Trainer
from tincture.workspace import parse_copy_name

ALL = Retention(0)


class Checkpointer:
    """Saves adapter copies and training states every ``every`` steps (0: only at the end), and the adapter at the end.

    Of several processes the main one saves.

    Args:
        folders: the run's, as each of its adapters sees it.
        save_copies: writes a copy of each adapter; gives the paths of all files.
        save_finished: the same of the finished adapters.
        copies: which copies stay.
        states: which states stay.
    """

    def __init__(
        self,
        trainer: Trainer,
        folders: Sequence[RunFolder],
        every: int,
        save_copies: Callable[[], list[Path]],
        save_finished: Callable[[], list[Path]],
        *,
        copies: Retention = ALL,
        states: Retention = TWO_STATES,
    ) -> None:
        self.trainer, self.folders, self.every = trainer, folders, every
        self.save_copies, self.save_finished = save_copies, save_finished
        self.copies, self.states = copies, states

    def on_event(self, event: Event) -> None:
        copies = isinstance(event, StepEnd) and self.every and event.global_step % self.every == 0
        if copies or isinstance(event, RunStarted | RolledBack | RunEnded):
            if not self.trainer.processes.is_main:
                self._check()  # what ends one of the processes ends all of them at the same step
                return
            with Stage(self.trainer.emit, SAVING):
                self._save_at(event)

    def _save_at(self, event: Event) -> None:
        if isinstance(event, RunStarted | RolledBack):
            # A run that is killed before its first copy can be resumed too, and one that went back stays there.
            self._save_state()
        elif isinstance(event, StepEnd):
            self._check()
            self._note_saved(self.save_copies())
            self._save_state()
            for member, folder in zip(self.trainer.adapter.members(), self.folders, strict=True):
                self._drop_copies(member, folder)
        elif isinstance(event, RunEnded):
            self._check()
            # The state first: if the adapter cannot be written, a resume still can write it.
            self._save_state()
            self._note_saved(self.save_finished())

    def _save_state(self) -> None:
        save_state(self.trainer, self.folders[0].states, self.states)

    def _note_saved(self, paths: Sequence[Path]) -> None:
        for written in paths:
            self.trainer.emit(CheckpointSaved(self.trainer.global_step, written))

    def _drop_copies(self, member: Adapter, folder: RunFolder) -> None:
        by_step: dict[int, list[Path]] = {}  # of the run: it is the adapter's own that its copies are named by
        before = member.step - self.trainer.global_step
        names = {adapter.name for adapter in member.files().values()}
        for path in folder.copies.glob(f"*{folder.suffix}"):
            parsed = parse_copy_name(path.stem)
            if parsed is not None and parsed[0] in names:
                by_step.setdefault(parsed[1] - before, []).append(path)
        for path in (path for step in self.copies.dropped(by_step) for path in by_step[step]):
            path.unlink(missing_ok=True)
            path.with_name(f"{path.name}.optim").unlink(missing_ok=True)

    def _check(self) -> None:
        """Nothing is saved that has diverged."""
        self.trainer.read_losses()
        for parameter in self.trainer.adapter.parameters():
            if not math.isfinite(torch.linalg.vector_norm(parameter.detach()).item()):
                raise DivergedError(
                    f"The trained weights became NaN or infinite by step {self.trainer.global_step}; nothing was "
                    "overwritten. Lower the learning rate or clip the gradients (--clip-grad-mode norm)."
                )
