"""The library's entry: make an adapter, plan, train, resume.

What is named and not there is refused before torch is loaded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tincture.events import Callback
from tincture.models.heavy_imports import heavy_imports
from tincture.processes.launch import find_launch
from tincture.run import presence
from tincture.run.presence import find_adapter
from tincture.run.preview_request import request_preview
from tincture.run.result import RunResult
from tincture.settings.train import TrainSettings
from tincture.workspace import Workspace

if TYPE_CHECKING:
    from tincture.run.create import create_embedding, create_hypernetwork
    from tincture.run.duration import Timing

__all__ = [
    "RunResult",
    "create",
    "create_embedding",
    "create_hypernetwork",
    "find_adapter",
    "plan",
    "preview",
    "resume",
    "train",
]


def create(
    kind: str, name: str, *, workspace: Workspace, model: str = "", overwrite: bool = False, **options: Any
) -> Path:
    """Writes a new adapter into the workspace and returns its path; see ``tincture.run.create.create``."""
    presence.require_creation(kind, workspace.adapter_path(kind, name), options, model, workspace, overwrite)
    with heavy_imports():
        from tincture.run import create as creation

    return creation.create(kind, name, workspace=workspace, model=model, overwrite=overwrite, **options)


def plan(
    settings: TrainSettings,
    workspace: Workspace,
    timing: Timing = "measure",
    watch: Callable[[], object] = lambda: None,
    *,
    digests: bool = False,
    alone: bool = False,
) -> dict[str, Any]:
    """What ``train`` would do, with nothing written; see ``tincture.run.plan.plan``."""
    presence.require_training(settings, workspace)
    _require_usable(settings)
    with heavy_imports():
        from tincture.run import plan as planning

    return planning.plan(settings, workspace, timing, watch, digests=digests, alone=alone)


def train(
    settings: TrainSettings,
    workspace: Workspace,
    callbacks: Sequence[Callback] = (),
    stop: threading.Event | None = None,
) -> RunResult:
    """Trains an adapter that exists in the workspace; see ``tincture.run.train.train``."""
    if find_launch(asked=settings.processes) is None:  # else it is found where the other processes learn of it
        presence.require_training(settings, workspace)
        _require_usable(settings)
    with heavy_imports():
        from tincture.run import train as training

    return training.train(settings, workspace, callbacks, stop)


def resume(
    run_dir: Path,
    *,
    workspace: Workspace | None = None,
    memory: Mapping[str, Any] | None = None,
    device: str = "",
    callbacks: Sequence[Callback] = (),
    stop: threading.Event | None = None,
) -> RunResult:
    """Goes on with the run in ``run_dir`` exactly where its newest state stands; see ``tincture.run.train.resume``."""
    if find_launch(asked=(memory or {}).get("processes", "")) is None:
        presence.require_resume(Path(run_dir), memory or {}, device)
    with heavy_imports():
        from tincture.run import train as training

    return training.resume(run_dir, workspace=workspace, memory=memory, device=device, callbacks=callbacks, stop=stop)


def preview(run_dir: Path) -> None:
    """Lets a run that goes on, in whatever process, draw previews after its present step; it trains the same.

    Raises:
        UsageError: it is not going on.
        FileFormatError: the folder is not one of a run.
        StorageError: the folder cannot be written.
    """
    presence.require_going_on(Path(run_dir))
    request_preview(Path(run_dir))


def __getattr__(name: str) -> Any:
    if name in ("create_embedding", "create_hypernetwork"):
        with heavy_imports():
            from tincture.run import create as creation

        return getattr(creation, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _require_usable(settings: TrainSettings) -> None:
    with heavy_imports():
        from tincture.run.usable import require_usable
    require_usable(settings)
