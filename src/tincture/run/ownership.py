"""Whose an adapter's file and a run are: who holds them now, and whether the file is what the run left there.

While an adapter is trained, a lock beside its file says so, and one in the run's folder while a run goes on: the system
frees them when the process ends, however it ends. What a run left in the adapter's file is noted in its record by a
digest, so that what another run or program put there is never overwritten.
"""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tincture.adapters.adapter import Adapter
from tincture.errors import BusyError, FileFormatError, TinctureError, UsageError
from tincture.formats.file_lock import FileLock, this_host
from tincture.run.averages import belongs_to
from tincture.run.components import load_adapter
from tincture.run.digests import adapter_digest
from tincture.run.folder import RUN_LOCK, RunFolder, noted_of_each, read_record, with_noted, write_record
from tincture.workspace import copy_name, path_beside

FIXED = "fixed_adapter_digests"
"""Key in a run's record."""

# --- who holds it now ------------------------------------------------------------------------------------------------


class TrainingLock:
    """Held by who trains an adapter; what it knows is shown to whoever else wants to.

    Raises:
        BusyError: another process, or another training of this one, holds it.
        StorageError: the folder of the adapter cannot be written.
    """

    def __init__(self, path: Path, what: str) -> None:
        self._lock = FileLock(path)
        if not self._lock.take():
            raise BusyError(f"{what} {_by(self._lock.facts())}; wait until that has ended, or stop it.")
        self._since = time.strftime("%Y-%m-%d %H:%M:%S")
        self.name_run(None)

    def name_run(self, run_dir: Path | None) -> None:
        """Notes the run that it is held for."""
        run = {"run": str(run_dir)} if run_dir else {}
        self._lock.name_holder(os.getpid(), since=self._since, **run)

    def close(self) -> None:
        """Gives it back."""
        self._lock.free(remove=True)


class AdapterLocks:
    """As ``TrainingLock``, of several adapters: all are held, or none.

    They are taken in an order of their own, so that of two trainings of the same adapters one gets all of them.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        with contextlib.ExitStack() as taken:
            ordered = sorted(paths, key=lambda path: str(path.resolve()))
            self._locks = [taken.enter_context(contextlib.closing(adapter_lock(path))) for path in ordered]
            self._held = taken.pop_all()

    def name_run(self, run_dir: Path | None) -> None:
        """Notes the run that they are held for."""
        for lock in self._locks:
            lock.name_run(run_dir)

    def close(self) -> None:
        """Gives them back."""
        self._held.close()


def adapter_lock(path: Path) -> TrainingLock:
    """The lock of the adapter in ``path``, which lies beside it; see ``TrainingLock``."""
    real = path.resolve()  # a link and what it leads to are one adapter
    return TrainingLock(real.with_name(f".{real.name}.lock"), f"{path} is being trained")


def run_lock(run_dir: Path) -> TrainingLock:
    """The lock of a run, which lies in its folder; see ``TrainingLock``."""
    lock = TrainingLock(run_dir / RUN_LOCK, f"The run in {run_dir} is going on already,")
    lock.name_run(run_dir)
    return lock


def _by(facts: Mapping[str, Any]) -> str:
    since = f" since {facts['since']}" if facts.get("since") else ""
    run = f" (run folder {facts['run']})" if facts.get("run") else ""
    host = facts.get("host")
    where = f" on {host.partition(' ')[0]}" if isinstance(host, str) and host != this_host() else ""
    return f"by process {facts.get('process', 'of an unknown number')}{where}{since}{run}"


# --- what stands there -----------------------------------------------------------------------------------------------


def fixed_digests(adapter: Adapter) -> dict[str, Any]:
    """What a run's record says of those that act beside what it trains."""
    return {FIXED: [adapter_digest(one) for one in adapter.fixed]} if adapter.fixed else {}


def require_same_fixed(adapter: Adapter, record: Mapping[str, Any]) -> None:
    """UsageError where one of them is not what it was when the run began."""
    for one, digest in zip(adapter.fixed, record.get(FIXED, []), strict=True):
        if adapter_digest(one) != digest:
            raise UsageError(
                f"The {one.kind} {one.name!r}, which acts beside what is trained, has changed since the run began; put "
                "it back to resume."
            )


@contextmanager
def noted(folder: RunFolder, adapter: Adapter) -> Iterator[None]:
    """Keeps in the run's record what stands in the adapter's file, which is written within.

    A run that is killed meanwhile has noted both what stood there before and what was to stand there, so that its
    resume knows either as its own. Runs of before such notes stay without.
    """
    record = read_record(folder.path)
    before = noted_of_each(record)[folder.number].get("adapter_digests")
    if before is None:
        yield
        return
    new = adapter_digest(adapter)
    write_record(folder.path, with_noted(record, folder.number, {"adapter_digests": [*before, new]}))
    yield
    write_record(folder.path, with_noted(record, folder.number, {"adapter_digests": [new]}))


def is_own(adapter: Adapter, folder: RunFolder, record: Mapping[str, Any]) -> bool:
    """Whether an adapter is what the run of ``record`` left in its file; so it is where the run took no notes."""
    known = noted_of_each(record)[folder.number].get("adapter_digests")
    return known is None or adapter_digest(adapter) in known


def refuse_foreign(folder: RunFolder, path: Path, saved: int, record: Mapping[str, Any]) -> None:
    """Makes sure that the adapter in ``path`` is what the run left there, so that no other's work would be lost.

    Args:
        saved: steps that the adapter has in the run's newest state.

    Raises:
        UsageError: it is not.
        FileFormatError: it is damaged.
    """
    try:
        adapter = load_adapter(folder.kind, path, path.stem)
    except FileFormatError as error:
        raise FileFormatError(f"{error} Move it away to resume all the same.") from error
    own = is_own(adapter, folder, record)
    if own and "adapter_digests" in record:
        return
    if adapter.step > saved:
        raise UsageError(
            f"{path} has {adapter.step} steps, but the newest state in {folder.path} has {saved}: the file was trained "
            "further since, and resuming would overwrite it. Move it away to resume all the same."
        )
    if not own:
        raise UsageError(
            f"{path} is not what the run in {folder.path} left there: it was made anew or trained by another run "
            "since, and resuming would overwrite it. Move it away to resume all the same."
        )


def place_to_save(folder: RunFolder, adapter: Adapter, path: Path, more: Sequence[str]) -> Path:
    """``path``, or a free name beside it where something stands that the run did not leave there, with a warning.

    Args:
        adapter: what is to be saved; NAME-STEP is the free name.
        path: the adapter's file.
        more: what is added to its name for further files, see ``path_beside``.
    """
    beside = [place for each in more if each and (place := path_beside(path, adapter.name, each)).exists()]
    foreign = [path] if path.exists() and not _left_there(folder, path) else []
    foreign += [place for place in beside if not belongs_to(adapter, place)]
    if not foreign:
        return path
    free = next(
        place
        for place in _numbered(path, copy_name(adapter.name, adapter.step))
        if not any(path_beside(place, adapter.name, each).exists() for each in ("", *more))
    )
    warnings.warn(
        f"{foreign[0]} is not what this run left there: another program made it anew or trained it while the run went "
        f"on. It stays as it is, and what the run has learned is saved as {free}.",
        stacklevel=2,
    )
    return free


def _numbered(path: Path, stem: str) -> Iterator[Path]:
    yield path.with_name(f"{stem}{path.suffix}")
    number = 2
    while True:
        yield path.with_name(f"{stem}-{number}{path.suffix}")
        number += 1


def _left_there(folder: RunFolder, path: Path) -> bool:
    record = read_record(folder.path)
    if "adapter_digests" not in record:
        return True
    with contextlib.suppress(TinctureError):
        return is_own(load_adapter(folder.kind, path, path.stem), folder, record)
    return False
