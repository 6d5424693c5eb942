"""The library's entry: make an adapter, plan, train, resume."""

from __future__ import annotations

from tincture.run.components import find_adapter
from tincture.run.create import create, create_embedding, create_hypernetwork
from tincture.run.plan import plan
from tincture.run.train import RunResult, resume, train

__all__ = [
    "RunResult",
    "create",
    "create_embedding",
    "create_hypernetwork",
    "find_adapter",
    "plan",
    "resume",
    "train",
]
