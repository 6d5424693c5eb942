from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import pytest
import torch

from tincture.errors import UsageError
from tincture.models.prompt import parse_extra_networks
from tincture.models.stable_diffusion import StableDiffusion

BEGIN, END, TABLE = 653, 654, 655


@dataclass
class Vectors:
    """Stands for an attached embedding."""

    name: str
    count: int
    vectors: dict[str, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.vectors = {"clip_l": torch.zeros(self.count, 32)}


def ids(model: StableDiffusion, text: str) -> list[int]:
    """Ids of ``text`` between begin and end mark."""
    (row,) = model.tokenize([text]).tolist()
    assert row[0] == BEGIN and len(row) == 77
    content = row[1 : row.index(END)]
    assert row[1 + len(content) :] == [END] * (76 - len(content))
    return content


def test_texts_become_padded_rows(model: StableDiffusion) -> None:
    rows = model.tokenize(["small moon", ""])

    assert rows.shape == (2, 77) and rows.dtype == torch.int64
    assert rows[1].tolist() == [BEGIN] + [END] * 76
    assert len(ids(model, "small moon")) == 2
    assert model.tokenize([]).shape == (0, 77)


def test_case_does_not_matter(model: StableDiffusion) -> None:
    assert ids(model, "Small MOON") == ids(model, "small moon")


def test_a_name_becomes_its_vectors_ids(model: StableDiffusion) -> None:
    small, moon = ids(model, "small moon")
    model.attached_embeddings.append(Vectors("zork", 3))

    assert ids(model, "small ZORK moon") == [small, TABLE, TABLE + 1, TABLE + 2, moon]


def test_a_name_is_found_several_times_and_next_to_marks(model: StableDiffusion) -> None:
    comma = ids(model, ",")
    model.attached_embeddings.append(Vectors("zork", 1))

    assert ids(model, "zork,zork zork") == [TABLE, *comma, TABLE, TABLE]


def test_ids_follow_the_order_of_attachment(model: StableDiffusion) -> None:
    model.attached_embeddings += [Vectors("zork", 2), Vectors("blib", 1)]

    assert ids(model, "blib zork") == [TABLE + 2, TABLE, TABLE + 1]


def test_the_longest_name_wins(model: StableDiffusion) -> None:
    model.attached_embeddings += [Vectors("moon", 1), Vectors("small moon", 1)]

    assert ids(model, "small moon") == [TABLE + 1]
    assert ids(model, "moon") == [TABLE]


def test_of_equal_names_the_last_attached_wins(model: StableDiffusion) -> None:
    model.attached_embeddings += [Vectors("zork", 1), Vectors("zork", 1)]

    assert ids(model, "zork") == [TABLE + 1]


def test_a_name_inside_a_word_is_not_one(model: StableDiffusion) -> None:
    plain = ids(model, "moonlight")
    model.attached_embeddings.append(Vectors("moon", 1))

    assert ids(model, "moonlight") == plain


def test_long_texts_are_cut_with_one_warning(model: StableDiffusion) -> None:
    words = " ".join(["moon"] * 75)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = ids(model, words)
    assert len(whole) == 75

    with pytest.warns(UserWarning, match="2 of 3 prompts are longer than 75 tokens.* has 76 tokens") as caught:
        rows = model.tokenize([words + " small", words, words + " a b"])

    assert len(caught) == 1
    assert rows.tolist() == [[BEGIN, *whole, END]] * 3


def test_vectors_beyond_the_end_are_cut(model: StableDiffusion) -> None:
    model.attached_embeddings.append(Vectors("zork", 5))

    with pytest.warns(UserWarning, match="has 78 tokens"):
        (row,) = model.tokenize([" ".join(["moon"] * 73) + " zork"]).tolist()

    assert row[74:] == [TABLE, TABLE + 1, END]


def test_extra_networks_are_taken_out() -> None:
    text, networks = parse_extra_networks("a moon <hypernet:out line:0.8>, blue<HYPERNET:b>")

    assert text == "a moon , blue"
    assert networks == [("hypernet", "out line", 0.8), ("hypernet", "b", 1.0)]


@pytest.mark.parametrize("text", ["a  moon ", "<moon>", "<lora:x:1>", "a < b > c", "<hypernet:>"])
def test_other_text_is_left_alone(text: str) -> None:
    assert parse_extra_networks(text) == (text, [])


@pytest.mark.parametrize("multiplier", ["strong", "1,5", "0.5:2", "nan", "inf"])
def test_a_multiplier_that_is_no_number_is_refused(multiplier: str) -> None:
    with pytest.raises(UsageError, match=r"multiplier .* of hypernetwork 'outline'.*<hypernet:outline:0.8>"):
        parse_extra_networks(f"a moon <hypernet:outline:{multiplier}>")
