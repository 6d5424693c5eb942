"""The folder of a run: ``LOGS/DATE/NAME/`` with everything that a run writes, laid out as the webui does.

run.json                    settings and what else a resume needs
settings-DATE-TIME.json     the webui's settings file
start.pt                    the adapter as it was before the first step (or .safetensors, as its file has it)
state/step-NUMBER.pt        training states
embeddings/ hypernetworks/  copies of the adapter, NAME-STEP.pt, and the best by validation, NAME-best.pt
images/                     previews and their contact sheet
KIND_loss.csv, validation_loss.csv, tensorboard/ logs
preview-now                 asks for previews after the present step, see preview_request
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch

from tincture.errors import DivergedError, FileFormatError, StorageError
from tincture.events import CheckpointSaved, Event, RolledBack, RunEnded, RunStarted, Stage, StepEnd
from tincture.formats.files import write_text
from tincture.kinds.registry import find_kind
from tincture.run.duration import SAVING
from tincture.training.checkpoint import TWO_STATES, Retention, save_state
from tincture.training.trainer import Trainer
from tincture.workspace import ADAPTER_SUFFIX, copy_name, parse_copy_name

ALL = Retention(0)
RECORD = "run.json"
_CHECKSUM = "checksum"
_RECORDED = {"settings", "root", "adapter_path", "model_hash", "data_hash", "template_lines"}


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """Paths of one run; ``suffix`` is that of the adapter's file, which its copies are like."""

    path: Path
    kind: str
    suffix: str = ADAPTER_SUFFIX

    @classmethod
    def create(cls, logs: Path, kind: str, name: str, suffix: str = ADAPTER_SUFFIX) -> RunFolder:
        """Makes a new folder under today's date; a name that is taken gets a number, and nothing is overwritten.

        Raises:
            StorageError: the folder cannot be made.
        """
        day = logs / datetime.date.today().isoformat()
        # Made and not merely chosen: a run that begins at the same moment takes the next number.
        return cls(next(path for path in _numbered(day / name) if _made(path)), kind, suffix)

    @property
    def record(self) -> Path:
        return self.path / RECORD

    @property
    def start(self) -> Path:
        return self.path / f"start{self.suffix}"

    @property
    def states(self) -> Path:
        return self.path / "state"

    @property
    def copies(self) -> Path:
        return self.path / find_kind(self.kind).plural

    @property
    def images(self) -> Path:
        return self.path / "images"

    @property
    def image_embeddings(self) -> Path:
        return self.path / "image_embeddings"

    @property
    def csv(self) -> Path:
        return self.path / find_kind(self.kind).losses

    @property
    def validation_csv(self) -> Path:
        return self.path / "validation_loss.csv"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"


def _numbered(path: Path) -> Iterator[Path]:
    yield path
    for number in itertools.count(2):
        yield path.with_name(f"{path.name}-{number}")


def _made(path: Path) -> bool:
    """Makes a folder and those above it; False when something of that name is there already."""
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        return False
    except OSError as error:
        raise StorageError(
            f"The folder {path} could not be made: {error.strerror or error}. Choose another one by --log-dir."
        ) from error
    return True


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes ``values`` as indented JSON, whole or not at all."""
    write_text(path, _laid_out(values))


def _laid_out(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def write_record(folder: Path, values: Mapping[str, Any]) -> None:
    """Writes ``run.json`` in ``folder``, with a checksum of ``values``."""
    write_json(folder / RECORD, {**values, _CHECKSUM: _checksum(values)})


def _checksum(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def read_record(folder: Path) -> dict[str, Any]:
    """What ``run.json`` in ``folder`` says, without its checksum.

    Raises:
        FileFormatError: it is missing or damaged.
    """
    path = folder / RECORD
    try:
        text = path.read_text(encoding="utf-8")
        record = json.loads(text)
    except FileNotFoundError:
        raise FileFormatError(
            f"{folder} is not the folder of a run: it has no run.json. "
            "The folder of a run looks like textual_inversion/DATE/NAME."
        ) from None
    except (OSError, ValueError) as error:
        raise FileFormatError(f"{path} cannot be read: {error}.") from error
    missing = _RECORDED - record.keys() if isinstance(record, dict) else _RECORDED
    if missing:
        raise FileFormatError(f"{path} does not describe a run: it lacks {', '.join(sorted(missing))}.")
    checksum = record.pop(_CHECKSUM, None)
    # A program that changed it on purpose lays it out in its own way; damage does not.
    if checksum not in (None, _checksum(record)) and text == _laid_out({**record, _CHECKSUM: checksum}):
        raise FileFormatError(
            f"{path} is damaged: its checksum shows that it is not what was written. Put back an earlier copy of it; "
            f"if you changed it yourself, take out its line with {_CHECKSUM!r}."
        )
    return cast(dict[str, Any], record)


class Checkpointer:
    """Saves adapter copies and training states every ``every`` steps (0: only at the end), and the adapter at the end.

    Args:
        save: writes all files that belong to an adapter's path, with their provenance; gives their paths.
        adapter_path: where the finished adapter goes.
        copies: which copies stay.
        states: which states stay.
    """

    def __init__(
        self,
        trainer: Trainer,
        folder: RunFolder,
        adapter_path: Path,
        every: int,
        save: Callable[[Path], list[Path]],
        *,
        copies: Retention = ALL,
        states: Retention = TWO_STATES,
    ) -> None:
        self.trainer, self.folder, self.adapter_path, self.every, self.save = trainer, folder, adapter_path, every, save
        self.copies, self.states = copies, states

    def on_event(self, event: Event) -> None:
        copies = isinstance(event, StepEnd) and self.every and event.global_step % self.every == 0
        if copies or isinstance(event, RunStarted | RolledBack | RunEnded):
            with Stage(self.trainer.emit, SAVING):
                self._save_at(event)

    def _save_at(self, event: Event) -> None:
        if isinstance(event, RunStarted | RolledBack):
            # A run that is killed before its first copy can be resumed too, and one that went back stays there.
            self._save_state()
        elif isinstance(event, StepEnd):
            self._check()
            self._save_adapter(
                self.folder.copies / (copy_name(self.trainer.adapter.name, event.global_step) + self.folder.suffix)
            )
            self._save_state()
            self._drop_copies()
        elif isinstance(event, RunEnded):
            self._check()
            # The state first: if the adapter cannot be written, a resume still can write it.
            self._save_state()
            self._save_adapter(self.adapter_path)

    def _save_state(self) -> None:
        save_state(self.trainer, self.folder.states, self.states)

    def _save_adapter(self, path: Path) -> None:
        for written in self.save(path):
            self.trainer.emit(CheckpointSaved(self.trainer.global_step, written))

    def _drop_copies(self) -> None:
        by_step: dict[int, list[Path]] = {}
        names = {adapter.name for adapter in self.trainer.adapter.files().values()}
        for path in self.folder.copies.glob(f"*{self.folder.suffix}"):
            parsed = parse_copy_name(path.stem)
            if parsed is not None and parsed[0] in names:
                by_step.setdefault(parsed[1], []).append(path)
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
