"""What this machine can do: versions, devices, precisions, optional parts, models, the workspace."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tincture.formats.software import VERSION
from tincture.kinds.registry import kinds
from tincture.models import threads
from tincture.models.arithmetic import Arithmetic
from tincture.models.devices import PRECISIONS
from tincture.models.inspection import describe_model
from tincture.workspace import Workspace

LIBRARIES = ("torch", "diffusers", "transformers", "safetensors", "numpy", "pillow")
OPTIONAL_PARTS = {
    "tensorboard": "tensorboard",
    "preprocess": "cv2",
    "tag": "onnxruntime",
    "heic": "pillow_heif",
    "server": "fastapi",
    "ui": "gradio",
    "sweep": "optuna",
    "cluster": "ray",
}
"""For each extra of the package for users, the module that it brings."""
PICTO_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
LITTLE_SPACE = 1 << 30  # bytes; a run with copies and training state of an SD 1 hypernetwork needs about that


def examine(workspace: Workspace) -> dict[str, Any]:
    """Look at everything a run needs; nothing is changed.

    Returns:
        Plain values for JSON. ``problems`` is a list of sentences, empty when all is well; sizes are bytes.
    """
    arithmetic = Arithmetic.current()
    report = {
        "tincture": VERSION,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu_threads": torch.get_num_threads(),
        "threads": threads.sentence(),
        "arithmetic": {**arithmetic.to_dict(), "remarks": arithmetic.remarks()},
        "libraries": {name: _version(name) for name in LIBRARIES},
        "optional_parts": {
            name: importlib.util.find_spec(module) is not None for name, module in OPTIONAL_PARTS.items()
        },
        "devices": [_device(device) for device in _devices()],
        "picto_complete": not _missing_from_picto(),
        "models": {
            path.relative_to(workspace.models).as_posix(): describe_model(path) for path in workspace.list_models()
        },
        "workspace": _workspace(workspace),
    }
    return {**report, "problems": list(_problems(report))}


def as_text(report: Mapping[str, Any]) -> str:
    """The report for a person."""
    workspace, extras = report["workspace"], report["optional_parts"].items()
    arithmetic = report["arithmetic"]
    rows = [
        ("tincture", report["tincture"]),
        ("python", f"{report['python']} on {report['system']}"),
        ("processor", f"{arithmetic['processor']}; {arithmetic['threads']} threads, MKL's mode: {arithmetic['mkl']}"),
        *(("", remark) for remark in arithmetic["remarks"]),
        ("threads", report["threads"]),
        ("libraries", ", ".join(f"{name} {version or 'missing'}" for name, version in report["libraries"].items())),
        *((f"extra {name}", "installed" if there else "not installed") for name, there in extras),
        *((f"device {device['name']}", _device_text(device)) for device in report["devices"]),
        ("model picto", "embedded, complete" if report["picto_complete"] else "not complete"),
        *(("model", f"{name}: {words}") for name, words in report["models"].items()),
        ("workspace", workspace["root"]),
        ("", f"{'writable' if workspace['writable'] else 'not writable'}, {workspace['free'] / 1e9:.1f} GB free"),
        ("", ", ".join(f"{workspace[kind.plural]} {kind.plural}" for kind in kinds())),
        *(("problem", problem) for problem in report["problems"]),
    ]
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label:<{width}}  {text}" for label, text in rows)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> Iterator[torch.device]:
    yield torch.device("cpu")
    for kind in ("cuda", "xpu"):
        module = getattr(torch, kind)
        if module.is_available():
            yield from (torch.device(kind, index) for index in range(module.device_count()))
    if torch.backends.mps.is_available():
        yield torch.device("mps")


def _device(device: torch.device) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": str(device)}
    if device.type in ("cuda", "xpu"):
        properties = getattr(torch, device.type).get_device_properties(device)
        facts |= {"model": properties.name, "memory": properties.total_memory}
    return facts | {"precisions": [name for name, dtype in PRECISIONS.items() if _works(device, dtype)]}


def _works(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether what a U-Net is made of runs forward and backward: convolution, attention, a finite gradient."""
    try:
        pixels = torch.ones(1, 8, 8, 8, device=device, dtype=dtype, requires_grad=True)
        kernel = torch.full((8, 8, 3, 3), 0.01, device=device, dtype=dtype)
        tokens: Tensor = torch.nn.functional.conv2d(pixels, kernel, padding=1).flatten(2).transpose(1, 2)
        attended = torch.nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
        (gradient,) = torch.autograd.grad(attended.sum(), pixels)
    except (RuntimeError, TypeError, NotImplementedError):
        return False
    return bool(torch.isfinite(gradient).all())


def _device_text(device: Mapping[str, Any]) -> str:
    memory = f"{device['model']}, {device['memory'] / 1e9:.1f} GB, " if "memory" in device else ""
    return f"{memory}precisions that work: {', '.join(device['precisions']) or 'none'}"


def _missing_from_picto() -> list[str]:
    weights = files("tincture.models.picto") / "weights"
    return [part for part in PICTO_PARTS if not (weights / part).is_dir()]


def _workspace(workspace: Workspace) -> dict[str, Any]:
    return {
        "root": str(workspace.root),
        "writable": os.access(workspace.root, os.W_OK | os.X_OK),
        "free": shutil.disk_usage(workspace.root).free,
        **{kind.plural: len(workspace.list_adapters(kind.name)) for kind in kinds()},
        "locked_folders": [str(folder) for folder in _written_folders(workspace) if not os.access(folder, os.W_OK)],
    }


def _written_folders(workspace: Workspace) -> Iterator[Path]:
    folders = (*(workspace.adapter_folder(kind.name) for kind in kinds()), workspace.logs)
    return (folder for folder in folders if folder.is_dir())


def _problems(report: Mapping[str, Any]) -> Iterator[str]:
    workspace = report["workspace"]
    for name, version in report["libraries"].items():
        if version is None:
            yield f"{name} is not installed; install tincture again."
    if not report["picto_complete"]:
        yield f"The embedded model picto lacks {', '.join(_missing_from_picto())}; install tincture again."
    if not workspace["writable"]:
        yield f"The workspace {workspace['root']} may not be written; choose another by --root."
    for folder in workspace["locked_folders"]:
        yield f"The folder {folder} may not be written; change its permissions."
    if workspace["free"] < LITTLE_SPACE:
        yield f"Only {workspace['free'] / 1e9:.2f} GB are free in {workspace['root']}; make room there."
