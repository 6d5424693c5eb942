"""A service whose jobs, adapters and pictures are made by quick stand-ins: for tests of what lies around them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from PIL import Image

from tests import quick_worker
from tincture.errors import FileFormatError, StorageError, UsageError
from tincture.server.model_process.client import ModelProcess
from tincture.server.queue.supervisor import Supervisor
from tincture.server.queue.worker_process import DeviceWorkers
from tincture.server.service import Service
from tincture.settings.server import ServerSettings
from tincture.workspace import Workspace


class QuickProcess:
    """What processes with models answer, without a model.

    Attributes:
        asked: every call.
        made: what files say of how they were made.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.made: dict[str, Any] = {}
        self.error: Exception | None = None
        self.interrupted = 0

    def call(self, name: str, /, **arguments: Any) -> Any:
        self.asked.append((name, arguments))
        if self.error:
            raise self.error
        return getattr(self, "_" + name)(**arguments)

    def call_with_remarks(self, name: str, /, **arguments: Any) -> tuple[Any, list[str]]:
        return self.call(name, **arguments), ["It was done quickly."]

    def call_while_latest(self, key: str, name: str, /, **arguments: Any) -> Any:
        return self.call(name, **arguments)

    def forget(self, key: str) -> None:
        pass

    def interrupt(self) -> None:
        self.interrupted += 1

    def progress(self) -> dict[str, Any] | None:
        return {"done": 3, "total": 20, "preview": None} if self.asked else None

    def close(self) -> None:
        pass

    def _plan(self, settings: dict[str, Any], timing: str, digests: bool = False) -> dict[str, Any]:
        model = {"name": "picto", "hash": None, "family": "SD 1", "inpainting": False, "predicts": "noise"}
        return {
            **({"facts": {"data_hash": "now"}} if digests else {}),
            "settings": settings,
            "model": model,
            "pictures": 4,
            "samples_per_epoch": 4,
            "skipped": {"x.png": "no picture"},
            "remarks": ["odd"],
            "buckets": [{"size": "64x64", "pictures": 4, "cropped": 0.1}],
            "micro_batches_per_epoch": 4,
            "duration": {
                **dict.fromkeys(("seconds", "step_s", "preview_s", "validation_s", "encoding_s")),
                "previews": 2,
                "validations": 0,
                "measured": "no",
                "description": f"asked to {timing}",
            },
            "optimizer": "AdamW",
            "loss": "mse",
            "on_divergence": "stops",
            "steps": settings["steps"],
            "epochs": settings["steps"] / 4,
            "trained_numbers": 64,
            "memory_mib": {"peak": 10.0},
            "device": {"name": "CPU", "memory_mib": 16384},
        }

    def _inspect(self, path: Path) -> dict[str, Any]:
        if not path.is_file():
            raise FileFormatError(f"There is no file {path}.")
        size, name = path.stat().st_size, path.stem
        found = {"path": str(path), "kind": "embedding", "name": name, "size": size, "notes": ["It is <odd>."]}
        return {**found, **self.made}

    def _file_steps(self, paths: dict[str, Path]) -> dict[str, int | None]:
        return {name: path.stat().st_size for name, path in paths.items()}

    def _convert(self, path: Path, out: Path, to: str | None, name: str, **_: Any) -> dict[str, Any]:
        if not path.is_file():
            raise FileFormatError(f"There is no file {path}.")
        if out.exists():
            raise UsageError(f"There is a file {out} already; choose another name, or allow overwriting it.")
        try:
            write(out)
        except OSError as error:
            raise StorageError(f"The file {out} cannot be written: {error.strerror}.") from error
        if to == "png":
            Image.new("RGB", (8, 8)).save(out)
        return {"path": str(out), "kind": "embedding", "format": to or "pt", "name": name, "lost": ["The <step>."]}

    def _load(self, model: str, device: str) -> None:
        pass

    def _describe(self, picture: bytes, device: str, captioner: str, tagger: str) -> str:
        return f"{len(picture)} bytes"

    def rest(self) -> bool:
        return True

    def _add_adapter(self, path: Path, name: str) -> Path:
        raise UsageError(f"{name} holds nothing that can be added.")

    def _examine(self) -> dict[str, Any]:
        counts = {"embeddings": 1, "hypernetworks": 0, "free": 10**9}
        told = {"python": "3", "system": "a system", "libraries": {"torch": None}, "optional_parts": {"tag": False}}
        devices = [{"name": "cpu", "precisions": ["fp32"]}]
        return {**told, "devices": devices, "models": {}, "workspace": counts, "problems": ["torch is missing."]}

    def _draw(self, request: dict[str, Any], out: Path, **_: Any) -> list[Path]:
        out.mkdir(parents=True, exist_ok=True)
        paths = [out / f"{number:05}-{seed}.png" for number, seed in enumerate(request["seeds"], start=1)]
        for path in paths:
            Image.new("RGB", (8, 8)).save(path)
        return paths


class QuickFileProcess(QuickProcess):
    """Makes files of adapters too."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self.workspace = workspace

    def _create(self, kind: str, name: str, **_: Any) -> Path:
        return write(self.workspace.adapter_path(kind, name))

    def _merge(self, sources: list[tuple[Path, float]], out: Path | str, method: str, **_: Any) -> dict[str, Any]:
        path = self.workspace.adapter_path("embedding", out) if isinstance(out, str) else out
        of = [{"name": source.stem, "weight": weight, "step": 1} for source, weight in sources]
        made = {"path": str(write(path)), "kind": "embedding", "format": "pt", "name": path.stem, "method": method}
        return {**made, "exact": True, "sources": of, "lost": ["The <state>."]}

    def _model_fit(self, model: str, text: str) -> dict[str, Any]:
        widths = [112, 320, 768] if model == "wide" else [96, 112]
        about = {"family": "Stable Diffusion 1", "text_width": widths[-1], "most_vectors": 75}
        return {"name": model, "context_widths": widths, "tokens": text.split(), **about}

    def _list_embeddings(self, model: str) -> dict[str, list[dict[str, Any]]]:
        about = {"step": 3, "sd_checkpoint": None, "sd_checkpoint_name": model, "shape": 64, "vectors": 1}
        paths = self.workspace.list_adapters("embedding")
        return {"loaded": [{"name": path.stem, "path": str(path), **about} for path in paths], "skipped": []}


def write(path: Path) -> Path:
    """A file that listings take for an adapter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"adapter " + path.stem.encode())
    return path


def write_pictures(folder: Path, count: int = 3, side: int = 16) -> Path:
    """Pictures ``0.png`` and so on, the first with a caption."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.new("RGB", (side, side), (40 * index % 256, 0, 0)).save(folder / f"{index}.png")
    (folder / "0.txt").write_text("a red square")
    return folder


def quick_service(root: Path, *, pace_s: float = 0.0, **settings: Any) -> Service:
    """A service on the workspace ``root`` with the embedding ``cat`` and pictures in ``pictures``; not started."""
    workspace = Workspace(root)
    write(workspace.adapter_path("embedding", "cat"))
    write_pictures(root / "pictures")
    service = Service(workspace, ServerSettings(**{"device": ("cpu",), **settings}))
    command = [sys.executable, quick_worker.__file__, str(pace_s)]
    workers = DeviceWorkers(root, ["cpu"], command=command)
    service.queue.supervisor = Supervisor(service.queue.store, service.state_dir / "jobs", workspace, workers)
    service.model_work.file_process, service.model_work.drawing_process = (
        cast(ModelProcess, QuickFileProcess(workspace)),
        cast(ModelProcess, QuickProcess()),
    )
    return service


@contextmanager
def started(service: Service) -> Iterator[Service]:
    """The service at work."""
    service.start()
    try:
        yield service
    finally:
        service.close()


def training(**settings: Any) -> dict[str, Any]:
    """A job for ``POST /api/v1/jobs``."""
    return {
        "kind": "train",
        "settings": {"kind": "embedding", "name": "cat", "data": "pictures", "steps": 3, **settings},
    }


def until(wanted: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Waits; fails when it takes too long."""
    import time

    end = time.monotonic() + timeout_s
    while not wanted():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
