from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.runs import equal
from tests.support import tiny_model, tiny_sdxl
from tests.unit.adapters.test_attention_maps import FullAttention
from tests.unit.training.test_trainer import assert_trained_alike, make_adapter, make_trainer, result
from tincture.adapters.attention_mask import AttentionMaskLoss, attention_mask_loss, latent_mask
from tincture.adapters.embedding import Embedding, create_embedding
from tincture.data.latents import LatentCache
from tincture.models.stable_diffusion import StableDiffusion
from tincture.settings.schedule import Schedule

LEFT = torch.zeros(8, 8)
LEFT[:, :4] = 1
MASKS = [LEFT, None, LEFT.flip(1), LEFT.T]
PROMPTS = ["a cat", "cat, a red moon", "a blue star and a cat", "the cat"]


def wider(model: StableDiffusion) -> Embedding:
    """Vectors long enough for the random model to look at some places more than at others."""
    embedding = create_embedding("cat", model, 2, "moon")
    for rows in embedding.parameters():
        rows.data += torch.randn(rows.shape, generator=torch.Generator().manual_seed(1))
    return embedding


def predict(model: StableDiffusion, prompts: list[str], seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(len(prompts), 4, 8, 8, generator=generator)
    return model.predict_noise(latents, torch.full((len(prompts),), 300), model.encode_prompts(prompts))


def term(model: StableDiffusion, embedding: Embedding, indices: list[int], prompts: list[str] | None = None) -> Tensor:
    """The loss's value for a prediction, with the embedding attached by the caller."""
    prompts = prompts or [PROMPTS[index] for index in indices]
    loss = AttentionMaskLoss(model, embedding, MASKS, 1.0)
    with loss.watching():
        predict(model, prompts)
    return loss.value(indices, prompts)


def test_the_value_in_numbers() -> None:
    shares = torch.tensor([[0.2, 0.1, 0.0, 0.0], [0.3, 0.3, 0.3, 0.3]])
    masks = torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0]])
    first, second = (0.5**2 + 1) / 4, 2 / 4
    assert attention_mask_loss(shares, masks, torch.ones(2)).item() == pytest.approx((first + second) / 2)
    assert attention_mask_loss(shares, masks, torch.tensor([True, False])).item() == pytest.approx(first / 2)
    assert attention_mask_loss(shares[:1] * 0.01, masks[:1], torch.ones(1)).item() == pytest.approx(first)
    assert attention_mask_loss(masks, masks, torch.ones(2)).item() == 0


def test_a_word_that_is_looked_at_nowhere_gives_a_finite_gradient() -> None:
    shares = torch.zeros(1, 4, requires_grad=True)
    attention_mask_loss(shares, torch.ones(1, 4), torch.ones(1)).backward()
    assert shares.grad is not None
    assert torch.isfinite(shares.grad).all()


def full_term(model: StableDiffusion, indices: list[int], tokens: list[slice]) -> Tensor:
    """The same value from all probabilities of a full attention, sample by sample."""
    full = FullAttention()
    model.unet.set_attn_processor(full)
    predict(model, [PROMPTS[index] for index in indices])
    total = torch.zeros(())
    for row, (index, own) in enumerate(zip(indices, tokens, strict=True)):
        mask = MASKS[index]
        if mask is None:
            continue
        layers = [kept[row].mean(0) for kept in full.kept if kept.shape[2] == 64]
        shares = torch.stack(layers).mean(0)[:, own].sum(1)
        total = total + ((shares / shares.max()).reshape(8, 8) - mask).square().mean()
    return total / len(indices)


def test_value_and_gradient_are_those_of_a_full_attention(model: StableDiffusion) -> None:
    embedding = wider(model)
    with embedding.attach(model):
        value = term(model, embedding, [0, 1, 2])
        (gradient,) = torch.autograd.grad(value, embedding.parameters())
        # where "cat" stands behind the begin mark: "a cat", "cat, ...", "a blue star and a cat"
        ids = model.text.tokenize(PROMPTS[:3])
        starts = [int((row >= len(model.tokenizer)).nonzero()[0]) for row in ids]
        expected = full_term(model, [0, 1, 2], [slice(start, start + 2) for start in starts])
        (expected_gradient,) = torch.autograd.grad(expected, embedding.parameters())
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    assert gradient.norm() > 1e-3
    assert torch.allclose(gradient, expected_gradient, rtol=1e-3, atol=1e-6)


def test_the_gradient_is_the_slope(model: StableDiffusion) -> None:
    embedding = wider(model)
    (vectors,) = embedding.parameters()
    direction = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(2))
    with embedding.attach(model):
        (gradient,) = torch.autograd.grad(term(model, embedding, [0, 2]), vectors)
        start, ends = vectors.detach().clone(), []
        for step in (0.01, -0.01):
            vectors.data = start + step * direction
            ends.append(term(model, embedding, [0, 2]).item())
    slope = (ends[0] - ends[1]) / 0.02
    assert slope == pytest.approx((gradient * direction).sum().item(), rel=0.03, abs=1e-4)


def test_the_word_is_found_in_any_chunk_and_as_often_as_it_stands(model: StableDiffusion) -> None:
    embedding = wider(model)
    with embedding.attach(model):
        prompts = ["red moon BREAK a cat", "cat and cat", "a moon"]
        loss = AttentionMaskLoss(model, embedding, MASKS, 1.0)
        with loss.watching():
            predict(model, prompts)
        ids = model.text.tokenize(prompts)
        own = model.text.placeholder_ids(embedding)
        counts = ((ids >= own.start) & (ids < own.stop)).sum(1).tolist()
        assert counts == [2, 4, 0]
        assert ids.shape[1] == 154
        shares = loss._record.shares((ids >= own.start) & (ids < own.stop))
        assert (shares[:2].amin(1) > 0).all()
        assert (shares[2] == 0).all()
        assert loss.value([0, 2, 0], prompts) > 0


def test_samples_without_mask_and_prompts_without_the_word_add_nothing(model: StableDiffusion) -> None:
    embedding = wider(model)
    with embedding.attach(model):
        assert term(model, embedding, [1]).item() == 0
        assert term(model, embedding, [0], ["a moon"]).item() == 0
        alone = term(model, embedding, [0], ["cat, a red moon"])
        beside = term(model, embedding, [0, 1], ["cat, a red moon", "a cat"])
        assert torch.autograd.grad(term(model, embedding, [1]), embedding.parameters())[0].abs().max() == 0
    assert beside.item() == pytest.approx(alone.item() / 2, rel=0.2)


def test_other_embeddings_words_do_not_count(model: StableDiffusion) -> None:
    embedding, other = wider(model), create_embedding("dog", model, 3, "star")
    with other.attach(model), embedding.attach(model):
        assert term(model, embedding, [0], ["a dog"]).item() == 0
        assert term(model, embedding, [0], ["a dog and a cat"]).item() > 0


def test_both_encoders_of_sdxl_learn_from_it() -> None:
    model = tiny_sdxl()
    embedding = wider(model)
    with embedding.attach(model):
        gradients = torch.autograd.grad(term(model, embedding, [0, 2]), embedding.parameters())
    assert len(gradients) == 2
    assert all(gradient.norm() > 0 for gradient in gradients)


@pytest.mark.parametrize("index", [0, 2])  # left and right
def test_attention_moves_to_the_mask(model: StableDiffusion, index: int) -> None:
    embedding, prompts = wider(model), ["a cat"]
    optimizer = torch.optim.Adam(embedding.parameters(), lr=0.1)
    loss = AttentionMaskLoss(model, embedding, MASKS, 1.0)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)) + 3 * LEFT
    inside = []
    with embedding.attach(model):
        own = model.text.tokenize(prompts) >= len(model.tokenizer)
        for _ in range(20):
            with loss.watching():
                model.predict_noise(latents, torch.tensor([300]), model.encode_prompts(prompts))
            optimizer.zero_grad()
            loss.value([index], prompts).backward()
            optimizer.step()
            shares = loss._record.shares(own)[0].detach().reshape(8, 8)
            inside.append((shares[MASKS[index] == 1].sum() / shares.sum()).item())
    assert inside[-1] > inside[0] + 0.05
    assert inside[-1] > 0.5


# --- in training -----------------------------------------------------------------------------------------------------


def train(model: StableDiffusion, weight: float | None, **changes: Any) -> Embedding:
    """Trains on latents of 8 x 8."""
    embedding = make_adapter("embedding", model)
    assert isinstance(embedding, Embedding)
    generator = torch.Generator().manual_seed(0)
    latents = LatentCache([torch.randn(4, 8, 8, generator=generator) for _ in range(4)], [torch.zeros(4, 8, 8)] * 4)
    extra = None if weight is None else AttentionMaskLoss(model, embedding, MASKS, weight)
    make_trainer(model, embedding, latents=latents, auxiliary_loss=extra, **changes).run()
    return embedding


def test_a_weight_changes_what_is_learned_and_0_does_not(model: StableDiffusion) -> None:
    without = result(train(model, None))
    assert equal(result(train(model, 0.0)), without)
    assert not equal(result(train(model, 5.0)), without)


def test_the_weight_follows_its_schedule(model: StableDiffusion) -> None:
    """The term of each step against the same term with a constant weight."""
    schedule = Schedule.parse("0:2, 1 -> 3", 4)
    embedding = wider(model)
    seen: dict[int, list[float]] = {}

    class Watched(AttentionMaskLoss):
        def value(self, indices: Sequence[int], prompts: Sequence[str]) -> Tensor:
            own, step = super().value(indices, prompts), self.global_step
            self.weight = Schedule.parse(1, 1)
            seen[step] = [own.item(), super().value(indices, prompts).item()]
            self.weight = schedule
            return own

    generator = torch.Generator().manual_seed(0)
    latents = LatentCache([torch.randn(4, 8, 8, generator=generator) for _ in range(4)], [torch.zeros(4, 8, 8)] * 4)
    extra = Watched(model, embedding, MASKS, schedule)
    make_trainer(model, embedding, latents=latents, auxiliary_loss=extra, steps=4).run()
    factors = [own / alone for own, alone in seen.values()]
    assert [*seen] == [0, 1, 2, 3]
    assert factors == pytest.approx([0, 0, 1, 2])


def test_gradient_checkpointing_changes_nothing(model: StableDiffusion) -> None:
    other = tiny_model()
    other.enable_gradient_checkpointing()
    assert_trained_alike(train(model, 5.0), train(other, 5.0))


def test_micro_batches_add_up_to_a_batch(model: StableDiffusion) -> None:
    one = train(model, 5.0, batches=((0, 1, 2, 3),), steps=2)
    other = train(model, 5.0, batches=((0, 1, 2), (3,)), gradient_accumulation_steps=2, steps=2)
    assert_trained_alike(one, other)


def test_a_mask_on_the_grid_of_the_latents() -> None:
    mask = torch.zeros(64, 48)
    mask[:, :12] = 1
    assert latent_mask(mask, 8, 6).tolist() == [[1, 0.5, 0, 0, 0, 0]] * 8
