"""Tincture teaches a frozen Stable Diffusion model a new subject or style, kept in one small file.

The public names are imported when first used, so that `import tincture` and `tincture --help` load no torch. At once
it asks for arithmetic that gives the same results each time, and for as many threads as there are cores to use, which
can be done only before torch computes.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tincture.formats.software import VERSION as __version__
from tincture.models.arithmetic import ask_for_reproducible_results
from tincture.models.heavy_imports import heavy_imports
from tincture.models.threads import ask_for_threads

if TYPE_CHECKING:
    from tincture.adapters.embedding import Embedding
    from tincture.adapters.embedding_database import EmbeddingDatabase
    from tincture.adapters.files.conversion import convert_file
    from tincture.adapters.files.inspection import inspect_file
    from tincture.adapters.hypernetwork import Hypernetwork
    from tincture.adapters.hypernetwork_module import HypernetworkModule
    from tincture.models.loading.load import load_model
    from tincture.models.sampling import generate
    from tincture.preprocessing.pipeline import preprocess
    from tincture.recipe import create_embedding, create_hypernetwork, resume, train
    from tincture.settings.preprocess import PreprocessSettings
    from tincture.settings.train import TrainSettings
    from tincture.training.lr_schedule import LearnRateScheduler

__all__ = [
    "Embedding",
    "EmbeddingDatabase",
    "Hypernetwork",
    "HypernetworkModule",
    "LearnRateScheduler",
    "PreprocessSettings",
    "TrainSettings",
    "convert_file",
    "create_embedding",
    "create_hypernetwork",
    "generate",
    "inspect_file",
    "load_model",
    "preprocess",
    "resume",
    "train",
]

ask_for_reproducible_results()
ask_for_threads()


def version() -> str:
    """The version of this software, as provenance and --version tell it."""
    return __version__


def __getattr__(name: str) -> Any:
    module = {
        "Embedding": "tincture.adapters.embedding",
        "EmbeddingDatabase": "tincture.adapters.embedding_database",
        "Hypernetwork": "tincture.adapters.hypernetwork",
        "HypernetworkModule": "tincture.adapters.hypernetwork_module",
        "LearnRateScheduler": "tincture.training.lr_schedule",
        "PreprocessSettings": "tincture.settings.preprocess",
        "TrainSettings": "tincture.settings.train",
        "convert_file": "tincture.adapters.files.conversion",
        "create_embedding": "tincture.recipe",
        "create_hypernetwork": "tincture.recipe",
        "generate": "tincture.models.sampling",
        "inspect_file": "tincture.adapters.files.inspection",
        "load_model": "tincture.models.loading.load",
        "preprocess": "tincture.preprocessing.pipeline",
        "resume": "tincture.recipe",
        "train": "tincture.recipe",
    }.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with heavy_imports():
        return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
