"""One run of a sweep: ``python -P -m tincture.sweeps.trial FOLDER``, or called by a worker of the server's queue.

It trains until the step that it is asked for, or goes on with what an earlier process left, exactly; then it writes
down what came of it. Whatever is there already is not done again. When standard input ends, whoever started it is gone,
and it stops after its step, saved.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import glob
import math
import os
import shutil
import signal
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tincture import recipe
from tincture.errors import FileFormatError, TinctureError, UsageError
from tincture.events import Callback, Event, Progressed, RunPrepared, RunStarted, StepEnd, StepsDone
from tincture.extensions import load_extensions
from tincture.run.lines import Lines
from tincture.run.past.past_run import losses_in, read_loosely, read_run, validations_in
from tincture.run.preview_request import request_preview
from tincture.settings.train import TrainSettings
from tincture.sweeps.points import Trial, made_anew
from tincture.sweeps.sweep_file import Fields
from tincture.sweeps.sweep_folder import SweepFolder, TrialFolder
from tincture.workspace import Workspace

STOPPED = 130
TRAIN_WINDOW = 100
"""Steps whose mean loss counts as the training loss: the latest, at most so many."""
NOTE_S = 0.5


def perform(
    folder: TrialFolder, callbacks: Sequence[Callback], stop: threading.Event, device: str = ""
) -> Fields | None:
    """Brings a run to the step that is asked of it; returns what came of it, None where it was stopped before.

    Args:
        device: where, if neither the settings nor what is asked of it say so.

    Raises:
        TinctureError: as a training; it is not noted here.
    """
    sweep = SweepFolder(folder.path.parent.parent)
    trial = next(each for each in sweep.trials() if each.name == folder.path.name)
    task = folder.task()
    until, settings, workspace = task.get("until"), trial.train_settings(), sweep.workspace
    if found := folder.result(until):
        return found
    run_dir = find_run(settings, workspace)
    if run_dir is None or not _is_there(run_dir, until):
        own = threading.Event()
        watcher = _Watcher(folder, until, own, stop)
        with _passed_on(stop, own):
            result = _train(sweep, trial, run_dir, task.get("device") or device, [*callbacks, watcher], own)
        run_dir = result.run_dir
        watcher.note(seconds=watcher.before + result.seconds)
        if not _is_there(run_dir, until):
            return None
    found = _outcome(run_dir, settings.kind, folder)
    found |= _judged(sweep, settings, found)
    folder.note_result(until if found["interrupted"] else None, found)
    return found


def find_run(settings: TrainSettings, workspace: Workspace) -> Path | None:
    """The folder of the run that trains the adapter of a sweep, which no other run does; None where there is none."""
    logs = Path(settings.log_dir).resolve() if settings.log_dir else workspace.logs
    records = logs.glob(f"*/{glob.escape(settings.name)}*/run.json")
    for record in sorted(records, key=lambda path: path.stat().st_mtime, reverse=True):
        run = read_run(record.parent)
        if run and (run.kind, run.name) == (settings.kind, settings.name):
            return record.parent
    return None


def read_losses(run_dir: Path, kind: str) -> list[tuple[int, float]]:
    """Step and loss of each line of a run's log; a loss that is not finite is left out."""
    found = losses_in(run_dir, kind)
    return _finite(found["step"], found["loss"])


def read_validation(run_dir: Path) -> list[tuple[int, float]]:
    """The same of each measurement on pictures that are not trained."""
    return _finite(*validations_in(run_dir))


def _train(
    sweep: SweepFolder,
    trial: Trial,
    run_dir: Path | None,
    device: str,
    callbacks: Sequence[Callback],
    stop: threading.Event,
) -> recipe.RunResult:
    if run_dir is not None:
        return recipe.resume(run_dir, workspace=sweep.workspace, device=device, callbacks=callbacks, stop=stop)
    settings = trial.train_settings()
    _begin(sweep, trial, settings)
    return recipe.train(settings.replace(device=device) if device else settings, sweep.workspace, callbacks, stop)


def _begin(sweep: SweepFolder, trial: Trial, settings: TrainSettings) -> None:
    """Puts the adapters of a run where it finds them, as they are before its first step."""
    if made_anew(sweep.source):
        options = trial.options(sweep.source)
        recipe.create(
            settings.kind, settings.name, workspace=sweep.workspace, model=settings.model, overwrite=True, **options
        )
        return
    for number, (kind, name) in enumerate(settings.adapters):
        start = sweep.start_of(number)
        if start is None:
            raise FileFormatError(f"{sweep.path / 'start'} lacks a file that the sweep began with; begin it anew.")
        target = sweep.workspace.adapter_path(kind, name).with_suffix(start.suffix)
        target.parent.mkdir(parents=True, exist_ok=True)
        for beside in ("", ".optim"):
            if (source := start.with_name(start.name + beside)).exists():
                shutil.copyfile(source, target.with_name(target.name + beside))


class _Watcher:
    """Ends a run at a step, with previews of it if the run draws any, and writes down how far it is."""

    def __init__(self, folder: TrialFolder, until: int | None, end: threading.Event, stop: threading.Event) -> None:
        self.folder, self.until, self._end, self._stop = folder, until, end, stop
        self._values = folder.progress()
        self.before = float(self._values.get("seconds") or 0.0)
        self._began, self._noted = time.monotonic(), 0.0
        self._run_dir, self._draws = Path(), False

    def on_event(self, event: Event) -> None:
        match event:
            case RunPrepared():
                self._run_dir, self._draws = event.run_dir, bool(event.settings.get("preview_every"))
                self._values |= {"run_dir": str(event.run_dir)}
            case RunStarted():
                self._began = time.monotonic()
                self._step(event.global_step, event.steps)
            case StepEnd():
                self._step(event.global_step, event.steps)
            case StepsDone() if math.isfinite(event.recent_mean):
                self._values["loss"] = event.recent_mean
            case Progressed():
                self._values["stage"] = "" if event.over else event.description

    def _step(self, global_step: int, steps: int) -> None:
        self._values |= {"global_step": global_step, "steps": steps, "stage": ""}
        if self.until is not None and global_step >= self.until:
            self._end.set()
        elif self.until is not None and global_step == self.until - 1 and self._draws:
            request_preview(self._run_dir)
        if time.monotonic() - self._noted > NOTE_S:
            self.note(seconds=self.before + time.monotonic() - self._began)

    def note(self, **values: Any) -> None:
        """Writes down how far it is; a full disk goes without."""
        self._noted = time.monotonic()
        self._values |= values
        with contextlib.suppress(TinctureError):
            self.folder.note_progress(self._values)


@contextlib.contextmanager
def _passed_on(stop: threading.Event, own: threading.Event) -> Iterator[None]:
    """While inside, who is asked to stop stops the run too."""
    over = threading.Event()

    def listen() -> None:
        while not over.is_set():
            if stop.wait(0.05):
                own.set()
                return

    listener = threading.Thread(target=listen, name="stop", daemon=True)
    listener.start()
    try:
        yield
    finally:
        over.set()
        listener.join()


def _is_there(run_dir: Path, until: int | None) -> bool:
    """Whether a run has ended at the step that is asked for, or at its end, and says so."""
    ended = _ended(run_dir)
    if not ended or not Path(ended["adapter_path"]).is_file():
        return False
    return not ended["interrupted"] or (until is not None and ended["global_step"] >= until)


def _ended(run_dir: Path) -> Fields:
    found = (read_loosely(run_dir) or {}).get("ended")
    return found if isinstance(found, dict) else {}


def _outcome(run_dir: Path, kind: str, folder: TrialFolder) -> Fields:
    """What a run that has ended says of itself, by its files alone."""
    ended = _ended(run_dir)
    losses = [loss for _, loss in read_losses(run_dir, kind)][-TRAIN_WINDOW:]
    measured = read_validation(run_dir)
    others = [each["adapter_path"] for each in ended.get("companions", ())]
    return {
        "global_step": ended["global_step"],
        "interrupted": ended["interrupted"],
        "ending": ended["ending"],
        "train_loss": statistics.fmean(losses) if losses else None,
        "validation_loss": measured[-1][1] if measured else None,
        "best_validation_loss": min((loss for _, loss in measured), default=None),
        "adapter_path": ended["adapter_path"],
        "adapter_paths": [ended["adapter_path"], *others],
        "run_dir": str(run_dir),
        "seconds": round(float(folder.progress().get("seconds") or 0.0), 2),
    }


def _judged(sweep: SweepFolder, settings: TrainSettings, found: Mapping[str, Any]) -> Fields:
    asked = sweep.source.get("oracle")
    if not asked:
        return {}
    from tincture.sweeps.judging import judge

    return dict(judge(asked, settings, [Path(path) for path in found["adapter_paths"]], sweep.workspace))


def _finite(steps: Sequence[float], losses: Sequence[float]) -> list[tuple[int, float]]:
    return [(int(step), loss) for step, loss in zip(steps, losses, strict=True) if math.isfinite(loss)]


# --- the program -----------------------------------------------------------------------------------------------------


def run(folder: TrialFolder, stop: threading.Event) -> int:
    """Does what is asked of the run, notes how it failed, and returns the exit status."""
    try:
        root = SweepFolder(folder.path.parent.parent).workspace.root
        lines = Lines(functools.partial(print, flush=True))
        found = perform(folder, [lines, load_extensions(root=root).callback()], stop)
    except TinctureError as error:
        folder.note_failure(str(error))
        print(f"failed: {error}", flush=True)
        return 1
    except Exception as error:
        traceback.print_exc()
        folder.note_failure(
            f"An error that was not foreseen ({type(error).__name__}: {error}); {folder.log} says where."
        )
        return 1
    return 0 if found else STOPPED


def _listen(stop: threading.Event) -> None:
    """Sets ``stop`` when standard input ends or has a line."""
    with contextlib.suppress(OSError):
        os.read(sys.stdin.fileno(), 4096)
    stop.set()


def main(arguments: Sequence[str]) -> int:
    """The program."""
    if len(arguments) != 1:
        raise UsageError("Give the folder of a run of a sweep.")
    faulthandler.enable()
    stop = threading.Event()
    on_signal: Callable[..., object] = lambda *_: stop.set()  # noqa: E731
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the sweep, which asks as it wants
    signal.signal(signal.SIGTERM, on_signal)
    threading.Thread(target=_listen, args=[stop], name="orders", daemon=True).start()
    return run(TrialFolder(Path(arguments[0])), stop)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
