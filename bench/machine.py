"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tincture.models.arithmetic import mkl_mode, processor_name

ROOT = Path(__file__).parents[1]


def describe() -> dict[str, Any]:
    """Processor, cores, threads, memory, load, and the versions of what computes."""
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "mkl": mkl_mode(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "diffusers", "transformers", "numpy")},
    }


def cpu_name() -> str:
    """The processor's name as the system tells it."""
    return processor_name()


def commit() -> dict[str, Any]:
    """The commit that is checked out, and whether the program differs from it."""
    differs = _git("status", "--porcelain", "--", "src", "bench/*.py")
    return {"commit": _git("rev-parse", "HEAD"), "changed": None if differs is None else bool(differs)}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
