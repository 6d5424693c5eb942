"""Norms of vectors: formulas against numpy in float64, and what they do to steps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.support import tiny_model, tiny_sdxl
from tests.unit.training.test_trainer import make_adapter, make_trainer, result
from tincture.adapters.averaged import Averaged
from tincture.adapters.embedding import Embedding, create_embedding
from tincture.adapters.hypernetwork import create_hypernetwork
from tincture.adapters.joint import Joint
from tincture.models.stable_diffusion import StableDiffusion
from tincture.settings.schedule import Schedule
from tincture.training.guard import Guard
from tincture.training.trainer import Trainer
from tincture.training.vector_norms import TokenVectors, VectorNorms

ROWS = ((0.3, -0.4, 1.2), (0.01, 0.02, 0.02), (2.0, 1.0, 2.0))
WIDE = ((1.0, 2.0, 2.0, 4.0),)
MEANS = (0.7, 2.5)


def vectors() -> list[TokenVectors]:
    return [
        TokenVectors(nn.Parameter(torch.tensor(rows)), mean) for rows, mean in zip((ROWS, WIDE), MEANS, strict=True)
    ]


def norms_of(rows: Any) -> NDArray[np.float64]:
    return np.sqrt((np.asarray(rows, np.float64) ** 2).sum(axis=1))


def norms(adapter: Any, model: StableDiffusion, limit: str = "", weight: str = "") -> VectorNorms:
    means = model.text.token_norms()
    held = [TokenVectors(rows, means[encoder]) for encoder, rows in adapter.token_vectors()]
    return VectorNorms(held, *(Schedule.parse(text, 100) if text else None for text in (limit, weight)))


# --- the formulas ----------------------------------------------------------------------------------------------------


def test_the_loss_and_its_gradient_in_numbers() -> None:
    held = vectors()
    loss = VectorNorms(held, weight=Schedule.parse("0.25:5, 3", 10)).loss(7)
    assert loss is not None
    loss.backward()
    multiples = np.concatenate([norms_of(rows) / mean for rows, mean in zip((ROWS, WIDE), MEANS, strict=True)])
    assert loss.item() == pytest.approx(3 * ((multiples - 1) ** 2).mean(), rel=1e-6)
    for (parameter, mean), rows in zip(held, (ROWS, WIDE), strict=True):
        lengths = norms_of(rows)[:, None]
        expected = 3 * 2 / 4 * (lengths / mean - 1) / mean * np.asarray(rows) / lengths
        np.testing.assert_allclose(parameter.grad, expected, rtol=1e-5)


def test_the_loss_follows_its_schedule_and_is_none_at_0() -> None:
    held = VectorNorms(vectors(), weight=Schedule.parse("0:2, 1 -> 2", 4))
    alone = VectorNorms(vectors(), weight=Schedule.parse("1", 4)).loss(0)
    assert alone is not None
    assert held.loss(0) is None
    factors = [each.item() / alone.item() for step in (2, 3) if (each := held.loss(step)) is not None]
    assert factors == pytest.approx([1, 1.5])
    assert VectorNorms(vectors()).loss(0) is None


def test_vectors_without_a_length_have_a_finite_gradient_and_stay() -> None:
    zeros = TokenVectors(nn.Parameter(torch.zeros(2, 3)), 0.5)
    held = VectorNorms([zeros], Schedule.parse("1", 1), Schedule.parse("1", 1))
    loss = held.loss(0)
    assert loss is not None
    loss.backward()
    assert zeros.rows.grad is not None
    assert zeros.rows.grad.isfinite().all()
    held.limit_norms(0, [zeros.rows])
    assert torch.equal(zeros.rows, torch.zeros(2, 3))


def test_long_vectors_are_shortened_to_the_limit_and_others_keep_every_bit() -> None:
    held = vectors()
    VectorNorms(held, Schedule.parse("9:5, 1.5", 10)).limit_norms(5, [rows for rows, _ in held])
    for (parameter, mean), rows in zip(held, (ROWS, WIDE), strict=True):
        before, lengths = torch.tensor(rows), norms_of(rows)
        shortened = np.asarray(rows, np.float64) * np.minimum(1, 1.5 * mean / lengths)[:, None]
        np.testing.assert_allclose(parameter.detach(), shortened, rtol=1e-6)
        for place, length in enumerate(lengths):
            assert torch.equal(parameter[place], before[place]) == (length <= 1.5 * mean)
    assert [norms_of(rows.detach()).max() / mean for rows, mean in held] == pytest.approx([1.5, 1.5])


def test_each_encoder_has_the_mean_norm_of_its_own_table() -> None:
    model = tiny_sdxl()
    found = model.text.token_norms()
    tables = {encoder.name: encoder.table.weight.detach().double().numpy() for encoder in model.text.encoders}
    assert found == pytest.approx({name: norms_of(table).mean() for name, table in tables.items()}, rel=1e-6)
    assert len(set(found.values())) == 2


def test_all_that_stand_for_tokens_are_found() -> None:
    model = tiny_sdxl()
    first, second = create_embedding("cat", model, 2, "moon"), create_embedding("dog", model, 1, "star")
    network = create_hypernetwork("ink", model.context_widths())
    assert not [*network.token_vectors()]
    joint = Joint([network, Averaged(first, lambda step: 0.9), second])
    found = [(encoder, id(rows)) for encoder, rows in joint.token_vectors()]
    expected = [(encoder, id(rows)) for one in (first, second) for encoder, rows in one.vectors.items()]
    assert found == expected


# --- in training -----------------------------------------------------------------------------------------------------


def train(model: StableDiffusion, adapter: Any, held: VectorNorms | None, **changes: Any) -> Trainer:
    rate = {"learning_rate": Schedule.parse("50", 100), "steps": 6, **changes}
    trainer = make_trainer(model, adapter, vector_norms=held, **rate)
    trainer.run()
    return trainer


def test_with_a_limit_no_vector_is_longer_and_without_they_go_beyond() -> None:
    model = tiny_model()
    free, held = make_adapter("embedding", model), make_adapter("embedding", model)
    train(model, free, None)
    train(model, held, norms(held, model, limit="1.5"))
    longest = [norms(each, model).multiples().max().item() for each in (free, held)]
    assert longest[0] > 2
    assert longest[1] <= 1.5 * (1 + 1e-6)


def test_a_weight_draws_norms_to_the_mean() -> None:
    model = tiny_model()
    ends = []
    for weight in ("", "1"):
        adapter = make_adapter("embedding", model)
        for rows in adapter.parameters():
            rows.data *= 4
        train(model, adapter, norms(adapter, model, weight=weight), learning_rate=Schedule.parse("0.02", 100))
        ends.append((norms(adapter, model).multiples() - 1).abs().max().item())
    assert ends[1] < 0.5 * ends[0]


def test_the_loss_counts_once_a_step_however_many_micro_batches() -> None:
    model = tiny_model()
    for accumulation in (1, 2):
        adapter = make_adapter("embedding", model)
        held = norms(adapter, model, weight="0.5")
        losses = []
        for each in (None, held):
            trainer = make_trainer(model, adapter, vector_norms=each, gradient_accumulation_steps=accumulation)
            with trainer._training():
                losses.append(trainer._accumulate_gradients().item())
        expected = held.loss(0)
        assert expected is not None
        assert losses[1] - losses[0] == pytest.approx(expected.item(), rel=1e-4)


def gradient(precision: str, dtype: torch.dtype) -> Tensor:
    """Of the loss of norms alone: the rest of the loss is taken away."""
    model = tiny_model().to("cpu", dtype)
    changes: list[Tensor] = []
    for weight in ("", "5"):
        adapter = make_adapter("embedding", model)
        start = result(adapter)
        held = norms(adapter, model, weight=weight)
        once = {"learning_rate": Schedule.parse("1", 100), "steps": 1, "precision": precision}
        make_trainer(model, adapter, vector_norms=held, **once).run()
        changes.append(torch.cat([(value - start[key]).flatten() for key, value in adapter.state_dict().items()]))
    return changes[1] - changes[0]


def test_it_is_scaled_and_unscaled_with_the_rest() -> None:
    exact, half = gradient("fp32", torch.float32), gradient("fp16", torch.float16)
    assert exact.norm() > 0.1
    torch.testing.assert_close(half, exact, rtol=0.02, atol=1e-3)


@pytest.mark.parametrize(
    ("cause", "judged"), [("overflow", "overflow"), ("skip", "diverged"), ("rate 0", "sound")], ids=str
)
def test_steps_that_change_nothing_shorten_nothing(cause: str, judged: str) -> None:
    """The vectors are longer than allowed before the step, and stay so."""
    half = cause == "overflow"
    model = tiny_model().to("cpu", torch.float16 if half else torch.float32)
    adapter = make_adapter("embedding", model)
    assert isinstance(adapter, Embedding)
    held, start = norms(adapter, model, limit="0.1"), result(adapter)
    changes: dict[str, Any] = {"guard": Guard("skip"), "steps": 1, "precision": "fp16" if half else "fp32"}
    if cause == "rate 0":
        changes["learning_rate"] = Schedule.parse("0:1, 1", 100)
    trainer = make_trainer(model, adapter, vector_norms=held, **changes)
    with trainer._training():
        if cause != "rate 0":
            for rows in adapter.parameters():
                rows.register_hook(lambda gradient: gradient * math.inf)
        _, verdict = trainer.make_step(*trainer.rates())
    assert verdict.kind == judged
    assert all(torch.equal(value, start[key]) for key, value in adapter.state_dict().items())
