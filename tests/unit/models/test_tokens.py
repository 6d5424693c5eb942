from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import tiny_model
from tincture.models import tokens
from tincture.models.stable_diffusion import StableDiffusion
from tincture.models.tokens import Chunk, Names, emphasize, find_names, make_chunks, token_ids

BEGIN, END, TABLE = 653, 654, 655
TOKENIZER = tiny_model().tokenizer
COMMA, RED, MOON = (token_ids(TOKENIZER, [text])[0][0] for text in (",", "red", "moon"))


class Vectors:
    """Stands for an attached embedding."""

    def __init__(self, name: str, count: int) -> None:
        self.name, self.num_vectors = name, count


def chunks(prompt: str, *attached: Vectors) -> list[Chunk]:
    (made,) = make_chunks(TOKENIZER, [prompt], attached)
    return made


def ids(prompt: str, *attached: Vectors) -> list[int]:
    """Ids of a prompt of one chunk."""
    (chunk,) = chunks(prompt, *attached)
    return chunk.ids


def lengths(prompt: str, *attached: Vectors) -> list[int]:
    return [len(chunk.ids) for chunk in chunks(prompt, *attached)]


# --- reading texts ---------------------------------------------------------------------------------------------------


class Reader:
    """A tokenizer that gives one token a word, and notes what it was asked to read."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def __call__(self, texts: list[str], **_: object) -> dict[str, list[list[int]]]:
        self.read += texts
        return {"input_ids": [[len(word) for word in text.split()] for text in texts]}


def test_a_text_is_read_once_and_by_each_tokenizer_for_itself() -> None:
    reader, other = Reader(), Reader()
    assert token_ids(reader, ["a moon", "", "a moon"]) == [[1, 4], [], [1, 4]]
    assert token_ids(reader, ["red", "a moon"]) == [[3], [1, 4]]
    assert reader.read == ["a moon", "", "red"]
    assert token_ids(other, ["red"]) == [[3]] and other.read == ["red"]
    assert token_ids(reader, []) == [] and len(reader.read) == 3


def test_what_is_kept_is_bounded_and_goes_with_its_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MOST_TEXTS", 2)
    reader = Reader()
    for number in range(9):
        token_ids(reader, [f"{number}", f"{number} moons"])
        assert len(tokens._known[reader]) <= 4
    before = len(tokens._known)
    del reader
    assert len(tokens._known) == before - 1


# --- names -----------------------------------------------------------------------------------------------------------


def test_case_does_not_matter() -> None:
    assert ids("Red MOON") == ids("red moon") == [RED, MOON]


def test_a_name_becomes_its_vectors_ids() -> None:
    assert ids("red ZORK moon", Vectors("zork", 3)) == [RED, TABLE, TABLE + 1, TABLE + 2, MOON]


def test_a_name_is_found_several_times_and_next_to_marks() -> None:
    assert ids("zork,zork zork", Vectors("zork", 1)) == [TABLE, COMMA, TABLE, TABLE]


def test_ids_follow_the_order_of_attachment() -> None:
    assert ids("blib zork", Vectors("zork", 2), Vectors("blib", 1)) == [TABLE + 2, TABLE, TABLE + 1]


def test_the_longest_name_wins() -> None:
    attached = Vectors("moon", 1), Vectors("red moon", 1), Vectors("red", 1)

    assert ids("red moon", *attached) == [TABLE + 1]
    assert ids("moon red", *attached) == [TABLE, TABLE + 2]


def test_of_equal_names_the_last_attached_wins() -> None:
    assert ids("zork", Vectors("zork", 1), Vectors("zork", 1)) == [TABLE + 1]


def test_a_name_inside_a_word_is_not_one() -> None:
    assert ids("moonlight", Vectors("moon", 1)) == ids("moonlight")


def test_a_name_does_not_reach_over_a_change_of_weight() -> None:
    assert ids("red (moon)", Vectors("red moon", 1)) == [RED, MOON]
    assert chunks("(red moon:1.5)", Vectors("red moon", 2)) == [([TABLE, TABLE + 1], [1.5, 1.5])]


def test_find_names_tells_what_prompts_name_as_they_are_read() -> None:
    names = Names(zip(token_ids(TOKENIZER, ["moon", "red moon"]), ["short", "long"], strict=True))

    assert find_names(TOKENIZER, ["a (red moon)", "moon, moonlight"], names) == ["long", "short"]


# --- chunks ----------------------------------------------------------------------------------------------------------


def test_tokens_have_the_weights_of_their_segments() -> None:
    assert chunks("red (moon, red:1.5)") == [([RED, MOON, COMMA, RED], [1.0, 1.5, 1.5, 1.5])]


def test_chunks_are_filled_with_75_tokens() -> None:
    assert lengths("") == [0]
    assert lengths("moon " * 75) == [75]
    assert lengths("moon " * 151) == [75, 75, 1]


def test_break_ends_a_chunk() -> None:
    assert chunks("red BREAK moon") == [([RED], [1.0]), ([MOON], [1.0])]
    assert lengths("BREAK moon") == [0, 1]
    assert lengths("moon BREAK") == [1]
    assert lengths("BREAK BREAK") == [0, 0]
    assert lengths("moon " * 75 + "BREAK moon") == [75, 1]


@pytest.mark.parametrize(
    "behind_comma, expected",
    [
        (0, [75, 1]),
        (1, [74, 2]),
        (19, [56, 20]),
        (20, [75, 1]),  # the comma is 21 tokens back
    ],
)
def test_what_follows_a_near_comma_moves_to_the_next_chunk(behind_comma: int, expected: list[int]) -> None:
    prompt = "moon " * (74 - behind_comma) + "," + " red" * (behind_comma + 1)

    assert lengths(prompt) == expected
    assert chunks(prompt)[0].ids[-1] == (RED if behind_comma == 20 else COMMA)


def test_a_comma_behind_a_full_chunk_moves_nothing() -> None:
    assert lengths("moon " * 73 + ", moon, moon") == [75, 2]


def test_weights_move_with_their_tokens() -> None:
    assert chunks("moon " * 70 + ", (red:1.5)" + " moon" * 4)[1] == ([RED, *[MOON] * 4], [1.5, 1, 1, 1, 1])


def test_vectors_that_do_not_fit_begin_the_next_chunk() -> None:
    zork = Vectors("zork", 5)

    assert lengths("moon " * 70 + "zork", zork) == [75]
    assert chunks("moon " * 71 + "zork", zork)[1].ids == list(range(TABLE, TABLE + 5))
    assert lengths("moon " * 71 + "zork", zork) == [71, 5]


def test_vectors_move_with_what_follows_a_comma() -> None:
    made = chunks("moon " * 69 + ", zork moon moon", Vectors("zork", 4))

    assert [len(chunk.ids) for chunk in made] == [70, 6]
    assert made[1].ids == [*range(TABLE, TABLE + 4), MOON, MOON]


PIECES = ["moon ", "red, ", "zork ", "(zork:1.3) ", "BREAK ", "red moon " * 9, ", " * 5]


@settings(max_examples=50)
@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join) | st.text(), st.integers(1, 75))
def test_any_prompt_fits_its_chunks_and_no_vectors_are_parted(prompt: str, count: int) -> None:
    own = list(range(TABLE, TABLE + count))

    for chunk in chunks(prompt, Vectors("zork", count)):
        assert len(chunk.ids) == len(chunk.weights) <= 75
        placed = [token for token in chunk.ids if token >= TABLE]
        assert placed == own * (len(placed) // count)


# --- tensors ---------------------------------------------------------------------------------------------------------


def test_rows_are_begin_mark_text_end_mark_and_padding(shared_model: StableDiffusion) -> None:
    rows = shared_model.text.tokenize(["red moon", ""])

    assert rows.dtype == torch.int64
    assert rows.tolist() == [[BEGIN, RED, MOON, END] + [END] * 73, [BEGIN] + [END] * 76]
    assert shared_model.text.tokenize([]).shape == (0, 77)


def test_shorter_prompts_have_empty_chunks_behind_them(shared_model: StableDiffusion) -> None:
    rows = shared_model.text.tokenize(["moon", "red BREAK moon"])

    assert rows[0].tolist() == shared_model.text.tokenize(["moon"])[0].tolist() + [BEGIN] + [END] * 76
    assert rows[1].tolist() == [BEGIN, RED] + [END] * 75 + [BEGIN, MOON] + [END] * 75
    assert shared_model.text.lengths(["moon", "red BREAK moon"]) == [77, 154]


def test_padding_behind_the_end_mark_is_the_tokenizers_own(model: StableDiffusion) -> None:
    """SD 2 pads with another token than its end mark."""
    model.tokenizer.pad_token = "!"
    bang = model.tokenizer.pad_token_id

    assert bang != END
    assert model.text.tokenize(["red"]).tolist() == [[BEGIN, RED, END] + [bang] * 74]


def test_emphasis_weighs_tokens_and_keeps_each_chunks_mean() -> None:
    states = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1
    weights = torch.tensor([[1.0, 1.5, 1.0], [1.0, 1.0, 1.0]])

    weighted = emphasize(states, weights)

    factor = weighted[0, 0, 0] / states[0, 0, 0]
    torch.testing.assert_close(weighted[0], states[0] * weights[0, :, None] * factor)
    torch.testing.assert_close(weighted.mean((1, 2)), states.mean((1, 2)), rtol=1e-6, atol=0)
    assert abs(factor - 1) > 0.01
    assert torch.equal(weighted[1], states[1])


def test_states_whose_means_cancel_out_are_not_scaled() -> None:
    states = torch.tensor([[[1.0, 1.0], [-1.01, -1.0]]], requires_grad=True)

    weighted = emphasize(states, torch.tensor([[1.0, 2.0]]))
    weighted.square().sum().backward()  # type: ignore[no-untyped-call]

    torch.testing.assert_close(weighted, torch.tensor([[[1.0, 1.0], [-2.02, -2.0]]]))
    assert states.grad is not None and torch.isfinite(states.grad).all()
