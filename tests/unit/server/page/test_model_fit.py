from __future__ import annotations

import re

import pytest

from tincture.adapters.embedding import create_embedding
from tincture.models.loading.load import load_model
from tincture.server.page.train.model_fit import starts


def words(html: str) -> str:
    return re.sub(r"<[^>]*>", "", html)


@pytest.mark.parametrize(
    ("tokens", "vectors", "expected"),
    [
        (["a"], 3, "1 token: a."),
        (["a", "b"], 4, "2 tokens: a b. The vectors start from a a b b."),
        (
            ["a", "b", "c"],
            1,
            "3 tokens: a b c. The vectors start from a. None starts from b c; take 3 vectors for all.",
        ),
        ([], 4, "No tokens: all vectors start from zeros."),
        (["<i>"], 1, "1 token: &lt;i&gt;."),
    ],
)
def test_each_vector_has_its_token(tokens: list[str], vectors: int, expected: str) -> None:
    assert words(starts(tokens, vectors)) == expected


@pytest.mark.parametrize("vectors", [1, 2, 5, 7])
def test_they_are_those_that_an_embedding_starts_from(vectors: int) -> None:
    model = load_model("picto", text_only=True)
    tokens = model.text.tokens_of("red dotted moon")
    (rows,) = create_embedding("x", model, vectors, "red dotted moon").vectors.values()
    (own,) = model.text.token_embeddings("red dotted moon").values()
    assert tokens == ["red", "dotted", "moon"] and len(own) == 3
    first = words(starts(tokens, vectors)).split("start from ")[1].split(".")[0].split()
    assert first == [tokens[int((own == row).all(1).nonzero()[0, 0])] for row in rows]
