"""Adapters trained as one: each trains as it would beside the others, and rests for as long as its rate is 0."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support import tiny_model
from tests.unit.training.test_trainer import make_trainer
from tincture.adapters.adapter import Adapter
from tincture.adapters.averaged import Averaged
from tincture.adapters.embedding import Embedding, create_embedding
from tincture.adapters.hypernetwork import create_hypernetwork
from tincture.adapters.joint import Joint, joined
from tincture.errors import ModelError
from tincture.models.stable_diffusion import StableDiffusion
from tincture.settings.schedule import Schedule
from tincture.training.trainer import Clipping, Trainer

CLIPPING = Clipping("norm", Schedule.parse("0.01", 100))


@pytest.fixture(scope="module")
def model() -> StableDiffusion:
    return tiny_model()


def cat(model: StableDiffusion) -> Adapter:
    return create_embedding("cat", model, 2, "star")


def moon(model: StableDiffusion) -> Adapter:
    return create_embedding("moon", model, 1, "blue")


def ink(model: StableDiffusion) -> Adapter:
    widths = model.context_widths()
    return create_hypernetwork(
        "ink", widths, (1, 2, 1), "relu", dropout_structure=(0, 0.2, 0), weight_init="XavierNormal"
    )


PAIRS = [(cat, ink), (cat, moon), (ink, cat)]


def tensors(adapter: Adapter) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in adapter.parameters()]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


def together(model: StableDiffusion, members: list[Adapter], rates: list[str], **changes: Any) -> Trainer:
    groups = [{"params": member.parameters()} for member in members]
    kind = changes.pop("kind", torch.optim.AdamW)
    return make_trainer(
        model,
        joined(members),
        optimizer=lambda parameters, lr: kind(groups, lr=lr),
        group_rates=[Schedule.parse(rate, 100) for rate in rates],
        clipping=CLIPPING,
        **changes,
    )


@pytest.mark.parametrize("make", PAIRS)
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD, torch.optim.NAdam])
def test_beside_one_that_rests_each_trains_as_by_itself(
    model: StableDiffusion, make: tuple[Callable[[Any], Adapter], ...], kind: Any
) -> None:
    """Bit for bit that of a training of its own with the other attached, with momentum and clipping by the norm."""
    trained, rests = (each(model) for each in make)
    before = tensors(rests)
    trainer = together(model, [trained, rests], ["0.05", "0"], kind=kind)
    trainer.run()
    assert same(tensors(rests), before)
    assert not any(parameter in trainer.optimizer.state for parameter in rests.parameters())
    alone, beside = (each(model) for each in make)
    start = tensors(alone)
    with ExitStack() as attached:
        attached.enter_context(beside.attach(model))
        beside.train()
        make_trainer(
            model,
            alone,
            optimizer=lambda parameters, lr: kind(parameters, lr=lr),
            learning_rate=Schedule.parse("0.05", 100),
            clipping=CLIPPING,
        ).run()
        beside.train(False)
    assert not same(tensors(alone), start)
    assert same(tensors(trained), tensors(alone))


@pytest.mark.parametrize("make", PAIRS)
def test_each_group_follows_its_own_rate_and_norm_as_in_a_loop_by_hand(
    model: StableDiffusion, make: tuple[Callable[[Any], Adapter], ...]
) -> None:
    members = [each(model) for each in make]
    starts = [tensors(member) for member in members]
    kind = functools.partial(torch.optim.SGD, momentum=0.9)
    together(model, members, ["0.5", "0:1, 0.1"], steps=4, kind=kind).run()

    own = [each(model) for each in make]
    loop = make_trainer(model, Joint(own), steps=4)
    optimizers = [kind(member.parameters(), lr=0.0) for member in own]
    with loop._training():
        for step in range(4):
            loop.global_step = step
            loop._accumulate_gradients()
            for member, optimizer, rate in zip(own, optimizers, [0.5, 0.1 if step else 0.0], strict=True):
                norm = torch.stack([p.grad.norm() for p in member.parameters() if p.grad is not None]).norm()
                for parameter in member.parameters():
                    assert parameter.grad is not None
                    parameter.grad *= min(1.0, 0.01 / (norm.item() + 1e-6))
                optimizer.param_groups[0]["lr"] = rate
                if rate:
                    optimizer.step()
                optimizer.zero_grad()
    for member, by_hand, start in zip(members, own, starts, strict=True):
        assert not same(tensors(member), start)
        for one, other, before in zip(tensors(member), tensors(by_hand), start, strict=True):
            torch.testing.assert_close(one - before, other - before, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_while_all_rest_nothing_changes(model: StableDiffusion, precision: str) -> None:
    members = [cat(model), ink(model)]
    before = [tensors(member) for member in members]
    trainer = together(model, members, ["0:2, 0.1", "0"], steps=2, precision=precision)
    trainer.run()
    assert all(map(same, map(tensors, members), before))
    assert (trainer.global_step, [member.step for member in members]) == (2, [2, 2])
    assert not trainer.optimizer.state


def test_steps_of_each_are_counted_and_restored(model: StableDiffusion) -> None:
    one, other = cat(model), ink(model)
    one.step, other.step = 5, 12
    pair = Joint([Averaged(one, lambda step: 0.5), other])
    pair.advance()
    assert [member.step for member in pair.members()] == [6, 13]
    state = {name: tensor.clone() for name, tensor in pair.state_dict().items()}
    pair.step = 20
    assert [member.step for member in pair.members()] == [20, 27]
    fresh = Joint([Averaged(cat(model), lambda step: 0.5), ink(model)])
    fresh.load_state_dict(state)
    assert [member.step for member in fresh.members()] == [6, 13]
    assert same(tensors(fresh), tensors(pair))


def test_what_is_published_is_what_each_publishes(model: StableDiffusion) -> None:
    plain = Joint([cat(model), ink(model)])
    assert plain.published() is plain
    averaged = Joint([Averaged(cat(model), lambda step: 0.5), ink(model)])
    shown = averaged.published()
    assert isinstance(shown, Joint)
    assert shown.members()[1] is averaged.members()[1]
    assert isinstance(shown.members()[0], Embedding)
    assert (shown.name, shown.word, shown.kind) == ("cat", "cat", "embedding")
    assert Joint([ink(model), cat(model)]).word == "cat"


def test_attached_ones_leave_no_trace_also_after_an_error(model: StableDiffusion) -> None:
    before = model.encode_prompts(["a cat moon"]).hidden_states
    with pytest.raises(ZeroDivisionError), Joint([cat(model), moon(model)]).attach(model):
        assert not torch.equal(model.encode_prompts(["a cat moon"]).hidden_states, before)
        raise ZeroDivisionError
    assert torch.equal(model.encode_prompts(["a cat moon"]).hidden_states, before)


def test_all_that_do_not_fit_are_named_in_one_message(model: StableDiffusion) -> None:
    wide = [Embedding(name, {"clip_l": torch.zeros(1, 7)}) for name in ("one", "two")]
    with pytest.raises(ModelError, match=r"'one'(.|\n)*'two'"):
        Joint([*wide, ink(model)]).require_fit(model)


def test_one_alone_is_itself(model: StableDiffusion) -> None:
    one = cat(model)
    assert joined([one]) is one
    assert list(one.members()) == [one]
