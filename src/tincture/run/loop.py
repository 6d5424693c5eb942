"""A run that stands ready: its steps with all that watches them, and the files that it leaves."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from tincture.adapters.adapter import Adapter
from tincture.errors import LostProcessError
from tincture.events import Callback, RunEnded
from tincture.kinds.registry import find_kind
from tincture.models.allocation import keeping_freed_memory
from tincture.run.best import BestFile, best_path
from tincture.run.checkpointer import Checkpointer
from tincture.run.components import (
    Components,
)
from tincture.run.data import preview_prompts
from tincture.run.duration import VALIDATING
from tincture.run.folder import (
    RunFolder,
    read_record,
    write_record,
)
from tincture.run.memory.fit import shortage_explained
from tincture.run.meter import Meter
from tincture.run.naming import naming_all
from tincture.run.optimizer_file import save_optimizer
from tincture.run.ownership import (
    noted,
    place_to_save,
)
from tincture.run.previews import Cards, Previewer
from tincture.run.records import (
    preview_drawing,
    provenance,
)
from tincture.run.result import COMPANIONS, MEASURED, RunResult, Trained
from tincture.run.timing import Workload, remember_run
from tincture.training import checkpoint
from tincture.training.checkpoint import Retention
from tincture.training.metrics import CsvLog, ValidationLog
from tincture.training.optimizer import effective_rate
from tincture.training.tracker_log import TrackerLog
from tincture.training.validation import Validator
from tincture.workspace import copy_name, path_beside


def run_to_its_end(
    run: Components,
    folder: RunFolder,
    paths: Sequence[Path],
    callbacks: Sequence[Callback],
    stop: threading.Event | None,
    trackers: Sequence[TrackerLog] = (),
) -> RunResult:
    """Makes the steps of a run that stands ready, while all that watches them writes its files.

    Args:
        paths: of the files of its adapters.
        trackers: that it has, see ``RunTrackers``.

    Raises:
        TrainingError: nothing is left to do, the run diverged, or memory ran out.
    """
    settings, trainer, folders = run.settings, run.trainer, folder.of_each(run.settings, paths)
    seconds, saver, processes = _Seconds(), _Saver(run, folders, paths), run.trainer.processes
    meter = Meter(
        run.time_left, settings.batch_size * settings.gradient_accumulation_steps, run.model.device, trainer.emit
    )
    watching: list[Callback] = [seconds, *([_log_of(run, folder)] if processes.is_main else ())]
    trainer.restore_last_good = lambda: checkpoint.restore_state(
        trainer, processes.from_main(lambda: checkpoint.newest_state(folder.states))
    )
    # Before states and the finished adapter are saved: the one holds what was measured, the other comes last.
    best = _validation(run, folders, paths, watching)
    watching.append(
        Checkpointer(
            trainer,
            folders,
            settings.save_every,
            saver.save_copies,
            saver.save_finished,
            copies=Retention(settings.keep_copies, settings.keep_copies_every),
            states=Retention(settings.keep_states, settings.keep_states_every),
        )
    )
    watching.append(_previewer(run, folder))
    watching += [run.time_left, meter, *trackers, *callbacks]
    with contextlib.ExitStack() as ending:
        ending.enter_context(shortage_explained(settings, run.model.device, lambda: run.estimator, str(folder.path)))
        ending.enter_context(_resumable(run, folder))
        if run.model.device.type == "cpu":
            ending.enter_context(keeping_freed_memory())
        interrupted = trainer.run(watching, stop)
    return processes.from_main(lambda: _ended(run, folder, paths, saver, best, interrupted, seconds.value, meter))


def _ended(
    run: Components,
    folder: RunFolder,
    paths: Sequence[Path],
    saver: _Saver,
    best: BestFile | None,
    interrupted: bool,
    seconds: float,
    meter: Meter,
) -> RunResult:
    """How a run ended, which is written down."""
    trainer = run.trainer
    _remember_times(run)
    loss, _ = trainer.window.window()
    first, *others = [
        Trained(member.kind, member.name, saved_at, found if best and (found := best_path(path)).exists() else None)
        for member, saved_at, path in zip(run.adapter.members(), saver.saved_at, paths, strict=True)
    ]
    result = RunResult(
        *(first.adapter_path, folder.path, trainer.global_step, loss, interrupted, seconds, trainer.ending),
        overflows=trainer.guard.overflows,
        divergences=trainer.guard.divergences,
        best_path=first.best_path,
        companions=tuple(others),
        measured={name: getattr(meter.latest, name) for name in MEASURED} if meter.latest else {},
    )
    _note_end(folder, result)
    return result


def _log_of(run: Components, folder: RunFolder) -> CsvLog:
    trainer = run.trainer
    finds_rate = effective_rate(trainer.optimizer) is not None
    return CsvLog(folder.csv, trainer.global_step, finds_rate=finds_rate, further=trainer.further_numbers)


@contextlib.contextmanager
def _resumable(run: Components, folder: RunFolder) -> Iterator[None]:
    """Where one of several processes is lost within, what was trained until then is saved."""
    trainer = run.trainer
    try:
        yield
    except LostProcessError as error:
        if not trainer.processes.is_main:
            raise
        trainer.read_losses()
        checkpoint.save_state(
            trainer, folder.states, Retention(run.settings.keep_states, run.settings.keep_states_every)
        )
        raise LostProcessError(
            f"{error.sentence} Its {trainer.global_step} steps are saved; tincture resume {str(folder.path)!r} goes on."
        ) from error


def _note_end(folder: RunFolder, result: RunResult) -> None:
    """Writes down how the run ended; a record without is that of a run which goes on, or was killed."""
    noted = ("adapter_path", "global_step", "interrupted", "ending", COMPANIONS)
    ended = {key: value for key, value in result.to_dict().items() if key in noted}
    write_record(folder.path, {**read_record(folder.path), "ended": ended})


def _validation(
    run: Components, folders: Sequence[RunFolder], paths: Sequence[Path], watching: list[Callback]
) -> BestFile | None:
    """Adds those who measure, log and keep the best adapter; returns the last."""
    if run.grids is None:
        return None
    every, patience = run.settings.validation_every, run.settings.early_stopping_patience
    validator = Validator(run.trainer, *run.grids, every=every, stage=VALIDATING, patience=patience)
    if not run.trainer.processes.is_main:
        watching.append(validator)
        return None
    best = BestFile(run, folders, paths, validator)
    watching += [ValidationLog(folders[0].validation_csv, validator.measured), validator, best]
    return best


def _remember_times(run: Components) -> None:
    """For later plans."""
    held_out, trained = run.grids or (None, None)
    predictions = held_out.predictions + trained.predictions if held_out and trained else 0
    device = run.model.device
    work = Workload(
        run.settings,
        run.model,
        run.adapter,
        run.dataset,
        run.lines,
        device,
        predictions,
        run.trainer.processes.world_size,
    )
    alone = not run.settings.cache_dir and run.grids is None and run.prior is None  # else they may be known, or others
    remember_run(work, run.time_left, encoded=len(run.dataset) if alone else 0)


class _Seconds:
    """How long the loop took."""

    value = math.nan

    def on_event(self, event: object) -> None:
        if isinstance(event, RunEnded):
            self.value = event.seconds


class _Saver:
    """Writes the files of all adapters, with what else belongs to each; gives their paths.

    Args:
        folders: the run's, as each of its adapters sees it.
        paths: of the adapters' files.

    Attributes:
        saved_at: where the finished adapters are: at their paths, unless another's work lies there.
    """

    def __init__(self, run: Components, folders: Sequence[RunFolder], paths: Sequence[Path]) -> None:
        self._run, self._folders, self._paths, self.saved_at = run, folders, paths, [*paths]

    def save_copies(self) -> list[Path]:
        """A copy of each in the run's folder, named by its own steps."""
        members = zip(self._run.adapter.members(), self._folders, strict=True)
        places = [(one, own.copies / f"{copy_name(one.name, one.step)}{own.suffix}") for one, own in members]
        return [written for member, path in places for written in self._save(member, path)]

    def save_finished(self) -> list[Path]:
        """Each at its own path, or beside it."""
        written = []
        for number, (member, folder) in enumerate(zip(self._run.adapter.members(), self._folders, strict=True)):
            own = self._paths[number]
            path = self.saved_at[number] = place_to_save(folder, member, own, list(member.files()))
            with noted(folder, member) if path == own else contextlib.nullcontext():
                written += self._save(member, path)
        return written

    def _save(self, member: Adapter, path: Path) -> list[Path]:
        run, files = self._run, member.files()
        paths = {more: path_beside(path, member.name, more) for more in files}
        for more, shown in files.items():
            made = provenance(run, member, shown)
            shown.save(paths[more], model_name=run.model.name, model_hash=run.model.hash, provenance=made)
        if run.settings.save_optimizer_state:
            beside = member.optimizer_beside
            save_optimizer(run.trainer.optimizer, member.parameters(), files[beside], paths[beside])
        return list(paths.values())


def _previewer(run: Components, folder: RunFolder) -> Previewer:
    settings = run.settings
    prompts = preview_prompts(settings, run.dataset, run.trainer.data.prompt)
    if not settings.preview_prompts:
        prompts = naming_all(settings, prompts, run.model, run.adapter)
    seed, every = settings.preview_seed, settings.preview_every
    shown = [member for member in run.adapter.members() if find_kind(member.kind).has_card]
    cards = [Cards(run.model, member, folder.image_embeddings) for member in shown if settings.preview_with_embedding]
    return Previewer(run.trainer, prompts, preview_drawing(settings), seed, folder.path, folder.images, every, cards)
