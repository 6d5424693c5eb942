"""What the kinds of adapters say of themselves."""

from __future__ import annotations

import pytest
import torch

from tests.support import tiny_model
from tincture.adapters.embedding import Embedding
from tincture.adapters.hypernetwork import create_hypernetwork
from tincture.kinds.registry import find_kind


@pytest.mark.parametrize(
    ("kind", "strength", "expected"),
    [
        ("embedding", None, "cat"),
        ("embedding", 1, "cat"),
        ("embedding", 1.25, "(cat:1.25)"),
        ("embedding", 0, "(cat:0)"),
        ("hypernetwork", None, "<hypernet:cat:1.0>"),
        ("hypernetwork", 0.5, "<hypernet:cat:0.5>"),
        ("hypernetwork", 1, "<hypernet:cat:1>"),
    ],
)
def test_how_a_prompt_names_an_adapter(kind: str, strength: float | None, expected: str) -> None:
    assert find_kind(kind).in_prompt("cat", strength) == expected


def test_an_embedding_is_created_on_a_model() -> None:
    made = Embedding.create("cat", tiny_model, num_vectors=2, init_text="moon")
    assert (made.name, {name: rows.shape for name, rows in made.vectors.items()}) == ("cat", {"clip_l": (2, 32)})


def test_without_a_multiplier_a_hypernetwork_acts_in_full() -> None:
    network = create_hypernetwork("ink", [8], (1, 2, 1), "linear", weight_init="XavierNormal")
    context = torch.ones(1, 3, 8)
    (plain, _), (full, _), (double, _) = (network.transform(context, *given) for given in ((), (1.0,), (2.0,)))
    assert torch.equal(plain, full) and not torch.equal(plain, double)
