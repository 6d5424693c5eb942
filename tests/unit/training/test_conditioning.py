from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import pytest
import torch

from tincture.adapters.embedding import create_embedding
from tincture.models.conditions import Conditions
from tincture.models.placement import TEXT_ENCODERS
from tincture.models.stable_diffusion import StableDiffusion
from tincture.training.conditioning import Conditioning


def test_prompts_are_encoded_once_where_text_is_not_trained(shared_model: StableDiffusion) -> None:
    conditioning = Conditioning(shared_model, trains_text=False)
    states = conditioning(["red", "blue", "red"]).hidden_states
    conditioning(["blue", "red"])
    assert conditioning.encoded == 2
    assert states.shape == (3, 77, 32)
    assert torch.equal(states[0], states[2])
    torch.testing.assert_close(states, shared_model.encode_prompts(["red", "blue", "red"]).hidden_states)
    assert not states.requires_grad


def test_an_encoding_depends_on_its_prompt_alone(
    shared_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batched product may differ in its last bits from a single one; here it differs for all to see."""
    encode = shared_model.encode_prompts

    def varying(prompts: Sequence[str], clip_skip: int = 1, at_least: int = 1) -> Conditions:
        return Conditions(encode(prompts, clip_skip, at_least=at_least).hidden_states + len(prompts))

    monkeypatch.setattr(shared_model, "encode_prompts", varying)
    together = Conditioning(shared_model, trains_text=False)(["red", "blue"]).hidden_states
    alone = Conditioning(shared_model, trains_text=False)(["blue"]).hidden_states
    assert torch.equal(together[1], alone[0])


def test_what_was_used_longest_ago_is_forgotten(shared_model: StableDiffusion) -> None:
    conditioning = Conditioning(shared_model, trains_text=False, capacity=2)
    for prompt in ("red", "blue", "red", "green", "red"):
        conditioning([prompt])
    assert conditioning.encoded == 3
    conditioning(["blue"])
    assert conditioning.encoded == 4


def test_a_batch_larger_than_the_capacity_is_whole(shared_model: StableDiffusion) -> None:
    prompts = ["red", "blue", "green"]
    states = Conditioning(shared_model, trains_text=False, capacity=1)(prompts).hidden_states
    torch.testing.assert_close(states, shared_model.encode_prompts(prompts).hidden_states)


def test_known_prompts_are_encoded_when_the_first_is_asked_for(shared_model: StableDiffusion) -> None:
    conditioning = Conditioning(shared_model, trains_text=False, known=["red", "blue"])
    assert conditioning.encoded == 0
    states = conditioning(["blue"]).hidden_states
    assert conditioning.encoded == 3  # and the empty one, which makes up for missing chunks
    conditioning(["red", "blue"])
    conditioning([", ".join(["moon"] * 80), "red"])
    assert conditioning.encoded == 4
    assert torch.equal(states, Conditioning(shared_model, trains_text=False)(["blue"]).hidden_states)


def test_known_prompts_are_encoded_while_nothing_else_is_on_the_device(
    model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, bool]] = []
    acting = model.placement.acting

    def recorded(part: str, alone: bool = False) -> AbstractContextManager[None]:
        asked.append((part, alone))
        return acting(part, alone=alone)

    monkeypatch.setattr(model.placement, "acting", recorded)
    conditioning = Conditioning(model, trains_text=False, known=["red"])
    conditioning(["red"])
    assert asked[0] == (TEXT_ENCODERS, True)


def test_trained_text_is_encoded_anew_once_per_distinct_prompt_with_gradients(model: StableDiffusion) -> None:
    conditioning = Conditioning(model, trains_text=True)
    embedding = create_embedding("cat", model, 2, "moon")
    with embedding.attach(model):
        states = conditioning(["a cat", "red", "a cat"]).hidden_states
        assert conditioning.encoded == 2
        assert torch.equal(states[0], states[2])
        torch.testing.assert_close(states, model.encode_prompts(["a cat", "red", "a cat"]).hidden_states)
        states.sum().backward()  # type: ignore[no-untyped-call]
        conditioning(["red"])
    assert conditioning.encoded == 3
    assert embedding.parameters()[0].grad is not None


def test_clip_skip_is_passed_on(shared_model: StableDiffusion) -> None:
    states = Conditioning(shared_model, trains_text=False, clip_skip=2)(["red"]).hidden_states
    torch.testing.assert_close(states, shared_model.encode_prompts(["red"], clip_skip=2).hidden_states)


@pytest.mark.parametrize("trains_text", [False, True])
def test_prompts_of_unequal_length_become_one_batch(trains_text: bool, shared_model: StableDiffusion) -> None:
    prompts = ["red BREAK moon", "blue"]
    conditioning = Conditioning(shared_model, trains_text=trains_text)
    assert conditioning(["blue"]).hidden_states.shape == (1, 77, 32)
    states = conditioning(prompts).hidden_states
    assert states.shape == (2, 154, 32)
    torch.testing.assert_close(states, shared_model.encode_prompts(prompts).hidden_states)
    assert conditioning(["blue"]).hidden_states.shape == (1, 77, 32)
