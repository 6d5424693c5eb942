from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.formats.webui_gate import refusals
from tincture.adapters.embedding import Embedding
from tincture.errors import FileFormatError
from tincture.formats.embedding_optimizer import checksum, read_embedding_optimizer, write_embedding_optimizer

GOLDEN = Path(__file__).parents[2] / "golden"
CASES: list[dict[str, Any]] = json.loads((GOLDEN / "embeddings.json").read_text())
NAMES = [case["name"] for case in CASES]


def vectors(rows: int = 2, width: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_the_checksum_is_the_webuis(case: dict[str, Any]) -> None:
    assert checksum(Embedding.load(GOLDEN / f"{case['name']}.pt").vectors["clip_l"]) == case["checksum"]


def test_a_written_state_passes_the_webuis_gate(tmp_path: Path) -> None:
    embedding = Embedding("e", {"clip_l": vectors()})
    adamw = torch.optim.AdamW(embedding.parameters())
    embedding.parameters()[0].square().sum().backward()
    adamw.step()
    write_embedding_optimizer(tmp_path / "e.pt", embedding.vectors["clip_l"], adamw.state_dict())
    assert refusals(tmp_path / "e.pt.optim") == []


@pytest.mark.parametrize("name", NAMES)
def test_golden_optimizer_state_is_bound_to_its_vectors(name: str) -> None:
    embedding = Embedding.load(GOLDEN / f"{name}.pt")
    state = read_embedding_optimizer(GOLDEN / f"{name}.pt", embedding.vectors["clip_l"])
    assert state is not None
    adamw = torch.optim.AdamW(embedding.parameters())
    adamw.load_state_dict(state)
    assert adamw.state[embedding.parameters()[0]]["exp_avg"].shape == embedding.vectors["clip_l"].shape


def test_optimizer_state_round_trips_and_is_dropped_when_the_vectors_changed(tmp_path: Path) -> None:
    path = tmp_path / "e.pt"
    assert read_embedding_optimizer(path, vectors()) is None
    write_embedding_optimizer(path, vectors(), {"state": {0: {"exp_avg": vectors(seed=1)}}, "param_groups": []})
    state = read_embedding_optimizer(path, vectors())
    assert state is not None
    assert torch.equal(state["state"][0]["exp_avg"], vectors(seed=1))
    assert read_embedding_optimizer(path, vectors(seed=2)) is None


@pytest.mark.parametrize("content", [[1], {"hash": "x"}, {"optimizer_state_dict": 3}])
def test_an_optimizer_file_without_a_state_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "e.pt.optim")
    with pytest.raises(FileFormatError, match="holds no optimizer state"):
        read_embedding_optimizer(tmp_path / "e.pt", vectors())


def test_the_checksum_cuts_towards_zero() -> None:
    # 0.019 and -0.019 times 100 are both cut to +-1: r = 997, then 997 * 281 XOR -997, low 16 bits
    expected = ((997 * 281) ^ -997) & 0xFFFF
    assert checksum(torch.tensor([[0.019, -0.019]])) == f"{expected:04x}"
