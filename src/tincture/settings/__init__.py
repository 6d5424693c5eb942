"""What people set, with default, help and check of each in one place; loads no torch.

The two names are imported when first used: a module of this room is often wanted without all settings.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tincture.settings.preprocess import PreprocessSettings
    from tincture.settings.train import TrainSettings

__all__ = ["PreprocessSettings", "TrainSettings"]


def __getattr__(name: str) -> Any:
    module = {"PreprocessSettings": "preprocess", "TrainSettings": "train"}.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
