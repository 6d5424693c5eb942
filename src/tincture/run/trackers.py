"""The trackers that a run's settings name: TensorBoard by its own writer, all others by way of Accelerate.

What a tracker was given is noted in ``trackers.json`` of the run's folder, so that a run that goes on appends to the
same run of the tracker, and gives no number twice. Accelerate is loaded only where such a tracker is asked for.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tincture.errors import UsageError, foreign
from tincture.events import Emit, PreviewReady, Stage
from tincture.formats.files import write_text
from tincture.models.diffusion_model import DiffusionModel
from tincture.processes.ranks import Processes
from tincture.run.duration import STARTING_TRACKERS
from tincture.run.folder import RECORD, RunFolder
from tincture.run.records import settings_to_pass_on
from tincture.settings.groups.tracking import TENSORBOARD
from tincture.settings.train import TrainSettings
from tincture.training.metrics import TensorBoardLog
from tincture.training.tracker_log import Shown, TrackerLog

_NOTES = "trackers.json"
_ONE_PICTURE = frozenset({"aim", "clearml"})
"""Whose ``log_images`` takes a picture by name; others take a list of them."""


class RunTrackers:
    """The trackers of a run. A context, which ends them; in a process that is not the main one there are none.

    Args:
        find_folder: the run's folder, made if need be: where it holds no run in the end, it is removed.

    Attributes:
        opened: those that were started.
    """

    def __init__(self, find_folder: Callable[[], RunFolder], processes: Processes) -> None:
        self._find_folder, self._is_main = find_folder, processes.is_main
        self._path: Path | None = None
        self.opened: Sequence[TrackerLog] = ()

    def start(self, global_step: int, settings: TrainSettings, model: DiffusionModel, emit: Emit) -> None:
        """Starts them, before what takes long: one may have to be logged in to; UsageError as ``open_trackers``."""
        if self._is_main and settings.trackers:
            folder = self._find_folder()
            self._path = folder.path
            with Stage(emit, STARTING_TRACKERS):
                self.opened = open_trackers(settings, folder, global_step, settings_to_pass_on(settings, model))

    def __enter__(self) -> RunTrackers:
        return self

    def __exit__(self, *error: object) -> None:
        for tracker in self.opened:
            tracker.close()
        if self._path and not (self._path / RECORD).exists():
            shutil.rmtree(self._path, ignore_errors=True)
            with contextlib.suppress(OSError):
                self._path.parent.rmdir()


def open_trackers(
    settings: TrainSettings, folder: RunFolder, global_step: int, config: Mapping[str, Any]
) -> list[TrackerLog]:
    """Watchers that hand the run's numbers on; each is to be closed, whatever becomes of the run.

    Args:
        global_step: the step that the run goes on from.
        config: the settings that the trackers are shown: no places of this machine.

    Raises:
        UsageError: one is not installed, or does not start.
    """
    opened: list[TrackerLog] = []
    state, notes = _State(), _Notes(folder.path / _NOTES)
    try:
        for name in settings.trackers:
            if name == TENSORBOARD:
                opened.append(TensorBoardLog(folder.tensorboard, global_step))
            else:
                opened.append(
                    TrackerLog(AccelerateTracker(name, settings.log_project, folder.path, config, notes, state))
                )
    except UsageError:
        for each in opened:
            each.close()
        raise
    return opened


class AccelerateTracker:
    """A tracker that Accelerate knows, as ``TrackerLog`` uses it.

    Raises:
        UsageError: it does not start.
    """

    def __init__(
        self, name: str, project: str, run_dir: Path, config: Mapping[str, Any], notes: _Notes, state: _State
    ) -> None:
        self.name, self._notes, self._state = name, notes, state
        state.enter()
        try:
            self._tracker = _started(name, project, run_dir, notes)
            self._tracker.store_init_configuration({key: _plain(value) for key, value in config.items()})
        except (Exception, SystemExit) as error:
            state.leave()
            raise UsageError(
                f"The tracker {name} of --log-with does not start ({type(error).__name__}: {foreign(error)}). Log in "
                "to it, set it to work offline, or leave it out."
            ) from error

    def log(self, global_step: int, source: str, numbers: Mapping[str, float]) -> None:
        if self._notes.is_new(self.name, source, global_step):
            self._tracker.log(dict(numbers), step=global_step)

    def log_previews(self, global_step: int, pictures: Mapping[str, Shown]) -> None:
        if not self._notes.is_new(self.name, PreviewReady.__name__, global_step):
            return
        if hasattr(self._tracker, "log_images"):
            shown = {name: each.pixels for name, each in pictures.items()}
            alone = self.name in _ONE_PICTURE
            self._tracker.log_images({k: v if alone else [v] for k, v in shown.items()}, step=global_step)
        elif hasattr(self._tracker, "log_artifact"):
            for each in pictures.values():
                self._tracker.log_artifact(str(each.path), artifact_path="previews")

    def go_back(self, global_step: int) -> None:
        """Such trackers take nothing back: of steps that are made again, they keep what they have."""

    def close(self) -> None:
        try:
            self._tracker.finish()
        finally:
            self._state.leave()


class _State:
    """Accelerate's own state, which its trackers' logging needs; given back as it was once the last one has left."""

    def __init__(self) -> None:
        self._users, self._is_ours = 0, False

    def enter(self) -> None:
        from accelerate.state import PartialState

        if not self._users and not PartialState._shared_state:
            PartialState(cpu=True)  # which chooses no device of its own
            self._is_ours = True
        self._users += 1

    def leave(self) -> None:
        from accelerate.state import PartialState

        self._users -= 1
        if not self._users and self._is_ours:
            PartialState._reset_state()


class _Notes:
    """By tracker: the id of its run, and by source of numbers the last step that it was given."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = {}
        self._notes: dict[str, dict[str, Any]] = found if isinstance(found, dict) else {}

    def of(self, name: str) -> dict[str, Any]:
        return self._notes.setdefault(name, {})

    def note(self, name: str, **values: Any) -> None:
        self.of(name).update(values)
        text = json.dumps(self._notes, indent=2) + "\n"
        write_text(self._path, text, durably=False)

    def is_new(self, name: str, source: str, global_step: int) -> bool:
        """Whether the tracker has not been given it; notes that it is now, before it is: none is given twice."""
        last = self.of(name).get(source, -1)
        if isinstance(last, int) and global_step <= last:
            return False
        self.note(name, **{source: global_step})
        return True


def _started(name: str, project: str, run_dir: Path, notes: _Notes) -> Any:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    made = LOGGER_TYPE_TO_CLASS[name]
    begun = "id" in notes.of(name)
    own_id = str(notes.of(name).get("id") or secrets.token_hex(16))
    _, _project, *others = inspect.signature(made.__init__).parameters.items()
    known = dict(others)
    takes_all = any(each.kind is each.VAR_KEYWORD for each in known.values())
    options = _options(name, own_id, run_dir, begun=begun)
    tracker = made(
        project, **{key: value for key, value in options.items() if key in known or (takes_all and key != _project[0])}
    )
    tracker.start()
    notes.note(name, id=_given_id(name, tracker) or own_id)
    return tracker


def _options(name: str, own_id: str, run_dir: Path, *, begun: bool) -> dict[str, Any]:
    """What each takes to call its run as ours, to keep its files there, and to go on with the same one.

    Args:
        begun: whether the run was begun before, under ``own_id``.
    """
    run, folder = "/".join(run_dir.parts[-2:]), str(run_dir)
    options: dict[str, dict[str, Any]] = {
        "wandb": {"name": run, "id": own_id, "resume": "allow", "dir": folder},
        "mlflow": {"run_name": run, "run_id": own_id if begun else None},
        "comet_ml": {"experiment_key": own_id, "mode": "get_or_create"},
        "aim": {"logging_dir": folder, "run_hash": own_id if begun else None},
        "clearml": {"task_name": run, "continue_last_task": own_id if begun else False},
        "dvclive": {"dir": str(run_dir / "dvclive"), "resume": begun},
        "swanlab": {"experiment_name": run, "id": own_id[:21], "resume": "allow", "logdir": str(run_dir / "swanlab")},
        "trackio": {"name": run, "resume": "allow"},
    }
    return options[name]


def _given_id(name: str, tracker: Any) -> str:
    """The id of those that give one themselves; empty for those that take ours."""
    paths = {"mlflow": ("info", "run_id"), "aim": ("hash",), "clearml": ("id",)}
    found = tracker.tracker if name in paths else None
    for part in paths.get(name, ()):
        found = getattr(found, part, None)
    return str(found) if found else ""


def _plain(value: Any) -> bool | int | float | str | None:
    """A setting as trackers take it."""
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
