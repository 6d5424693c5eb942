"""The training state of a run: all that a later step depends on, in one file written whole or not at all.

What is random needs no saving (see ``randomness``), so a state is the adapter's and the optimizer's numbers, the
gradient scaler's, the losses of the window, what the trainer's parts have to keep, and the step they belong to.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tincture.errors import FileFormatError, TinctureError
from tincture.formats.files import atomic_torch_save, safe_torch_load
from tincture.training.trainer import Trainer

_NAME = re.compile(r"step-(\d+)\.pt")


@dataclass(frozen=True)
class Retention:
    """Which files of a run stay, by their steps: the ``newest``, and those of a multiple of ``every``.

    Args:
        newest: how many; 0: all stay.
        every: 0: no others.
    """

    newest: int
    every: int = 0

    def dropped(self, steps: Iterable[int]) -> list[int]:
        """Those of ``steps`` that don't stay, newest first."""
        old = sorted(set(steps), reverse=True)[self.newest :] if self.newest else []
        return [step for step in old if not self.every or step % self.every]


TWO_STATES = Retention(2)
"""Should the newest be unreadable, the one before still is."""


def state_path(folder: Path, global_step: int) -> Path:
    return folder / f"step-{global_step:08d}.pt"


def list_states(folder: Path) -> list[tuple[int, Path]]:
    """The states in ``folder`` with their steps, newest first."""
    found = [(int(match[1]), path) for path in folder.glob("step-*.pt") if (match := _NAME.fullmatch(path.name))]
    return sorted(found, reverse=True)


def save_state(trainer: Trainer, folder: Path, retention: Retention = TWO_STATES) -> Path:
    """Writes the state after ``trainer.global_step`` into ``folder`` and drops those that need not stay."""
    state = {
        "global_step": trainer.global_step,
        "adapter_step": trainer.adapter.step,
        "adapter": trainer.adapter.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "grad_scaler": trainer.grad_scaler.state_dict(),
        "losses": trainer.window.state(),
        "parts": {name: part.state_dict() for name, part in trainer.parts.items()},
    }
    path = state_path(folder, trainer.global_step)
    atomic_torch_save(state, path)
    for step in retention.dropped(step for step, _ in list_states(folder)):
        state_path(folder, step).unlink(missing_ok=True)
    return path


def newest_state(folder: Path) -> dict[str, Any]:
    """The newest state in ``folder`` that is whole. Newer ones that are not are put aside, with a warning of each.

    Raises:
        FileFormatError: there is none.
    """
    faults: dict[Path, str] = {}
    for step, path in list_states(folder):
        try:
            state = safe_torch_load(path)
        except TinctureError as error:
            faults[path] = str(error)
            continue
        if isinstance(state, dict) and {"global_step", "adapter", "optimizer"} <= state.keys():
            for damaged, fault in faults.items():
                warnings.warn(f"{fault} {_put_aside(damaged)} The run goes on from step {step}.", stacklevel=2)
            return state
        faults[path] = f"{path} does not hold a training state."
    reason = " ".join(faults.values()) or "The folder has no file step-NUMBER.pt."
    raise FileFormatError(f"No training state in {folder} can be read, so the run cannot be resumed. {reason}")


def _put_aside(path: Path) -> str:
    """Gives a damaged state a name that no later one takes, and is not counted among them; says so."""
    try:
        aside = path.replace(path.with_name(f"{path.name}.damaged"))
    except OSError:
        return "It stays where it is."
    return f"It was put aside as {aside.name}."


def restore_state(trainer: Trainer, state: dict[str, Any]) -> None:
    """Puts a state into a trainer that was made from the same settings."""
    trainer.adapter.load_state_dict(state["adapter"])
    trainer.adapter.step = state["adapter_step"]
    trainer.optimizer.load_state_dict(state["optimizer"])
    trainer.grad_scaler.load_state_dict(state["grad_scaler"])
    trainer.global_step = state["global_step"]
    trainer.window.restore(state["losses"])
    trainer.restore_parts(state.get("parts", {}))  # states of before there were parts have none
