"""The folder of a sweep, ``sweeps/NAME/``: what it is, and how far each of its runs is.

sweep.json            what was asked for, and the runs; written last, so that without it there is no sweep
drawn.json            points that were chosen since, where later ones depend on earlier results
start/                the adapters that runs begin with, as they were when the sweep was made
trials/RUN/           task.json, progress.json, result-STEP.json, result-end.json or failed.json, log.txt, lock
table.csv, table.json, report.html

The files of results say all: what is left to do follows from them, after whatever end of whatever process.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tincture.errors import BusyError, FileFormatError, UsageError
from tincture.formats.file_lock import FileLock
from tincture.formats.files import write_text
from tincture.settings.train import TrainSettings
from tincture.sweeps.points import Trial, adapters_of, made_anew, trials_of
from tincture.sweeps.sweep_faults import ModelOf, Place, checked
from tincture.sweeps.sweep_file import Fields, normalized, refuse
from tincture.workspace import Workspace, clean_name

RECORD = "sweep.json"
END = "end"
_ASKING_S = 0.5
_NOT_READ = "is damaged; delete the folder, or put back an earlier copy of it"


class TrialFolder:
    """What one run of a sweep wrote about itself. Nothing of it need be there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    def task(self) -> Fields:
        """What was asked of it last: ``until`` and ``device``."""
        return _read(self.path / "task.json") or {}

    def ask(self, until: int | None, device: str = "") -> None:
        """Writes down what is asked of it: to train until that step (None: to its end), on ``device``."""
        _write(self.path / "task.json", {"until": until, "device": device}, durably=True)

    def progress(self) -> Fields:
        """How far it is: ``global_step``, ``steps``, ``loss``, ``stage``, ``seconds``."""
        return _read(self.path / "progress.json") or {}

    def note_progress(self, values: Mapping[str, Any]) -> None:
        _write(self.path / "progress.json", values, durably=False)

    def result(self, until: int | None) -> Fields | None:
        """What came of it at a rung, or at its end (None); also where it ended before the rung by itself."""
        found = _read(self.path / f"result-{END if until is None else until}.json")
        return found if found or until is None else _read(self.path / f"result-{END}.json")

    def latest(self) -> Fields | None:
        """What came of it at the latest step that it has a result of."""
        found = [_read(path) for path in self.path.glob("result-*.json")]
        return max((each for each in found if each), key=lambda each: int(each["global_step"]), default=None)

    def note_result(self, until: int | None, values: Mapping[str, Any]) -> None:
        _write(self.path / f"result-{END if until is None else until}.json", values, durably=True)

    def failure(self) -> str:
        """The sentence with which it failed; empty where it did not."""
        return str((_read(self.path / "failed.json") or {}).get("error", ""))

    def note_failure(self, sentence: str) -> None:
        _write(self.path / "failed.json", {"error": sentence}, durably=True)

    def forget_failure(self) -> None:
        """Lets it be tried again."""
        (self.path / "failed.json").unlink(missing_ok=True)


class SweepFolder:
    """A sweep that was made; see the module.

    Raises:
        FileFormatError: there is none in ``path``, or it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        record = _read(path / RECORD)
        if record is None or not {"given", "source", "trials", "cwd", "root"} <= record.keys():
            where = path / RECORD
            raise FileFormatError(
                f"{where} {_NOT_READ}." if where.exists() else f"{path} is not the folder of a sweep."
            )
        self.record = record
        self.source: Fields = record["source"]
        self._stated = [Trial(**each) for each in record["trials"]]

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def workspace(self) -> Workspace:
        """Where its adapters lie: the one that its folder is in, be it moved."""
        return Workspace(self.path.parent.parent)

    @property
    def metric(self) -> str:
        """What its runs are ranked by."""
        return str(self.source["metric"])

    @property
    def cwd(self) -> Path:
        """Where relative paths of its settings start."""
        return Path(self.record["cwd"])

    def trials(self) -> list[Trial]:
        """Its runs in order, as far as their points are chosen."""
        drawn = self.drawn()
        return [*self._stated, *trials_of(self.source, drawn)] if drawn else self._stated

    def trial(self, name: str) -> TrialFolder:
        """The folder of one of its runs."""
        return TrialFolder(self.path / "trials" / name)

    def drawn(self) -> list[Fields]:
        """Points that were chosen since it was made."""
        return list((_read(self.path / "drawn.json") or {}).get("points", []))

    def note_drawn(self, points: list[Fields]) -> None:
        _write(self.path / "drawn.json", {"points": points}, durably=True)

    def start_of(self, number: int) -> Path | None:
        """The file that the run's adapter of that number begins with; None where it is made anew."""
        found = sorted(path for path in (self.path / "start").glob(f"{number}.*") if path.suffix != ".optim")
        return found[0] if found else None

    @contextmanager
    def held(self) -> Iterator[None]:
        """While something works at it; BusyError where another process does."""
        lock = FileLock(self.path / "lock")
        end = time.monotonic() + _ASKING_S
        while not lock.take():
            if time.monotonic() < end:
                time.sleep(0.02)  # somebody may only be asking whether it is held
                continue
            raise BusyError(
                f"The sweep {self.name!r} goes on in another process ({lock.holder()}); wait, or stop that."
            )
        lock.name_holder(os.getpid())
        try:
            yield
        finally:
            lock.free()

    def is_held(self) -> bool:
        """Whether something works at it now."""
        lock = FileLock(self.path / "lock")
        taken = lock.take()
        lock.free()
        return not taken


def make_sweep(
    given: Mapping[str, Any],
    workspace: Workspace,
    name: str = "",
    source: str = "",
    *,
    place: Place = TrainSettings.from_dict,
    cwd: Path | None = None,
    model_of: ModelOf | None = None,
) -> SweepFolder:
    """Makes the folder of a sweep, or opens it where it was made by the same file.

    Args:
        given: what its file says, see ``sweep_file``.
        name: where the file has none.
        source: what the file is called, for messages.
        place: see ``points.Place``.
        cwd: where relative paths start; None: the current folder.
        model_of: see ``points.ModelOf``; None: as at the command line.

    Raises:
        UsageError: something in it is not allowed, all in one message; or there is another sweep of this name.
    """
    wanted = normalized(given, name)
    path = workspace.sweeps / clean_name(wanted["name"])
    if (path / RECORD).exists():
        return _same(SweepFolder(path), _plain(wanted))
    complete, trials, faults = checked(wanted, workspace, place, cwd, model_of)
    refuse(faults, source)
    shutil.rmtree(path, ignore_errors=True)  # of one that was killed while it was made
    for number, (kind, adapter) in enumerate([] if made_anew(complete) else adapters_of(complete)):
        _copy_start(workspace.find_adapter(kind, adapter), path / "start" / str(number))
    record = {
        "given": wanted,
        "source": complete,
        "cwd": str(cwd or Path.cwd()),
        "root": str(workspace.root),
        "created_at": time.time(),
        "trials": [vars(trial) for trial in trials],
    }
    _write(path / RECORD, record, durably=True)
    return SweepFolder(path)


def list_sweeps(workspace: Workspace) -> list[SweepFolder]:
    """All sweeps of a workspace, the latest first; damaged ones are left out."""
    found = []
    for record in workspace.sweeps.glob(f"*/{RECORD}"):
        with contextlib.suppress(FileFormatError, TypeError):
            found.append(SweepFolder(record.parent))
    return sorted(found, key=lambda sweep: sweep.record.get("created_at", 0), reverse=True)


def find_sweep(workspace: Workspace, name: str) -> SweepFolder:
    """The sweep called ``name``; UsageError names those that there are."""
    with contextlib.suppress(UsageError):
        if (path := workspace.sweeps / clean_name(name) / RECORD).is_file():
            return SweepFolder(path.parent)
    there = ", ".join(sweep.name for sweep in list_sweeps(workspace)[:10])
    raise UsageError(f"There is no sweep {name!r}; {f'there are {there}' if there else 'there is none yet'}.")


def _same(sweep: SweepFolder, wanted: Fields) -> SweepFolder:
    """The sweep, unless it was made of something else."""
    before = sweep.record["given"]
    other = [key for key in dict.fromkeys([*before, *wanted]) if before.get(key) != wanted.get(key)]
    if other:
        raise UsageError(
            f"The sweep {sweep.name!r} was begun with another {' and another '.join(other)}; give this one another "
            f"--name, or delete {sweep.path} to begin anew."
        )
    return sweep


def _copy_start(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target.with_name(f"{target.name}{path.suffix}"))
    beside = path.with_name(f"{path.name}.optim")
    if beside.exists():
        shutil.copyfile(beside, target.with_name(f"{target.name}{path.suffix}.optim"))


def _plain(values: Mapping[str, Any]) -> Fields:
    """As JSON gives it back."""
    return dict(json.loads(json.dumps(values, default=str)))


def _write(path: Path, values: Mapping[str, Any], *, durably: bool) -> None:
    write_text(path, json.dumps(values, ensure_ascii=False, indent=1, default=str) + "\n", durably=durably)


def _read(path: Path) -> Fields | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
