"""A run whose workspace was moved since it began: its places in the new one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tincture.data.listing import Source
from tincture.run.folder import noted_of_each, with_noted
from tincture.workspace import Workspace

_PATHS = ("model", "vae", "masks", "cache_dir", "caption_model")


def relocated(record: Mapping[str, Any], run_dir: Path, workspace: Workspace) -> dict[str, Any]:
    """A run's record with its places in ``workspace``, if that is where its own workspace was moved to.

    So it is when the run's folder lies in it. The adapter's path then lies there whether there is such a file or not;
    what the run reads does where it is found there. Paths outside the old workspace stay.

    Args:
        run_dir: the run's folder, an absolute path without links.
    """
    old, new = Path(record["root"]), workspace.root.resolve()
    if old == new or not run_dir.is_relative_to(new):
        return dict(record)
    settings = dict(record["settings"])
    settings |= {name: _found(settings[name], old, new) for name in _PATHS if settings.get(name)}
    for name in ("data", "validation_data", "prior_data"):
        data = settings.get(name)
        if not data:
            continue
        settings[name] = _found(data, old, new) if isinstance(data, str) else [_found(text, old, new) for text in data]
    moved = {**record, "settings": settings, "root": str(new)}
    for number, noted in enumerate(noted_of_each(record)):
        path = _moved(Path(noted["adapter_path"]), old, new)
        moved = with_noted(moved, number, {"adapter_path": str(path)})
    return moved


def _found(text: str, old: Path, new: Path) -> str:
    """A path, or a folder with repeats ("FOLDER:3"), in the new place if it is there, else as it was."""
    moved = str(_moved(Path(text), old, new))
    return moved if Source.parse(moved).folder.exists() else text


def _moved(path: Path, old: Path, new: Path) -> Path:
    return new / path.relative_to(old) if path.is_relative_to(old) else path
