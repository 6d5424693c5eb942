"""The process that does one job: ``python -P -m tincture.server.queue.worker JOB_FOLDER``.

It reads ``job.json``, writes ``events.jsonl`` (see ``event_file``) and prints for people. Lines on standard input
control it: ``stop`` ends it when the step at hand is done and saved, or at once before the first step; ``finish`` lets
a run begin first, so that in any case there is a file of what it learned. When standard input ends, the server has
died, which is as ``stop``.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tincture.errors import (
    AlreadyTrainedError,
    DataError,
    FileFormatError,
    TinctureError,
    UsageError,
    foreign,
    in_names,
)
from tincture.events import Callback, Event, RunStarted
from tincture.extensions import load_extensions
from tincture.formats.file_lock import Pulse
from tincture.server.queue.event_file import Reporter
from tincture.server.queue.folder import JobFolder
from tincture.workspace import Workspace

if TYPE_CHECKING:
    from tincture.run.result import RunResult

STOPPED = 130
"""The exit status of a job that was stopped, as that of a program that Ctrl-C ended."""
_ANY_DEVICE = "auto"

Fields = dict[str, Any]


class StoppedEarly(BaseException):
    """Ends a training that was asked to stop before its first step: there is nothing to save."""


class Control:
    """What the server asks for. As a watcher of a training, it ends the preparation of one that is not wanted.

    Attributes:
        stop: is set when the job shall end after its step.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self._at_once = False
        self._started = False

    def obey(self, order: str) -> None:
        """Takes an order: ``stop`` or ``finish``; others are for later versions."""
        if order in ("stop", "finish"):
            self._at_once = order == "stop"
            self.stop.set()

    def listen(self, file: int) -> None:
        """Takes orders, a line each, from an open file until it ends, which is an order to stop."""
        # Not by sys.stdin: its lock, held by a thread that waits, would keep Python from ending.
        rest = b""
        while content := os.read(file, 4096):
            *lines, rest = (rest + content).split(b"\n")
            for line in lines:
                self.obey(line.decode(errors="replace").strip())
        self.obey("stop")

    def on_event(self, event: Event) -> None:
        self._started = self._started or isinstance(event, RunStarted)
        if self._at_once and not self._started:
            raise StoppedEarly


class Task:
    """What ``job.json`` says: ``kind``, ``settings``, ``root``, ``device``, ``run_dir``, ``attempt``, ``sweep``.

    With ``shared``, the job is done on a machine of a cluster, and others watch for signs of life; ``gpus`` are those
    that it has there.
    """

    def __init__(self, folder: JobFolder) -> None:
        given = json.loads(folder.task.read_text(encoding="utf-8"))
        self.folder = folder
        self.kind: str = given["kind"]
        self.settings: Fields = given["settings"]
        self.workspace = Workspace(Path(given["root"]))
        self.device: str = "" if given["device"] == _ANY_DEVICE else given["device"]
        self.run_dir = Path(given["run_dir"]) if given["run_dir"] else None
        self.attempt: int = given["attempt"]
        self.shared: bool = given.get("shared", False)
        several = given.get("gpus", 0) > 1 and not self.settings.get("processes")
        self.processes: Fields = {"processes": "auto"} if several else {}
        self.sweep: str = given.get("sweep", "")


def train(task: Task, callbacks: Sequence[Callback], control: Control) -> tuple[bool, Fields]:
    """Trains, or goes on with the run that the job began; returns whether it was stopped, and its result."""
    if task.sweep:
        return run_of_sweep(task, callbacks, control)
    if task.run_dir and (result := finished(task)):
        return False, result
    from tincture import recipe
    from tincture.settings.train import TrainSettings

    watchers = [*callbacks, control]
    if task.run_dir and (task.run_dir / "run.json").is_file():
        try:
            return _trained(recipe.resume(task.run_dir, device=task.device, callbacks=watchers, stop=control.stop))
        except (DataError, FileFormatError, UsageError):
            # Pictures that changed, say: what has learned nothing yet may begin anew.
            if _steps_saved(task):
                raise
    device = {"device": task.device} if task.device else {}
    settings = TrainSettings.from_dict({**task.settings, **device, **task.processes})
    try:
        return _trained(recipe.train(settings, task.workspace, watchers, control.stop))
    except AlreadyTrainedError as error:
        return False, _nothing_to_do(recipe.find_adapter(settings, task.workspace), error)


def run_of_sweep(task: Task, callbacks: Sequence[Callback], control: Control) -> tuple[bool, Fields]:
    """Brings a run of a sweep to the step that is asked of it, or goes on to it; as ``train``."""
    from tincture.sweeps.sweep_folder import find_sweep
    from tincture.sweeps.trial import perform

    sweep, _, name = task.sweep.partition("/")
    begun = find_sweep(task.workspace, sweep)
    try:
        os.chdir(begun.cwd)  # from where its paths start
    except OSError as error:
        raise UsageError(
            f"The sweep was begun in {begun.cwd}, which this machine does not have ({error.strerror}); begin it in a "
            "folder that all machines share."
        ) from None
    found = perform(begun.trial(name), [*callbacks, control], control.stop, task.device)
    if found is None:
        return True, {}
    result = ("adapter_path", "run_dir", "global_step", "interrupted", "ending", "seconds")
    return False, {**{key: found[key] for key in result}, "loss": found["train_loss"]}


def preprocess(task: Task, callbacks: Sequence[Callback], control: Control) -> tuple[bool, Fields]:
    """Makes crops, those that are not there yet; returns whether it was stopped, and its result."""
    from tincture.preprocessing import pipeline

    settings = {**task.settings, **({"device": task.device} if task.device else {})}
    # What an earlier attempt began anew is gone on with, and not begun anew again.
    begun = any(event["type"] == "stage" for event in task.folder.events())
    overwrite = settings.pop("overwrite", False) and not begun
    made = pipeline.preprocess(**settings, overwrite=overwrite, callbacks=callbacks, stop=control.stop)
    result = {
        "destination": str(made.destination),
        "report": str(made.report),
        "counts": made.counts,
        "new": made.new,
        "interrupted": made.interrupted,
        "seconds": round(made.seconds, 3),
    }
    return made.interrupted, result


PERFORM: Mapping[str, Callable[[Task, Sequence[Callback], Control], tuple[bool, Fields]]] = {
    "train": train,
    "preprocess": preprocess,
}


def finished(task: Task) -> Fields | None:
    """The result of a run that came to its end before the server could note it; None of one that did not."""
    from tincture.run.best import best_path
    from tincture.run.folder import RunFolder, read_record
    from tincture.run.result import MEASURED
    from tincture.settings.train import TrainSettings
    from tincture.training.checkpoint import newest_state

    assert task.run_dir
    try:
        record = read_record(task.run_dir)
        ended = record.get("ended")
        # Without it stands one that was killed while it saved, so that something may be missing.
        if not ended or ended["interrupted"]:
            return None
        if not all(Path(one["adapter_path"]).is_file() for one in (ended, *ended.get("companions", ()))):
            return None
        settings, path = TrainSettings.from_dict(record["settings"]), Path(ended["adapter_path"])
        guard = newest_state(RunFolder(task.run_dir, settings.kind).states).get("parts", {}).get("guard", {})
    except TinctureError:
        return None
    events = task.folder.events()
    steps = [event for event in events if event["type"] == "steps"]
    measured = next((event for event in reversed(events) if event["type"] == "measured"), {})
    times = [event.get("time", 0.0) for event in events if event["type"] in ("started", "steps", "saved")]
    return {
        "adapter_path": str(path),
        "run_dir": str(task.run_dir),
        "global_step": ended["global_step"],
        "loss": steps[-1].get("loss_mean") if steps else None,
        "interrupted": False,
        "ending": ended["ending"],
        "seconds": round(times[-1] - times[0], 3) if times else None,
        **{name: guard.get(name, 0) for name in ("overflows", "divergences")},
        **_best(best if (best := best_path(path)).exists() and settings.validation_every else None),
        **{key: value for key, value in ended.items() if key == "companions"},
        **{name: measured[name] for name in MEASURED if name in measured},
    }


def _steps_saved(task: Task) -> bool:
    """Whether the job's run has a state of later than its first step, be it the only one that stays."""
    from tincture.training.checkpoint import list_states

    assert task.run_dir
    states = [step for step, _ in list_states(task.run_dir / "state")]
    began = [event["global_step"] for event in task.folder.events() if event["type"] == "started"]
    # A run that was killed at its first state has not told yet that it began.
    return len(states) > 1 or bool(states and began and states[0] > began[0])


def _trained(result: RunResult) -> tuple[bool, Fields]:
    return result.interrupted, {**result.to_dict(), "seconds": round(result.seconds, 3)}


def _nothing_to_do(path: Path, error: AlreadyTrainedError) -> Fields:
    how = {"interrupted": False, "nothing_to_do": True, "ending": str(error)}
    return {"adapter_path": str(path), "run_dir": None, "global_step": error.step, "loss": None, "seconds": 0.0, **how}


def _best(path: Path | None) -> Fields:
    return {"best_path": str(path)} if path else {}


def perform(task: Task, reporter: Reporter, control: Control) -> Fields:
    """Does the job and returns how it ended, as the event ``ended`` says it."""
    try:
        stopped, result = PERFORM[task.kind](
            task, [reporter, load_extensions(root=task.workspace.root).callback()], control
        )
        return {"state": "stopped" if stopped else "done", "result": result}
    except StoppedEarly:
        return {"state": "stopped", "result": {}}
    except TinctureError as error:
        return _failed(error, str(error))
    except Exception as error:
        with contextlib.suppress(OSError):  # the log's disk may be full
            traceback.print_exc()
        return _failed(error, _unexpected(error))


def _failed(error: Exception, sentence: str) -> Fields:
    return {"state": "failed", "error": sentence[:4000], "error_type": type(error).__name__}


def _unexpected(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "The machine's memory did not hold the job; close other programs, or give it less to do at a time."
    what = f"{type(error).__name__}: {foreign(error, 500)}"
    return f"The job ended by an error that was not foreseen ({what}); its log says where."


def run(folder: JobFolder, control: Control) -> int:
    """Does the job in ``folder``; returns the exit status."""
    task = Task(folder)
    with contextlib.suppress(OSError):
        print(f"--- attempt {task.attempt}, {time.strftime('%Y-%m-%d %H:%M:%S')}", flush=True)
    reporter = Reporter(folder)
    pulse = contextlib.closing(Pulse(folder.node_lock_file)) if task.shared else contextlib.nullcontext()
    with pulse, _remarks(reporter):
        ended = perform(task, reporter, control)
    reporter.end({**ended, "attempt": task.attempt})
    return {"done": 0, "stopped": STOPPED}.get(ended["state"], 1)


@contextlib.contextmanager
def _remarks(reporter: Reporter) -> Any:
    """Warnings that are meant for users become remarks."""
    show = warnings.showwarning

    def as_remark(message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any) -> None:
        if issubclass(category, UserWarning):
            reporter.remark(in_names(str(message)))
        else:
            show(message, category, *args, **kwargs)

    warnings.showwarning = as_remark
    try:
        yield
    finally:
        warnings.showwarning = show


def main(arguments: Sequence[str]) -> int:
    """The program."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    faulthandler.enable()
    control = Control()
    # Ctrl-C is meant for the server, which then asks for what it wants.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: control.obey("stop"))
    hang_up = getattr(signal, "SIGHUP", None)
    if hang_up and signal.getsignal(hang_up) is not signal.SIG_IGN:  # as it is under nohup
        signal.signal(hang_up, lambda *_: control.obey("stop"))
    threading.Thread(target=control.listen, args=[sys.stdin.fileno()], name="orders", daemon=True).start()
    return run(JobFolder(Path(arguments[0])), control)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
