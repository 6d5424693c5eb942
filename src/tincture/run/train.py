"""A run: a new one, or one that goes on where it stopped."""

from __future__ import annotations

import contextlib
import functools
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tincture.adapters.adapter import Adapter
from tincture.errors import FileFormatError, TinctureError
from tincture.events import Callback, RunPrepared, emitter
from tincture.models.arithmetic import Arithmetic
from tincture.models.devices import resolve_device
from tincture.models.loading.default_model import remember_model
from tincture.models.loading.sources import find_source
from tincture.models.threads import computing_threads
from tincture.processes.launch import find_launch
from tincture.processes.ranks import Processes
from tincture.run.averages import remark_average
from tincture.run.best import check_places
from tincture.run.components import (
    Components,
    check_steps,
    load_adapter,
    load_members,
    prepare,
    with_fixed,
)
from tincture.run.data import load_template
from tincture.run.defaults import completed
from tincture.run.folder import (
    RunFolder,
    noted_of_each,
    read_record,
    write_record,
)
from tincture.run.loop import run_to_its_end
from tincture.run.memory.fit import shortage_explained
from tincture.run.optimizer_file import load_optimizer, with_optimizer
from tincture.run.ownership import (
    AdapterLocks,
    is_own,
    refuse_foreign,
    require_same_fixed,
    run_lock,
)
from tincture.run.past.going_on import settings_again
from tincture.run.presence import find_adapters, require_trackers, require_training
from tincture.run.records import (
    PROCESSES,
    arithmetics,
    write_records,
)
from tincture.run.relocate import relocated
from tincture.run.result import RunResult
from tincture.run.together import Order, arithmetic_remarks, together, watchers
from tincture.run.trackers import RunTrackers
from tincture.settings.train import TrainSettings
from tincture.training import checkpoint
from tincture.workspace import Workspace

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

    @functools.cache
    def begin() -> RunFolder:
        made = RunFolder.create(_logs(settings, workspace), settings.kind, adapter.name, paths[0].suffix)
        locks.name_run(made.path)
        return made

    with RunTrackers(begin, processes) as trackers:
        with shortage_explained(settings, resolve_device(settings.device), lambda: None):
            run = prepare(
                settings,
                workspace,
                adapter,
                lines,
                callbacks,
                model_reason=complete.model_reason,
                processes=processes,
                checked=functools.partial(trackers.start, adapter.step),
            )
        for member, path in zip(adapter.members(), paths, strict=True):
            load_optimizer(run.trainer.optimizer, member, path)
        folder = processes.from_main(begin)
        with _held(folder.path, processes):
            if processes.is_main:
                remember_model(workspace, find_source(settings.model, workspace).path)
                write_records(run, folder.of_each(settings, paths), paths, workspace)
            emitter(callbacks)(RunPrepared(folder.path, run.settings.to_dict()))
            return run_to_its_end(run, folder, paths, callbacks, stop, trackers.opened)


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
        return settings_again(run_dir, read_record(run_dir), memory, device)  # refuses what is no run

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
        settings = settings_again(run_dir, record, memory, device)
        require_trackers(settings.trackers)
        paths = [Path(noted["adapter_path"]) for noted in noted_of_each(record)]
        locks = AdapterLocks(paths if processes.is_main else ())
        with contextlib.closing(locks), computing_threads(processes.threads(settings.threads)):
            locks.name_run(run_dir)
            folder = RunFolder(run_dir, settings.kind, paths[0].suffix)
            with RunTrackers(lambda: folder, processes) as trackers:
                run = _prepare_again(
                    folder, began, record, settings, workspace, bool(memory), processes, callbacks, trackers
                )
                return run_to_its_end(run, folder, paths, callbacks, stop, trackers.opened)


def _prepare_again(
    folder: RunFolder,
    began: Mapping[str, Any],
    record: dict[str, Any],
    settings: TrainSettings,
    workspace: Workspace,
    are_new: bool,
    processes: Processes,
    callbacks: Sequence[Callback],
    trackers: RunTrackers,
) -> Components:
    """The run of ``record`` as its newest state has it; see ``resume``.

    Args:
        are_new: whether settings were changed, which the record then has from now on.
    """
    paths = [Path(noted["adapter_path"]) for noted in noted_of_each(record)]
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
    begin = functools.partial(trackers.start, state["global_step"] if state else adapter.step)
    with shortage_explained(settings, resolve_device(settings.device), lambda: None, str(folder.path)):
        run = prepare(
            settings,
            workspace,
            adapter,
            record["template_lines"],
            callbacks,
            record,
            processes=processes,
            checked=begin,
        )
    if state is None:
        for member, path in zip(adapter.members(), paths, strict=True):
            load_optimizer(run.trainer.optimizer, member, path)
    else:
        checkpoint.restore_state(run.trainer, state)
    if are_new:
        record["settings"] = run.settings.to_dict()
    if record != began and processes.is_main:
        write_record(folder.path, record)
    emitter(callbacks)(RunPrepared(folder.path, run.settings.to_dict()))
    return run


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


def _logs(settings: TrainSettings, workspace: Workspace) -> Path:
    return Path(settings.log_dir).resolve() if settings.log_dir else workspace.logs
