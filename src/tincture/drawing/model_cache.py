"""A model that stays loaded for the next one who asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tincture.formats.file_state import FileState, state_of
from tincture.models.devices import release_memory
from tincture.models.diffusion_model import DiffusionModel
from tincture.models.loading.default_model import remember_model
from tincture.models.loading.load import load_model
from tincture.models.loading.sources import find_source, find_vae

if TYPE_CHECKING:
    from tincture.workspace import Workspace


class ModelCache:
    """Loads models as ``load_model`` does, and keeps the last one.

    It is given again while the same is asked for and its files have not changed. Before another one is loaded it is let
    go, so that two never lie in memory. What it is attached to must be detached by then.

    Attributes:
        loads: how many were loaded so far.
    """

    def __init__(self) -> None:
        self.loads = 0
        self._model: DiffusionModel | None = None
        self._key: object = None

    def load(
        self,
        name: str = "",
        *,
        workspace: Workspace | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        vae: str = "",
        **chosen: Any,
    ) -> DiffusionModel:
        """The model; arguments and errors as of ``load_model``."""
        source = find_source(name, workspace)
        vae_path = find_vae(vae, workspace) if vae else None
        files = (_state(source.path), _state(vae_path))
        key = (str(source), str(vae_path), str(device), dtype, tuple(sorted(chosen.items())), files)
        if self._model is None or key != self._key:
            self.forget()
            self._model = load_model(str(source), workspace=workspace, device=device, dtype=dtype, vae=vae, **chosen)
            self._key = key
            self.loads += 1
            if workspace is not None:
                remember_model(workspace, source.path)
        return self._model

    def forget(self) -> None:
        """Lets the model go, and gives its memory back."""
        if self._model is None:
            return
        self._model = self._key = None
        release_memory()


def _state(path: Path | None) -> tuple[FileState, ...]:
    """What changes whenever a file, or a file of a folder, is written anew; of one that is not there, nothing."""
    if path is None:
        return ()
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return tuple(state_of(file.stat()) for file in files if file.exists())
