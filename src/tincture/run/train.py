"""A run: a new one, or one that goes on where it stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tincture.adapters.adapter import Adapter
from tincture.errors import FileFormatError, TinctureError, UsageError
from tincture.events import Callback, RunEnded, RunPrepared, emitter
from tincture.models.arithmetic import Arithmetic
from tincture.models.devices import resolve_device
from tincture.models.threads import computing_threads
from tincture.run.averages import check_beside, remark_average
from tincture.run.best import BestFile, require_place
from tincture.run.components import (
    Components,
    check_steps,
    load_adapter,
    prepare,
)
from tincture.run.data import load_template, preview_prompts
from tincture.run.duration import VALIDATING
from tincture.run.folder import RECORD, Checkpointer, RunFolder, read_record, write_record
from tincture.run.memory.fit import shortage_explained
from tincture.run.optimizer_file import load_optimizer, save_optimizer
from tincture.run.ownership import (
    TrainingLock,
    adapter_lock,
    is_own,
    noted,
    place_to_save,
    refuse_foreign,
    run_lock,
)
from tincture.run.presence import find_adapter
from tincture.run.previews import Cards, Previewer
from tincture.run.records import arithmetics, preview_drawing, provenance, write_records
from tincture.run.relocate import relocated
from tincture.run.timing import Workload, remember_run
from tincture.settings.groups.machine import MEMORY_SETTINGS
from tincture.settings.train import TrainSettings
from tincture.training import checkpoint
from tincture.training.checkpoint import Retention
from tincture.training.metrics import CsvLog, TensorBoardLog, ValidationLog
from tincture.training.trainer import Trainer
from tincture.training.validation import Validator
from tincture.workspace import Workspace, path_beside


@dataclasses.dataclass(frozen=True)
class RunResult:
    """How a run ended.

    ``loss`` is the mean over the window, NaN when no step was made; ``ending`` says why a run that was not interrupted
    ended before its last step, and is empty otherwise. ``overflows`` steps were made again since their gradients
    overflowed in float16; ``divergences`` were skipped or gone back from. ``best_path`` is the adapter as it was where
    validation found it best, None without validation.
    """

    adapter_path: Path
    run_dir: Path
    global_step: int
    loss: float
    interrupted: bool
    seconds: float
    ending: str = ""
    overflows: int = 0
    divergences: int = 0
    best_path: Path | None = None


# --- train -----------------------------------------------------------------------------------------------------------


def train(
    settings: TrainSettings,
    workspace: Workspace,
    callbacks: Sequence[Callback] = (),
    stop: threading.Event | None = None,
) -> RunResult:
    """Trains an adapter that exists in the workspace; returns when it is done or ``stop`` is set.

    Raises:
        UsageError: a setting does not fit model, data or adapter.
        DataError: the pictures cannot be used.
        TrainingError: nothing is left to do, the run diverged, or memory ran out.
        BusyError: the adapter is being trained already.
    """
    settings = settings.resolved()
    path = find_adapter(settings, workspace)
    with contextlib.closing(adapter_lock(path)) as lock, computing_threads(settings.threads):
        return _train(settings, workspace, path, lock, callbacks, stop)


def _train(
    settings: TrainSettings,
    workspace: Workspace,
    path: Path,
    lock: TrainingLock,
    callbacks: Sequence[Callback],
    stop: threading.Event | None,
) -> RunResult:
    adapter = load_adapter(settings.kind, path, path.stem)
    check_steps(settings, adapter)
    check_beside(settings, adapter, path)
    remark_average(adapter, path)
    require_place(settings, path)
    lines = load_template(settings, workspace)
    _remark_arithmetic(settings)
    with shortage_explained(settings, resolve_device(settings.device), lambda: None):
        run = prepare(settings, workspace, adapter, lines, callbacks)
    load_optimizer(run.trainer.optimizer, adapter, path)
    folder = RunFolder.create(_logs(settings, workspace), settings.kind, adapter.name, path.suffix)
    lock.name_run(folder.path)
    with contextlib.closing(run_lock(folder.path)):
        write_records(run, folder, path, workspace)
        emitter(callbacks)(RunPrepared(folder.path, run.settings.to_dict()))
        return _run(run, folder, path, callbacks, stop)


def resume(
    run_dir: Path,
    *,
    workspace: Workspace | None = None,
    memory: Mapping[str, Any] | None = None,
    device: str = "",
    callbacks: Sequence[Callback] = (),
    stop: threading.Event | None = None,
) -> RunResult:
    """Goes on with the run in ``run_dir`` exactly where its newest state stands.

    On a CPU the weights that result equal, bit for bit, those of the run that was never stopped: on the same kind of
    processor, with as many threads, the same torch, and MKL in its reproducible mode. Otherwise a warning says so.

    Args:
        workspace: where model and adapter lie; None takes the run's own. A run whose folder lies in it goes on there,
            should it have begun in another: the whole workspace was moved.
        memory: of ``settings.MEMORY_SETTINGS``, ``vram`` and ``threads``, those to change from now on. ``vram`` chooses
            the others anew, except for precision and weight storage, on which the result depends.
        device: where to go on, if not where the run began; another kind of device computes a little differently.

    Raises:
        FileFormatError: the folder holds no run, or no readable state.
        DataError: the pictures or captions are not those that the run began with.
        UsageError: the adapter's file was trained further, or made anew, since.
        BusyError: the run is going on already, or the adapter is being trained by another one.
    """
    run_dir = Path(run_dir).resolve()
    read_record(run_dir)  # refuses what is no run, before a lock is put there
    with contextlib.closing(run_lock(run_dir)):
        began = read_record(run_dir)
        workspace = workspace or Workspace.open(began["root"])
        record = relocated(began, run_dir, workspace)
        record.pop("ended", None)
        settings = _settings_again(run_dir, record, memory or {}, device)
        with (
            contextlib.closing(adapter_lock(Path(record["adapter_path"]))) as lock,
            computing_threads(settings.threads),
        ):
            lock.name_run(run_dir)
            run, folder = _prepare_again(run_dir, began, record, settings, workspace, bool(memory), callbacks)
            return _run(run, folder, Path(record["adapter_path"]), callbacks, stop)


def _settings_again(run_dir: Path, record: Mapping[str, Any], memory: Mapping[str, Any], device: str) -> TrainSettings:
    values = {**record["settings"], **_changed_memory(memory), **({"device": device} if device else {})}
    return TrainSettings.from_dict(values, source=str(run_dir / RECORD)).resolved()


def _prepare_again(
    run_dir: Path,
    began: Mapping[str, Any],
    record: dict[str, Any],
    settings: TrainSettings,
    workspace: Workspace,
    are_new: bool,
    callbacks: Sequence[Callback],
) -> tuple[Components, RunFolder]:
    """The run of ``record`` as its newest state has it, and its folder; see ``resume``.

    Args:
        are_new: whether settings were changed, which the record then has from now on.
    """
    path = Path(record["adapter_path"])
    folder = RunFolder(run_dir, settings.kind, path.suffix)
    states = checkpoint.list_states(folder.states)
    adapter = _load_start(folder, path, record, may_differ=bool(states))
    # A run that was killed before it wrote its first state stands at its start.
    state = checkpoint.newest_state(folder.states) if states else None
    if path.exists():
        refuse_foreign(folder, path, states[0][0] if states else adapter.step, record)
    check_beside(settings, adapter, path)
    require_place(settings, path)
    record["arithmetic"] = _remark_arithmetic(settings, arithmetics(record))
    with shortage_explained(settings, resolve_device(settings.device), lambda: None, str(run_dir)):
        run = prepare(settings, workspace, adapter, record["template_lines"], callbacks, record)
    if state is None:
        load_optimizer(run.trainer.optimizer, adapter, path)
    else:
        checkpoint.restore_state(run.trainer, state)
    if are_new:
        record["settings"] = run.settings.to_dict()
    if record != began:
        write_record(run_dir, record)
    emitter(callbacks)(RunPrepared(folder.path, run.settings.to_dict()))
    return run, folder


def _load_start(folder: RunFolder, path: Path, record: Mapping[str, Any], *, may_differ: bool) -> Adapter:
    """The adapter as the run began with it.

    Args:
        may_differ: its numbers are not needed, since a state holds them: where its file is damaged, a copy does, or
            the adapter's own file in ``path``, which say as well how it is built.

    Raises:
        FileFormatError: there is no such file that is whole.
    """
    try:
        return load_adapter(folder.kind, folder.start, path.stem)
    except FileFormatError as error:
        if not may_differ:
            raise
        fault = error
    copies = sorted(folder.copies.glob(f"*{folder.suffix}"), key=lambda copy: copy.stat().st_mtime, reverse=True)
    for other in (*copies, path):
        with contextlib.suppress(TinctureError):
            adapter = load_adapter(folder.kind, other, path.stem)
            if other != path or is_own(adapter, record):
                warnings.warn(f"{fault} The run goes on all the same: {other} says how it is built.", stacklevel=3)
                return adapter
    raise FileFormatError(
        f"{fault} No other file of the run says how the adapter is built, so its states cannot be used without it."
    ) from fault


def _remark_arithmetic(settings: TrainSettings, before: Sequence[Any] = ()) -> list[Any]:
    """Warns where last bits may differ from time to time; ``before``, and what the run computes with from now on."""
    now = Arithmetic.current(resolve_device(settings.device).type)
    for remark in now.remarks(*before[-1:]):
        warnings.warn(remark, stacklevel=3)
    return [*before] if now.to_dict() in before[-1:] else [*before, now.to_dict()]


def _changed_memory(memory: Mapping[str, Any]) -> dict[str, Any]:
    wrong = set(memory) - {*MEMORY_SETTINGS, "vram", "threads"}
    if wrong:
        raise UsageError(
            f"A run cannot go on with another {', '.join(sorted(wrong))}; what can change is "
            f"{', '.join(MEMORY_SETTINGS)}, vram and threads. For all else, begin a new run."
        )
    chooses = memory.get("vram", "off") != "off"
    open_again = {"offload": None, "slicing": None, "gradient_checkpointing": None} if chooses else {}
    return {**open_again, **memory}


# --- running ---------------------------------------------------------------------------------------------------------


def _run(
    run: Components, folder: RunFolder, path: Path, callbacks: Sequence[Callback], stop: threading.Event | None
) -> RunResult:
    settings, trainer = run.settings, run.trainer
    seconds, saver = _Seconds(), _Saver(run, folder, path)
    watchers: list[Callback] = [seconds, CsvLog(folder.csv, trainer.global_step)]
    if settings.tensorboard:
        watchers.append(TensorBoardLog(folder.tensorboard, trainer.global_step))
    trainer.restore_last_good = lambda: checkpoint.restore_state(trainer, checkpoint.newest_state(folder.states))
    # Before states and the finished adapter are saved: the one holds what was measured, the other comes last.
    best = _validation(run, folder, path, watchers)
    watchers.append(
        Checkpointer(
            trainer,
            folder,
            path,
            settings.save_every,
            saver,
            copies=Retention(settings.keep_copies, settings.keep_copies_every),
            states=Retention(settings.keep_states, settings.keep_states_every),
        )
    )
    watchers.append(_previewer(run, folder))
    watchers += [run.time_left, *callbacks]
    with shortage_explained(settings, run.model.device, lambda: run.estimator, str(folder.path)):
        interrupted = trainer.run(watchers, stop)
    _remember_times(run)
    _note_end(folder, saver.saved_at, trainer, interrupted)
    loss, _ = trainer.window.window()
    return RunResult(
        *(saver.saved_at, folder.path, trainer.global_step, loss, interrupted, seconds.value, trainer.ending),
        overflows=trainer.guard.overflows,
        divergences=trainer.guard.divergences,
        best_path=best.path if best and best.path.exists() else None,
    )


def _note_end(folder: RunFolder, path: Path, trainer: Trainer, interrupted: bool) -> None:
    """Writes down how the run ended; a record without is that of a run which goes on, or was killed."""
    how = {"global_step": trainer.global_step, "interrupted": interrupted, "ending": trainer.ending}
    write_record(folder.path, {**read_record(folder.path), "ended": {"adapter_path": str(path), **how}})


def _validation(run: Components, folder: RunFolder, path: Path, watchers: list[Callback]) -> BestFile | None:
    """Adds those who measure, log and keep the best adapter; returns the last."""
    if run.grids is None:
        return None
    every, patience = run.settings.validation_every, run.settings.early_stopping_patience
    validator = Validator(run.trainer, *run.grids, every=every, stage=VALIDATING, patience=patience)
    best = BestFile(run, folder, path, validator)
    watchers += [ValidationLog(folder.validation_csv, validator.measured), validator, best]
    return best


def _remember_times(run: Components) -> None:
    """For later plans."""
    held_out, trained = run.grids or (None, None)
    predictions = held_out.predictions + trained.predictions if held_out and trained else 0
    device = run.model.device
    work = Workload(run.settings, run.model, run.adapter, run.dataset, run.lines, device, predictions)
    alone = not run.settings.cache_dir and run.grids is None  # else some may have been known, or belong to validation
    remember_run(work, run.time_left, encoded=len(run.dataset) if alone else 0)


class _Seconds:
    """How long the loop took."""

    value = math.nan

    def on_event(self, event: object) -> None:
        if isinstance(event, RunEnded):
            self.value = event.seconds


class _Saver:
    """Writes all files of the adapter, of which the given path is the one to publish; gives their paths.

    Attributes:
        saved_at: where the finished adapter is: at its path, unless another's work lies there.
    """

    def __init__(self, run: Components, folder: RunFolder, path: Path) -> None:
        self._run, self._folder, self._path, self.saved_at = run, folder, path, path

    def __call__(self, path: Path) -> list[Path]:
        adapter = self._run.adapter
        final, files = path == self._path, adapter.files()
        if final:
            path = self.saved_at = place_to_save(self._folder, adapter, path, list(files))
        paths = {more: path_beside(path, adapter.name, more) for more in files}
        with noted(self._folder, adapter) if path == self._path else contextlib.nullcontext():
            for more, shown in files.items():
                model, made = self._run.model, provenance(self._run, shown)
                shown.save(paths[more], model_name=model.name, model_hash=model.hash, provenance=made)
        if self._run.settings.save_optimizer_state:
            beside = adapter.optimizer_beside
            trained = self._run.adapter.parameters()
            save_optimizer(self._run.trainer.optimizer, trained, files[beside], paths[beside])
        return list(paths.values())


def _previewer(run: Components, folder: RunFolder) -> Previewer:
    settings = run.settings
    prompts = preview_prompts(settings, run.dataset, run.trainer.data.prompt)
    seed, every = settings.preview_seed, settings.preview_every
    cards = Cards(run.model, run.adapter, folder.image_embeddings) if settings.preview_with_embedding else None
    return Previewer(run.trainer, prompts, preview_drawing(settings), seed, folder.path, folder.images, every, cards)


def _logs(settings: TrainSettings, workspace: Workspace) -> Path:
    return Path(settings.log_dir).resolve() if settings.log_dir else workspace.logs
