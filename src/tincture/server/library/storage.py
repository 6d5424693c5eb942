"""What lies in the folders that a server fills: copies that trainings saved, drawn pictures, the room they take."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tincture.errors import StorageError
from tincture.formats.files import write_text
from tincture.formats.temporary_file import sweep
from tincture.kinds.registry import kind_names, kinds
from tincture.workspace import TRAINABLE_SUFFIXES, Workspace, adapter_files, parse_copy_name

PICTURES = "pictures"
UPLOADS = "uploads"
CONVERTED = "converted"
"""Folder of the workspace for files of other formats, away from those that programs load."""
FILE_SUFFIXES = TRAINABLE_SUFFIXES | {".bin", ".png", ".webp"}
_CHOICE = "default-model.txt"


def served_folders(workspace: Workspace, state_dir: Path) -> list[Path]:
    """Folders whose files the page shows or offers for download; the queue and the models are not among them."""
    adapters = [workspace.adapter_folder(kind) for kind in kind_names()]
    return [workspace.logs, workspace.datasets, *adapters, workspace.root / CONVERTED, state_dir / PICTURES]


def list_copies(workspace: Workspace) -> list[dict[str, Any]]:
    """Copies of adapters in the folders of runs: ``kind``, ``name``, ``step``, ``path``, ``run`` (DATE/NAME).

    By run, and in a run by step.
    """
    found = [
        copy
        for kind in kinds()
        for folder in workspace.logs.glob(f"*/*/{kind.plural}")
        for copy in _copies_in(folder, kind.name, workspace)
    ]
    return sorted(found, key=lambda copy: (copy["run"], copy["name"], copy["step"]))


def _copies_in(folder: Path, kind: str, workspace: Workspace) -> Iterator[dict[str, Any]]:
    for path in folder.iterdir() if folder.is_dir() else ():
        copy = parse_copy_name(path.stem)
        if copy and path.suffix in TRAINABLE_SUFFIXES:
            run = folder.parent.relative_to(workspace.logs).as_posix()
            yield {"kind": kind, "name": copy[0], "step": copy[1], "path": str(path), "run": run}


def list_files(workspace: Workspace) -> list[dict[str, Any]]:
    """Files of adapters in every format: ``kind``, ``name`` (with suffix), ``path``, ``size``, ``mtime``; latest first.

    ``kind`` is that of an adapter or ``converted``, by the folder.
    """
    folders = {kind: workspace.adapter_folder(kind) for kind in kind_names()}
    folders["converted"] = workspace.root / CONVERTED
    found = [
        {"kind": kind, "name": path.name, "path": str(path), "size": state.st_size, "mtime": state.st_mtime}
        for kind, folder in folders.items()
        for path, state in adapter_files([folder], FILE_SUFFIXES)
    ]
    return sorted(found, key=lambda file: -file["mtime"])


def chosen_model(state_dir: Path) -> str:
    """The base model that was chosen for requests that name none; empty when none was."""
    try:
        return (state_dir / _CHOICE).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def choose_model(state_dir: Path, name: str) -> None:
    """Keeps the choice; StorageError."""
    write_text(state_dir / _CHOICE, name)


def clear_uploads(state_dir: Path) -> None:
    """Deletes what is left of uploads that were killed; only to be called while none comes in."""
    shutil.rmtree(state_dir / UPLOADS, ignore_errors=True)


def sweep_half_written(workspace: Workspace, state_dir: Path) -> None:
    """Deletes what processes left that were killed while they wrote a file; what living ones write stays."""
    adapters = [workspace.adapter_folder(kind) for kind in kind_names()]
    for folder in (*adapters, workspace.root / CONVERTED, workspace.datasets, state_dir):
        sweep(folder, inner=True)


def usage(state_dir: Path) -> dict[str, int]:
    """Bytes by what is in the server's own folder: ``pictures``, ``jobs``, ``other``; and ``free`` on its disk."""
    taken = {PICTURES: 0, "jobs": 0, "other": 0}
    for path in state_dir.iterdir() if state_dir.is_dir() else ():
        taken[path.name if path.name in taken else "other"] += _bytes(path)
    return {**taken, "free": shutil.disk_usage(_there(state_dir)).free}


def clear_pictures(state_dir: Path) -> int:
    """Deletes the pictures that were drawn, and returns how many there were; StorageError."""
    folder = state_dir / PICTURES
    count = sum(1 for path in folder.rglob("*.png") if path.is_file())
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise StorageError(f"The folder {folder} could not be deleted: {error.strerror or error}.") from error
    return count


def _bytes(path: Path) -> int:
    """Of a file, or of all files in a folder; links are not followed."""
    if not path.is_dir() or path.is_symlink():
        return _size(path)
    return sum(_size(Path(folder, name)) for folder, _, names in os.walk(path) for name in names)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0  # deleted in between


def _there(path: Path) -> Path:
    """The nearest folder above that exists."""
    return path if path.is_dir() else _there(path.parent)
