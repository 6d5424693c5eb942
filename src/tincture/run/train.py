"""A run: a new one, or one that goes on where it stopped."""

from __future__ import annotations

import contextlib
import math
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tincture.adapters.adapter import Adapter
from tincture.errors import FileFormatError, LostProcessError, TinctureError, UsageError
from tincture.events import Callback, RunEnded, RunPrepared, emitter
from tincture.kinds.registry import find_kind
from tincture.models.arithmetic import Arithmetic
from tincture.models.devices import resolve_device
from tincture.models.loading.default_model import remember_model
from tincture.models.loading.sources import find_source
from tincture.models.threads import computing_threads
from tincture.processes.launch import find_launch
from tincture.processes.ranks import Processes
from tincture.run.averages import remark_average
from tincture.run.best import BestFile, best_path, check_places
from tincture.run.checkpointer import Checkpointer
from tincture.run.components import (
    Components,
    check_steps,
    load_adapter,
    load_members,
    prepare,
    with_fixed,
)
from tincture.run.data import load_template, preview_prompts
from tincture.run.defaults import completed
from tincture.run.duration import VALIDATING
from tincture.run.folder import (
    RECORD,
    RunFolder,
    noted_of_each,
    read_record,
    write_record,
)
from tincture.run.memory.fit import shortage_explained
from tincture.run.meter import Meter
from tincture.run.naming import naming_all
from tincture.run.optimizer_file import load_optimizer, save_optimizer, with_optimizer
from tincture.run.ownership import (
    AdapterLocks,
    is_own,
    noted,
    place_to_save,
    refuse_foreign,
    require_same_fixed,
    run_lock,
)
from tincture.run.presence import find_adapters, require_trackers, require_training
from tincture.run.previews import Cards, Previewer
from tincture.run.records import (
    PROCESSES,
    arithmetics,
    preview_drawing,
    provenance,
    settings_to_pass_on,
    write_records,
)
from tincture.run.relocate import relocated
from tincture.run.result import COMPANIONS, MEASURED, RunResult, Trained
from tincture.run.timing import Workload, remember_run
from tincture.run.together import Order, arithmetic_remarks, together, watchers
from tincture.run.trackers import open_trackers
from tincture.settings.groups.machine import COMPUTING_SETTINGS, MEMORY_SETTINGS
from tincture.settings.groups.tracking import TRACKING_SETTINGS
from tincture.settings.train import EARLIER_DEFAULTS, TrainSettings
from tincture.training import checkpoint
from tincture.training.checkpoint import Retention
from tincture.training.metrics import CsvLog, ValidationLog
from tincture.training.optimizer import effective_rate
from tincture.training.validation import Validator
from tincture.workspace import Workspace, copy_name, path_beside

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
    order = Order("train", settings.to_dict(), str(workspace.root.resolve()))

    def checked() -> TrainSettings:
        if find_launch(asked=settings.processes) is not None:  # else it was done before anything heavy was loaded
            require_training(settings, workspace)
        return settings

    with together(checked, order) as (_, processes):
        return _train_together(settings, workspace, processes, callbacks, stop)


def follow(order: Order, processes: Processes, callbacks: Sequence[Callback]) -> None:
    """Does what the process that started this one does, as one of ``processes``."""
    workspace = Workspace.open(order.root)
    if order.what == "train":
        _train_together(TrainSettings.from_dict(order.values), workspace, processes, callbacks, None)
    else:
        run_dir, values = Path(order.values["run_dir"]), order.values
        _resume_together(run_dir, workspace, values["memory"], values["device"], processes, callbacks, None)


def _train_together(
    settings: TrainSettings,
    workspace: Workspace,
    processes: Processes,
    callbacks: Sequence[Callback],
    stop: threading.Event | None,
) -> RunResult:
    paths, threads = find_adapters(settings, workspace), processes.threads(settings.threads)
    locks = AdapterLocks(paths if processes.is_main else ())
    with contextlib.closing(locks), computing_threads(threads):
        return _train(settings, workspace, paths, locks, processes, watchers(processes, callbacks), stop)


def _train(
    settings: TrainSettings,
    workspace: Workspace,
    paths: Sequence[Path],
    locks: AdapterLocks,
    processes: Processes,
    callbacks: Sequence[Callback],
    stop: threading.Event | None,
) -> RunResult:
    adapter = load_members(settings, workspace, paths)
    complete = completed(with_optimizer(settings, adapter, paths)[0], workspace)
    settings = complete.settings
    check_steps(settings, adapter)
    check_places(settings, adapter, paths)
    for member, path in zip(adapter.members(), paths, strict=True):
        remark_average(member, path)
    lines = load_template(settings, workspace)
    _remark_arithmetic(settings, processes)
    with shortage_explained(settings, resolve_device(settings.device), lambda: None):
        run = prepare(
            settings, workspace, adapter, lines, callbacks, model_reason=complete.model_reason, processes=processes
        )
    for member, path in zip(adapter.members(), paths, strict=True):
        load_optimizer(run.trainer.optimizer, member, path)

    def begin() -> RunFolder:
        remember_model(workspace, find_source(settings.model, workspace).path)
        made = RunFolder.create(_logs(settings, workspace), settings.kind, adapter.name, paths[0].suffix)
        locks.name_run(made.path)
        return made

    folder = processes.from_main(begin)
    with _held(folder.path, processes):
        if processes.is_main:
            write_records(run, folder.of_each(settings, paths), paths, workspace)
        emitter(callbacks)(RunPrepared(folder.path, run.settings.to_dict()))
        return _run(run, folder, paths, callbacks, stop)


def _held(run_dir: Path, processes: Processes) -> contextlib.AbstractContextManager[object]:
    """The lock of a run, which the main one of its processes holds."""
    return contextlib.closing(run_lock(run_dir)) if processes.is_main else contextlib.nullcontext()


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
        memory: of ``settings.MEMORY_SETTINGS``, ``vram``, ``threads`` and ``TRACKING_SETTINGS``, those to change from
            now on. ``vram`` chooses the others anew, except for precision and weight storage, on which the result
            depends.
        device: where to go on, if not where the run began; another kind of device computes a little differently.

    Raises:
        FileFormatError: the folder holds no run, or no readable state.
        DataError: the pictures or captions are not those that the run began with.
        UsageError: the adapter's file was trained further, or made anew, since.
        BusyError: the run is going on already, or the adapter is being trained by another one.
    """
    run_dir, memory = Path(run_dir).resolve(), dict(memory or {})
    root = str(workspace.root.resolve()) if workspace else ""
    order = Order("resume", {"run_dir": str(run_dir), "memory": memory, "device": device}, root)

    def recorded() -> TrainSettings:
        return _settings_again(run_dir, read_record(run_dir), memory, device)  # refuses what is no run

    with together(recorded, order) as (_, processes):
        return _resume_together(run_dir, workspace, memory, device, processes, callbacks, stop)


def _resume_together(
    run_dir: Path,
    workspace: Workspace | None,
    memory: Mapping[str, Any],
    device: str,
    processes: Processes,
    callbacks: Sequence[Callback],
    stop: threading.Event | None,
) -> RunResult:
    callbacks = watchers(processes, callbacks)
    with _held(run_dir, processes):
        began = processes.from_main(lambda: read_record(run_dir))
        workspace = workspace or Workspace.open(began["root"])
        record = relocated(began, run_dir, workspace)
        record.pop("ended", None)
        settings = _settings_again(run_dir, record, memory, device)
        require_trackers(settings.trackers)
        paths = [Path(noted["adapter_path"]) for noted in noted_of_each(record)]
        locks = AdapterLocks(paths if processes.is_main else ())
        with contextlib.closing(locks), computing_threads(processes.threads(settings.threads)):
            locks.name_run(run_dir)
            run, folder = _prepare_again(
                run_dir, began, record, settings, workspace, bool(memory), processes, callbacks
            )
            return _run(run, folder, paths, callbacks, stop)


def _settings_again(run_dir: Path, record: Mapping[str, Any], memory: Mapping[str, Any], device: str) -> TrainSettings:
    values = {
        **EARLIER_DEFAULTS,
        **record["settings"],
        **_changed_memory(memory),
        **({"device": device} if device else {}),
    }
    return TrainSettings.from_dict(values, source=str(run_dir / RECORD)).resolved()


def _prepare_again(
    run_dir: Path,
    began: Mapping[str, Any],
    record: dict[str, Any],
    settings: TrainSettings,
    workspace: Workspace,
    are_new: bool,
    processes: Processes,
    callbacks: Sequence[Callback],
) -> tuple[Components, RunFolder]:
    """The run of ``record`` as its newest state has it, and its folder; see ``resume``.

    Args:
        are_new: whether settings were changed, which the record then has from now on.
    """
    paths = [Path(noted["adapter_path"]) for noted in noted_of_each(record)]
    folder = RunFolder(run_dir, settings.kind, paths[0].suffix)
    folders = folder.of_each(settings, paths)
    states = processes.from_main(lambda: checkpoint.list_states(folder.states))
    members = [
        _load_start(own, path, record, may_differ=bool(states)) for own, path in zip(folders, paths, strict=True)
    ]
    adapter = with_fixed(settings, workspace, members)
    require_same_fixed(adapter, record)
    # A run that was killed before it wrote its first state stands at its start.
    state = processes.from_main(lambda: checkpoint.newest_state(folder.states) if states else None)
    further = states[0][0] - adapter.step if states else 0
    for member, own, path in zip(adapter.members(), folders, paths, strict=True):
        if path.exists():
            refuse_foreign(own, path, member.step + further, record)
    check_places(settings, adapter, paths)
    record["arithmetic"] = _remark_arithmetic(settings, processes, arithmetics(record), record.get(PROCESSES, 1))
    if PROCESSES in record or processes.world_size > 1:
        record[PROCESSES] = processes.world_size
    with shortage_explained(settings, resolve_device(settings.device), lambda: None, str(run_dir)):
        run = prepare(settings, workspace, adapter, record["template_lines"], callbacks, record, processes=processes)
    if state is None:
        for member, path in zip(adapter.members(), paths, strict=True):
            load_optimizer(run.trainer.optimizer, member, path)
    else:
        checkpoint.restore_state(run.trainer, state)
    if are_new:
        record["settings"] = run.settings.to_dict()
    if record != began and processes.is_main:
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
            if other != path or is_own(adapter, folder, record):
                warnings.warn(f"{fault} The run goes on all the same: {other} says how it is built.", stacklevel=3)
                return adapter
    raise FileFormatError(
        f"{fault} No other file of the run says how the adapter is built, so its states cannot be used without it."
    ) from fault


def _remark_arithmetic(
    settings: TrainSettings, processes: Processes, before: Sequence[Any] = (), processes_before: int = 0
) -> list[Any]:
    """Warns where last bits may differ from time to time; ``before``, and what the run computes with from now on.

    Args:
        processes_before: how many computed it before; 0: it begins.
    """
    now = Arithmetic.current(resolve_device(settings.device).type)
    found = [*now.remarks(*before[-1:]), *arithmetic_remarks(processes, now)]
    if processes_before not in (0, processes.world_size):
        found.append(
            f"The run goes on with {processes.world_size} process{'es' if processes.world_size > 1 else ''} instead of "
            f"{processes_before}, so its weights will be those of a run that was never stopped but for last bits."
        )
    for remark in found:
        warnings.warn(remark, stacklevel=3)
    return [*before] if now.to_dict() in before[-1:] else [*before, now.to_dict()]


def _changed_memory(memory: Mapping[str, Any]) -> dict[str, Any]:
    wrong = set(memory) - {*MEMORY_SETTINGS, *COMPUTING_SETTINGS, *TRACKING_SETTINGS}
    if wrong:
        raise UsageError(
            f"A run cannot go on with another {', '.join(sorted(wrong))}; what can change is "
            f"{', '.join(MEMORY_SETTINGS)}, vram, threads and processes, and {', '.join(TRACKING_SETTINGS)}. For all "
            "else, begin a new run."
        )
    chooses = memory.get("vram", "off") != "off"
    open_again = {"offload": None, "slicing": None, "gradient_checkpointing": None} if chooses else {}
    return {**open_again, **memory}


# --- running ---------------------------------------------------------------------------------------------------------


def _run(
    run: Components,
    folder: RunFolder,
    paths: Sequence[Path],
    callbacks: Sequence[Callback],
    stop: threading.Event | None,
) -> RunResult:
    settings, trainer, folders = run.settings, run.trainer, folder.of_each(run.settings, paths)
    seconds, saver, processes = _Seconds(), _Saver(run, folders, paths), run.trainer.processes
    meter = Meter(
        run.time_left, settings.batch_size * settings.gradient_accumulation_steps, run.model.device, trainer.emit
    )
    trackers = (
        open_trackers(settings, folder, trainer.global_step, settings_to_pass_on(run)) if processes.is_main else []
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
        for tracker in trackers:
            ending.callback(tracker.close)
        ending.enter_context(shortage_explained(settings, run.model.device, lambda: run.estimator, str(folder.path)))
        ending.enter_context(_resumable(run, folder))
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


def _logs(settings: TrainSettings, workspace: Workspace) -> Path:
    return Path(settings.log_dir).resolve() if settings.log_dir else workspace.logs
