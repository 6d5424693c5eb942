from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import (
    Attention,
    AttnProcessor,
    AttnProcessor2_0,
    FusedAttnProcessor2_0,
    SlicedAttnProcessor,
)
from torch import Tensor, nn

from tests.support import tiny_sdxl
from tincture.adapters.attention_maps import CrossAttentionRecord, record_cross_attention
from tincture.adapters.hypernetwork import create_hypernetwork
from tincture.errors import ModelError
from tincture.models.attention import cross_attentions
from tincture.models.stable_diffusion import StableDiffusion

PROMPTS = ["a red moon", "a big blue star, on the left, navy background"]


class FullAttention:
    """An attention processor that keeps all probabilities of cross-attention: (B * heads, cells, tokens)."""

    def __init__(self) -> None:
        self.kept: list[Tensor] = []

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: object
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            attn.head_to_batch_dim(made) for made in (attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context))
        )
        probabilities = attn.get_attention_scores(query, key)
        if encoder_hidden_states is not None:
            self.kept.append(probabilities.unflatten(0, (-1, attn.heads)))
        return attn.to_out[0](attn.batch_to_head_dim(torch.bmm(probabilities, value)))

    def shares(self, cells: int, tokens: Tensor) -> Tensor:
        """What the record should say: (B, cells)."""
        layers = [kept.mean(1) for kept in self.kept if kept.shape[2] == cells]
        return torch.stack(layers).mean(0)[:, :, tokens[0]].sum(-1)


def predict(model: StableDiffusion, grid: tuple[int, int] = (8, 8)) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(len(PROMPTS), 4, *grid, generator=generator)
    with torch.no_grad():
        return model.predict_noise(latents, torch.tensor([10, 700]), model.encode_prompts(PROMPTS))


def recorded(model: StableDiffusion, grid: tuple[int, int] = (8, 8)) -> CrossAttentionRecord:
    with record_cross_attention(model.cross_attentions()) as record:
        predict(model, grid)
    return record


TOKENS = torch.arange(77).expand(2, -1)
TOKENS = (TOKENS > 2) & (TOKENS < 5)


def hooks(model: StableDiffusion) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.unet.modules())


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_shares_are_those_of_a_full_attention(model: StableDiffusion, family: str) -> None:
    model = tiny_sdxl() if family == "sdxl" else model
    shares = recorded(model).shares(TOKENS)
    full = FullAttention()
    model.unet.set_attn_processor(full)
    predict(model)
    expected = full.shares(64, TOKENS)
    assert shares.shape == (2, 64)
    assert shares.std(1).min() > 1e-4
    assert torch.allclose(shares, expected, atol=1e-6)


@pytest.mark.parametrize("processor", [AttnProcessor(), AttnProcessor2_0(), SlicedAttnProcessor(2)])
def test_every_processor_gives_the_same(model: StableDiffusion, processor: Any) -> None:
    expected = recorded(model).shares(TOKENS)
    model.unet.set_attn_processor(processor)
    assert torch.allclose(recorded(model).shares(TOKENS), expected, atol=1e-6)


def test_an_attached_hypernetwork_is_seen_and_left_alone(model: StableDiffusion) -> None:
    network = create_hypernetwork("ink", model.context_widths(), (1, 2, 1), "relu", seed=1)
    for parameter in network.parameters():
        parameter.data.mul_(20)
    plain = recorded(model).shares(TOKENS)
    with network.attach(model):
        before, attached = predict(model), hooks(model)
        shares = recorded(model).shares(TOKENS)
        assert torch.equal(predict(model), before)
        assert hooks(model) == attached > 0
        full = FullAttention()
        model.unet.set_attn_processor(full)
        predict(model)
    assert torch.allclose(shares, full.shares(64, TOKENS), atol=1e-6)
    assert not torch.allclose(shares, plain, atol=1e-3)


def test_predictions_stay_as_they_are_bit_for_bit(model: StableDiffusion) -> None:
    before = predict(model)
    with record_cross_attention(model.cross_attentions()):
        assert torch.equal(predict(model), before)
    assert torch.equal(predict(model), before)
    assert hooks(model) == 0


def test_hooks_go_with_an_exception(model: StableDiffusion) -> None:
    with pytest.raises(KeyError), record_cross_attention(model.cross_attentions()):
        raise KeyError
    assert hooks(model) == 0


def test_all_tokens_together_have_all_of_the_attention(model: StableDiffusion) -> None:
    record = recorded(model, (8, 12))
    assert record.cells == 96
    assert torch.allclose(record.shares(torch.ones(2, 77, dtype=torch.bool)), torch.ones(2, 96))
    assert torch.equal(record.shares(torch.zeros(2, 77, dtype=torch.bool)), torch.zeros(2, 96))


def test_shares_are_float32_under_autocast_too(model: StableDiffusion) -> None:
    expected = recorded(model).shares(TOKENS)
    with torch.autocast("cpu", torch.bfloat16):
        record = recorded(model)
        shares = record.shares(TOKENS)
    assert shares.dtype == torch.float32
    assert torch.allclose(shares, expected, atol=1e-2)
    exact = record.shares(TOKENS)
    assert torch.equal(shares, exact)


@pytest.mark.parametrize(
    ("layers", "used"),
    [
        ((4096, 1024, 256, 64, 256, 1024, 4096), 256),  # Stable Diffusion 1 at 512 x 512
        ((9216, 2304, 576, 144, 576), 576),  # Stable Diffusion 2 at 768 x 768
        ((4096, 1024, 1024, 1024, 4096), 1024),  # SDXL at 1024 x 1024
        ((64, 16, 4, 16, 64), 64),  # picto
    ],
)
def test_which_maps_are_used(layers: tuple[int, ...], used: int) -> None:
    record = CrossAttentionRecord()
    for cells in layers:
        attention = nn.Module()
        attention.heads, attention.scale = 1, 1.0  # type: ignore[assignment]
        record.keep_query(attention, nn.Identity(), (), torch.zeros(1, cells, 2))
        record.keep_key(attention, nn.Identity(), (), torch.zeros(1, 3, 2))
    assert record.cells == used
    assert record.shares(torch.tensor([[True, False, False]])).shape == (1, used)


@pytest.mark.parametrize(
    ("cells", "latents", "grid"),
    [
        (256, (64, 64), (16, 16)),
        (384, (64, 96), (16, 24)),
        (384, (96, 64), (24, 16)),
        (64, (8, 8), (8, 8)),
        (12, (13, 9), (4, 3)),
    ],
)
def test_grids_follow_the_latents(cells: int, latents: tuple[int, int], grid: tuple[int, int]) -> None:
    record = CrossAttentionRecord()
    record.cells = cells
    assert record.grid(*latents) == grid


def test_a_grid_of_a_real_prediction_of_odd_size(model: StableDiffusion) -> None:
    record = recorded(model, (7, 5))
    assert record.grid(7, 5) == (7, 5)


@pytest.mark.parametrize("cells", [0, 100, 5000])
def test_a_grid_that_does_not_fit_is_refused(cells: int) -> None:
    record = CrossAttentionRecord()
    record.cells = cells
    with pytest.raises(ModelError, match=f"{cells} cells for latents of 64 x 64"):
        record.grid(64, 64)


def test_fused_projections_are_refused(model: StableDiffusion) -> None:
    model.unet.fuse_qkv_projections()
    assert any(isinstance(one, FusedAttnProcessor2_0) for one in model.unet.attn_processors.values())
    with pytest.raises(ModelError, match="unfuse_qkv_projections"), record_cross_attention(model.cross_attentions()):
        pass
    model.unet.unfuse_qkv_projections()
    recorded(model)


def test_a_network_without_cross_attention_is_refused() -> None:
    with pytest.raises(ModelError, match="no cross-attention"):
        cross_attentions(nn.Linear(2, 2))
