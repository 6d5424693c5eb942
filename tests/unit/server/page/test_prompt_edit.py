from __future__ import annotations

import pytest

from tincture.server.page.try_it import prompt_edit
from tincture.server.page.try_it.prompt_edit import Named

EMBEDDINGS = ["gold", "gold-leaf", "teal fox", "a+b"]
NETWORKS = ["outline", "poster"]
NAMES = {"embedding": EMBEDDINGS, "hypernetwork": NETWORKS}


def named(prompt: str) -> list[tuple[str, str, float]]:
    return [tuple(found) for found in prompt_edit.named_in(prompt, NAMES)]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a photo of gold", [("embedding", "gold", 1.0)]),
        ("a photo of (Gold:0.8), big", [("embedding", "gold", 0.8)]),
        ("gold-leaf on paper", [("embedding", "gold-leaf", 1.0)]),
        ("golden marigold", []),
        (
            "( teal fox : 1.2 ) <hypernet:outline:0.6>",
            [("embedding", "teal fox", 1.2), ("hypernetwork", "outline", 0.6)],
        ),
        ("<hypernet:outline> a+b", [("hypernetwork", "outline", 1.0), ("embedding", "a+b", 1.0)]),
        ("<hypernet:gold:1> <lora:poster:1> <hypernet:other:1>", []),
        ("gold and gold", [("embedding", "gold", 1.0)]),
        ("<hypernet:poster:many>", [("hypernetwork", "poster", 1.0)]),
        ("", []),
    ],
)
def test_the_adapters_of_a_prompt_are_found_in_its_order(prompt: str, expected: list[tuple[str, str, float]]) -> None:
    assert named(prompt) == expected


def test_what_a_button_inserts_is_found_again() -> None:
    prompt = prompt_edit.insert("a photo of", "embedding", "teal fox")
    prompt = prompt_edit.insert(prompt, "hypernetwork", "outline")
    assert prompt == "a photo of teal fox <hypernet:outline:1.0>"
    assert named(prompt) == [("embedding", "teal fox", 1.0), ("hypernetwork", "outline", 1.0)]
    assert prompt_edit.insert("", "embedding", "gold") == "gold"


@pytest.mark.parametrize("prompt", ["a gold <hypernet:outline:1>", "a (gold:1.3), <hypernet:outline>"])
def test_a_strength_that_is_written_is_read_back(prompt: str) -> None:
    for kind, name in (("embedding", "gold"), ("hypernetwork", "outline")):
        prompt = prompt_edit.with_strength(prompt, Named(kind, name, 1.0), 0.35)
    assert named(prompt) == [("embedding", "gold", 0.35), ("hypernetwork", "outline", 0.35)]
    assert "(gold:0.35)" in prompt and "((" not in prompt


def test_an_embedding_of_full_strength_needs_no_brackets() -> None:
    assert prompt_edit.with_strength("a (gold:0.8) ring", Named("embedding", "gold", 0.8), 1.0) == "a gold ring"


def test_strengths_leave_the_rest_of_the_prompt_alone() -> None:
    prompt = "gold-leaf, <lora:gold:1>, marigold, gold"
    both = [Named("embedding", "gold-leaf", 1.0), Named("embedding", "gold", 1.0)]
    changed = prompt_edit.with_strength(prompt, both[1], 0.5, both)
    assert changed.startswith("gold-leaf,")
    assert prompt_edit.without(prompt, both[1:], others=both).startswith("gold-leaf,")
    assert prompt_edit.without("gold-leaf gold", both) == ""
    assert changed.endswith("<lora:gold:1>, marigold, (gold:0.5)")


def test_the_prompt_without_its_adapters() -> None:
    adapters = prompt_edit.named_in("a (gold:0.7) ring, <hypernet:outline:0.5> <lora:x:1>", NAMES)
    prompt = "a (gold:0.7) ring, <hypernet:outline:0.5> <lora:x:1>"
    assert prompt_edit.without(prompt, adapters) == "a ring, <lora:x:1>"
    assert prompt_edit.without(prompt, adapters, "silver") == "a silver ring, <lora:x:1>"


def test_numbers_stand_between_commas_or_blanks() -> None:
    assert prompt_edit.numbers("0, 0.5;1  1.5,") == [0, 0.5, 1, 1.5]
    assert prompt_edit.numbers(" ") == []
    with pytest.raises(ValueError, match="half"):
        prompt_edit.numbers("0, half")
