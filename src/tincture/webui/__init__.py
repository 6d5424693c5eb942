"""What scripts for stable-diffusion-webui's training call, by its own names: they need another import only.

    from tincture.webui import create_hypernetwork, train_hypernetwork

    create_hypernetwork("ink", ["768", "320", "640", "1280"], False)
    hypernetwork, filename = train_hypernetwork("task", "ink", "0.00001", 1, 1, "pictures", "textual_inversion", ...)

The calls are thin translations: every argument is checked here, and what they do is done by ``tincture.recipe``. The
classes are Tincture's own with the webui's members. Nothing heavy is imported before a call runs or a class is used.
docs/api-webui.md says what differs from the webui on purpose.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tincture.webui.calls import create_embedding, create_hypernetwork, preprocess, train_embedding, train_hypernetwork

if TYPE_CHECKING:
    from tincture.training.lr_schedule import LearnRateScheduler
    from tincture.webui.networks import Embedding, EmbeddingDatabase, Hypernetwork
    from tincture.webui.personalized import PersonalizedBase, PersonalizedDataLoader

__all__ = [
    "Embedding",
    "EmbeddingDatabase",
    "Hypernetwork",
    "LearnRateScheduler",
    "PersonalizedBase",
    "PersonalizedDataLoader",
    "create_embedding",
    "create_hypernetwork",
    "preprocess",
    "train_embedding",
    "train_hypernetwork",
]

_ROOMS = {
    "Embedding": "tincture.webui.networks",
    "EmbeddingDatabase": "tincture.webui.networks",
    "Hypernetwork": "tincture.webui.networks",
    "LearnRateScheduler": "tincture.training.lr_schedule",
    "PersonalizedBase": "tincture.webui.personalized",
    "PersonalizedDataLoader": "tincture.webui.personalized",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_ROOMS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
