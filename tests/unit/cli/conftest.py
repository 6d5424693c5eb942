from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tincture.kinds.registry import find_kind
from tincture.run.result import RunResult


@dataclass(frozen=True)
class Result(RunResult):
    """What a run returns."""

    adapter_path: Path = Path("embeddings/cat.pt")
    run_dir: Path = Path("runs/cat")
    global_step: int = 12
    loss: float = 0.125
    interrupted: bool = False
    seconds: float = 3.0
    ending: str = ""
    overflows: int = 0
    divergences: int = 0
    best_path: Path | None = None


@dataclass
class FakeRecipe:
    """Stands for `tincture.recipe`: notes how it was called, and gives or raises what a test wants."""

    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)

    def function(self, name: str) -> Any:
        def called(*arguments: Any, **keywords: Any) -> Any:
            self.calls.append((name, arguments, keywords))
            answer = self.answers[name]
            if isinstance(answer, Exception):
                raise answer
            return answer(*arguments, **keywords) if callable(answer) else answer

        return called


def replace_module(monkeypatch: pytest.MonkeyPatch, name: str, content: Mapping[str, Any]) -> None:
    """Put a made module in the place of `tincture.NAME`, which may lie in a package of ours."""
    module = types.ModuleType(f"tincture.{name}")
    module.__dict__.update(content)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    package, _, attribute = module.__name__.rpartition(".")
    monkeypatch.setattr(importlib.import_module(package), attribute, module, raising=False)


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeRecipe:
    """A fake recipe, and an empty workspace as current directory."""
    fake = FakeRecipe(
        answers={
            "create": lambda kind, name, **_: Path(find_kind(kind).folder, f"{name}.pt"),
            "plan": {"pictures": 5, "skipped": {}, "steps": 12},
            "train": Result(),
            "resume": Result(),
            "find_adapter": Path("embeddings/cat.pt"),
        }
    )
    replace_module(monkeypatch, "recipe", {name: fake.function(name) for name in fake.answers})
    monkeypatch.delenv("TINCTURE_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    return fake
