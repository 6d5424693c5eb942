"""What may have changed between a run's stop and its resume: where the workspace lies, and the adapter's file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tincture.adapters.adapter import Adapter
from tincture.data.listing import Source
from tincture.errors import UsageError
from tincture.run.folder import RunFolder, read_record, write_json
from tincture.workspace import Workspace

_PATHS = ("model", "vae", "masks", "cache_dir")


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
    data = settings["data"]
    settings["data"] = _found(data, old, new) if isinstance(data, str) else [_found(text, old, new) for text in data]
    path = _moved(Path(record["adapter_path"]), old, new)
    return {**record, "settings": settings, "root": str(new), "adapter_path": str(path)}


def _found(text: str, old: Path, new: Path) -> str:
    """A path, or a folder with repeats ("FOLDER:3"), in the new place if it is there, else as it was."""
    moved = str(_moved(Path(text), old, new))
    return moved if Source.parse(moved).folder.exists() else text


def _moved(path: Path, old: Path, new: Path) -> Path:
    return new / path.relative_to(old) if path.is_relative_to(old) else path


def adapter_digest(adapter: Adapter) -> str:
    """SHA-256 (hexadecimal) of what an adapter's file tells it learned: its steps and its tensors, in any format."""
    total = hashlib.sha256(str(adapter.step).encode())
    for name, tensor in sorted(adapter.published().state_dict().items()):
        total.update(f" {name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        flat = tensor.detach().cpu().flatten().contiguous()
        total.update(flat.view(torch.uint8).numpy().tobytes())  # numpy has no bfloat16
    return total.hexdigest()


@contextmanager
def noted(folder: RunFolder, adapter: Adapter) -> Iterator[None]:
    """Keeps in the run's record what stands in the adapter's file, which is written within.

    A run that is killed meanwhile has noted both what stood there before and what was to stand there, so that its
    resume knows either as its own. Runs of before such notes stay without.
    """
    record = read_record(folder.path)
    if "adapter_digests" not in record:
        yield
        return
    new = adapter_digest(adapter)
    write_json(folder.record, {**record, "adapter_digests": [*record["adapter_digests"], new]})
    yield
    write_json(folder.record, {**record, "adapter_digests": [new]})


def refuse_foreign(adapter: Adapter, path: Path, record: Mapping[str, Any], run_dir: Path) -> None:
    """UsageError when the adapter in ``path`` is not what the run left there, so that its work would be lost."""
    known = record.get("adapter_digests")
    if known is not None and adapter_digest(adapter) not in known:
        raise UsageError(
            f"{path} is not what the run in {run_dir} left there: it was made anew or trained by another run since, "
            "and resuming would overwrite it. Move it away to resume all the same."
        )
