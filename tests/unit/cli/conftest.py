from __future__ import annotations

import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import tincture


@dataclass(frozen=True)
class Result:
    """What a run returns."""

    adapter_path: Path = Path("embeddings/cat.pt")
    run_dir: Path = Path("runs/cat")
    global_step: int = 12
    loss: float = 0.125
    interrupted: bool = False
    seconds: float = 3.0


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


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeRecipe:
    """A fake recipe, and an empty workspace as current directory."""
    fake = FakeRecipe(
        answers={
            "create_embedding": Path("embeddings/cat.pt"),
            "create_hypernetwork": Path("models/hypernetworks/ink.pt"),
            "plan": {"pictures": 5, "skipped": {}, "steps": 12},
            "train": Result(),
            "resume": Result(),
            "generate_pictures": [Path("outputs/0.png")],
        }
    )
    module = types.ModuleType("tincture.recipe")
    for name in fake.answers:
        setattr(module, name, fake.function(name))
    monkeypatch.setitem(sys.modules, "tincture.recipe", module)
    monkeypatch.setattr(tincture, "recipe", module, raising=False)
    monkeypatch.delenv("TINCTURE_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    return fake
