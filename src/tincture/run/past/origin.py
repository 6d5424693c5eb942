"""The run that an adapter's file came of, where its folder lies in the workspace: it knows more than the file."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tincture.data.captions import template_names
from tincture.data.listing import Source
from tincture.errors import UsageError
from tincture.run.past.past_run import LAST_STEPS, PastRun, read_loosely, run_folders
from tincture.settings.run_file import checked_part
from tincture.settings.train import FIELDS
from tincture.workspace import Workspace

MOST_FOLDERS = 1000
"""Of runs, the latest, are looked through."""
_SAME = ("kind", "name", "steps", "learning_rate", "batch_size", "seed")
"""Settings in which a file and its run agree, besides the pictures; those that name places do not."""
_FOLDERS = ("data", "validation_data", "prior_data")
_TEMPLATES = ("template", "prior_template")


@dataclass(frozen=True)
class RunOrigin:
    """A run that made a file.

    Attributes:
        folder: the run's.
        settings: fields of ``TrainSettings`` as they count on this machine: places are absolute paths.
        loss: mean over the last steps up to the file's, ``LAST_STEPS`` at most; None where none is written down.
        loss_steps: over how many.
        previews: the latest pictures up to the file's step, one per prompt.
        preview_step: the step that they show; None without any.
    """

    folder: Path
    settings: Mapping[str, Any]
    loss: float | None = None
    loss_steps: int = 0
    previews: tuple[Path, ...] = ()
    preview_step: int | None = None


@dataclass(frozen=True)
class _Wanted:
    """What is known of the run from the file."""

    data_hash: str
    settings: Mapping[str, Any]
    step: int


def run_origin(workspace: Workspace, found: Mapping[str, Any]) -> RunOrigin | None:
    """The run of a file, None where it is not in the workspace, or the file does not say how it was trained.

    Args:
        found: what ``inspect_file`` says of the file.
    """
    provenance = found.get("provenance")
    if not isinstance(provenance, Mapping) or not isinstance(settings := provenance.get("settings"), Mapping):
        return None
    step = found.get("step")
    wanted = _Wanted(str(provenance.get("data_hash")), settings, step if isinstance(step, int) else 0)
    for folder in _folders(workspace, Path(found["path"])):
        record = read_loosely(folder)
        if record and record.get("data_hash") == wanted.data_hash and _agree(record["settings"], settings):
            return _origin(folder, record, wanted)
    return None


def settings_again(workspace: Workspace, found: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Fields of ``TrainSettings`` with which the file was trained, and those that name what is not in the workspace.

    A file names folders by their last names: they are looked for among the data sets, unless its run is here.

    Args:
        found: what ``inspect_file`` says of the file.

    Raises:
        UsageError: it does not say how it was trained, or names a value that is not allowed.
    """
    path, provenance = Path(found["path"]), found.get("provenance")
    stated = provenance.get("settings") if isinstance(provenance, Mapping) else None
    if not isinstance(stated, Mapping):
        raise UsageError(f"{path.name} does not say how it was trained; choose its settings yourself.")
    known = {name: value for name, value in stated.items() if name in FIELDS}
    settings = checked_part(known, path.name)
    if "kind" not in settings or "name" not in settings:
        raise UsageError(f"{path.name} does not say what was trained; choose its settings yourself.")
    if origin := run_origin(workspace, found):
        return checked_part({name: origin.settings[name] for name in FIELDS if name in origin.settings}), []
    absent = []
    for name in settings.keys() & {*_FOLDERS, *_TEMPLATES, "masks", "vae"}:
        settings[name], is_here = _here(workspace, name, settings[name])
        absent += [] if is_here else [name]
    return settings, sorted(absent, key=list(FIELDS).index)


def _here(workspace: Workspace, name: str, value: Any) -> tuple[Any, bool]:
    """The value of a setting that names places, as it counts here, and whether all of them are here."""
    if name in _TEMPLATES:
        return value, value in ("", *template_names(workspace.templates))
    if name not in _FOLDERS:
        return value, not value
    one_folder = isinstance(value, str)
    sources = [Source.parse(text) for text in ([value] if one_folder else value)]
    placed = [Source(workspace.datasets / source.folder, source.repeats) for source in sources]
    is_here = [_is_name(source.folder) and place.folder.is_dir() for source, place in zip(sources, placed, strict=True)]
    chosen = [str(new if here else old) for old, new, here in zip(sources, placed, is_here, strict=True)]
    return chosen[0] if one_folder else chosen, all(is_here)


def _is_name(folder: Path) -> bool:
    """Whether it leads nowhere else."""
    return folder.name == str(folder) != ".."


def _folders(workspace: Workspace, path: Path) -> Iterator[Path]:
    """Folders of runs: first the one that the file lies in, then the latest."""
    yield path.parent.parent
    yield from itertools.islice(run_folders(workspace.logs), MOST_FOLDERS)


def _agree(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one.get(name) == other.get(name) for name in _SAME)


def _origin(folder: Path, record: Mapping[str, Any], wanted: _Wanted) -> RunOrigin:
    run = PastRun(folder, str(folder), record)
    logged = run.losses()
    until = [loss for step, loss in zip(logged["step"], logged["loss"], strict=True) if step <= wanted.step]
    losses = [loss for loss in until if math.isfinite(loss)][-LAST_STEPS:]
    latest = max((made for made in run.previews if made <= wanted.step), default=None)
    mean = sum(losses) / len(losses) if losses else None
    previews = () if latest is None else tuple(run.previews[latest])
    return RunOrigin(folder, run.settings, mean, len(losses), previews, latest)
