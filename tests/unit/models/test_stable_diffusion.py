from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from tests.support import tiny_model, weights
from tincture.errors import UsageError
from tincture.models.families import SD1
from tincture.models.loading.load import load_model
from tincture.models.picto import world
from tincture.models.stable_diffusion import StableDiffusion

TABLE = 655


class Hooked:
    """Vectors put in place of ids from ``TABLE`` upward, as an attached embedding does."""

    name = "zork"

    def __init__(self, model: StableDiffusion, count: int) -> None:
        self.parameter = nn.Parameter(torch.randn(count, 32, generator=torch.Generator().manual_seed(1)))
        self.num_vectors = count
        model.text.attached.append(self)
        table = model.text_encoders[0].module.get_input_embeddings()
        table.register_forward_pre_hook(self.clamp)
        table.register_forward_hook(self.place)

    def clamp(self, module: nn.Module, args: tuple[torch.Tensor]) -> torch.Tensor:
        self.ids = args[0]
        return self.ids.clamp(max=TABLE - 1)

    def place(self, module: nn.Module, args: object, rows: torch.Tensor) -> torch.Tensor:
        own = self.parameter[(self.ids - TABLE).clamp(min=0)]
        return torch.where((self.ids >= TABLE)[..., None], own, rows)


def test_facts(shared_model: StableDiffusion) -> None:
    assert shared_model.default_size == 64
    assert shared_model.vae_scale_factor == 8
    assert shared_model.text_width == 32
    assert shared_model.context_widths() == [32, 64]
    assert (shared_model.family, shared_model.text.widths) == (SD1, {"clip_l": 32})
    assert (shared_model.device.type, shared_model.dtype) == ("cpu", torch.float32)
    assert shared_model.prediction_type == "epsilon"
    assert tiny_model(prediction_type="v_prediction").prediction_type == "v_prediction"


def test_everything_is_frozen(shared_model: StableDiffusion) -> None:
    for part in (shared_model.unet, shared_model.vae, shared_model.text_encoders[0].module):
        assert not part.training
        assert not any(parameter.requires_grad for parameter in part.parameters())


def test_tiny_models_of_a_seed_are_equal_and_leave_global_random_state_alone() -> None:
    state = torch.get_rng_state()
    first, second, other = tiny_model(), tiny_model(), tiny_model(seed=1)

    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, weights(second)[key]) for key, value in weights(first).items())
    assert not torch.equal(first.unet.conv_in.weight, other.unet.conv_in.weight)


def test_half_precision_leaves_the_vae_in_float32() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = tiny_model().to("cpu", torch.bfloat16)

    assert model.dtype == torch.bfloat16
    assert model.vae.dtype == torch.float32
    conditions = model.encode_prompts(["small moon"])
    assert conditions.hidden_states.dtype == torch.bfloat16
    latents, _ = model.encode_pictures(torch.zeros(1, 3, 64, 64))
    assert latents.dtype == torch.float32
    assert model.predict_noise(latents, torch.tensor([5]), conditions).dtype == torch.bfloat16


def test_token_embeddings_are_copies_of_the_tables_rows(model: StableDiffusion) -> None:
    rows = model.text_encoders[0].token_embeddings("small moon")
    table = model.text_encoders[0].module.get_input_embeddings().weight

    assert torch.equal(rows, table[model.text.tokenize(["small moon"])[0, 1:3]])
    assert model.text_encoders[0].token_embeddings("").shape == (0, 32)
    before = weights(model)
    rows.zero_()
    assert torch.equal(before["text_encoder.embeddings.token_embedding.weight"], table)


def test_prompts_become_the_text_encoders_output(shared_model: StableDiffusion) -> None:
    prompts = ["small moon", "a red star"]
    output = shared_model.text_encoders[0].module(shared_model.text.tokenize(prompts), output_hidden_states=True)

    hidden_states = shared_model.encode_prompts(prompts).hidden_states

    assert hidden_states.shape == (2, 77, 32)
    assert torch.equal(hidden_states, output.last_hidden_state)
    assert not torch.equal(hidden_states[0], hidden_states[1])
    assert not hidden_states.requires_grad


def test_clip_skip_takes_an_earlier_layer_through_the_final_norm(shared_model: StableDiffusion) -> None:
    encoder = shared_model.text_encoders[0].module
    seen: list[torch.Tensor] = []
    handle = encoder.encoder.layers[0].register_forward_hook(lambda module, args, output: seen.append(output))
    skipped = shared_model.encode_prompts(["small moon"], clip_skip=2).hidden_states
    handle.remove()

    assert torch.equal(skipped, encoder.final_layer_norm(seen[0]))
    assert not torch.allclose(skipped, shared_model.encode_prompts(["small moon"]).hidden_states)


def test_clip_skip_works_with_layers_one_level_down(model: StableDiffusion) -> None:
    """CLIPTextModelWithProjection, and CLIPTextModel before transformers 5.6, keep their layers under text_model."""
    expected = model.encode_prompts(["small moon"], clip_skip=2).hidden_states
    flat = model.text_encoders[0].module

    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.text_model = flat
            self.config = flat.config

        def forward(self, ids: torch.Tensor, **arguments: object) -> object:
            return self.text_model(ids, **arguments)

    model.text_encoders[0].module = Nested()

    assert torch.equal(model.encode_prompts(["small moon"], clip_skip=2).hidden_states, expected)


@pytest.mark.parametrize("clip_skip", [0, -1, 3])
def test_clip_skip_beyond_the_layers_is_refused(clip_skip: int, shared_model: StableDiffusion) -> None:
    with pytest.raises(UsageError, match=f"clip_skip {clip_skip} .*layers 1 to 2"):
        shared_model.encode_prompts(["a"], clip_skip)


@pytest.mark.parametrize("clip_skip", [1, 2])
def test_each_chunk_is_encoded_by_itself(clip_skip: int, shared_model: StableDiffusion) -> None:
    hidden_states = shared_model.encode_prompts(["red BREAK moon", "star"], clip_skip).hidden_states
    parts = shared_model.encode_prompts(["red", "moon", "star", ""], clip_skip).hidden_states

    assert hidden_states.shape == (2, 154, 32)
    torch.testing.assert_close(hidden_states, torch.stack([parts[:2].flatten(0, 1), parts[2:].flatten(0, 1)]))


def test_empty_chunks_are_added_on_demand(shared_model: StableDiffusion) -> None:
    longer = shared_model.encode_prompts(["red"], at_least=3 * 77).hidden_states

    torch.testing.assert_close(longer, shared_model.encode_prompts(["red BREAK BREAK"], at_least=3 * 77).hidden_states)
    torch.testing.assert_close(longer[:, :77], shared_model.encode_prompts(["red"]).hidden_states)
    assert longer.shape == (1, 231, 32)


def test_weights_act_on_hidden_states(model: StableDiffusion) -> None:
    model.text_encoders[0].module.final_layer_norm.bias.data.fill_(0.5)  # a trained encoder's states have a mean
    plain = model.encode_prompts(["red moon, star"]).hidden_states
    weighted = model.encode_prompts(["red (moon:2), star"]).hidden_states

    expected = plain.clone()
    expected[:, 2] *= 2
    expected *= plain.mean() / expected.mean()
    torch.testing.assert_close(weighted, expected)
    assert torch.equal(model.encode_prompts(["(red moon:1), star"]).hidden_states, plain)


def test_weights_do_not_reach_other_prompts(shared_model: StableDiffusion) -> None:
    together = shared_model.encode_prompts(["red (moon:2)", "star"]).hidden_states

    assert torch.equal(together[1], shared_model.encode_prompts(["red moon", "star"]).hidden_states[1])


@pytest.mark.parametrize("text", ["a zork moon", "a (zork:1.5) moon", "moon BREAK zork"])
def test_gradients_reach_vectors_in_every_syntax(text: str, model: StableDiffusion) -> None:
    embedding = Hooked(model, 2)

    model.encode_prompts([text]).hidden_states.square().sum().backward()  # type: ignore[no-untyped-call]

    gradient = embedding.parameter.grad
    assert gradient is not None and torch.isfinite(gradient).all() and (gradient.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("clip_skip", [1, 2])
def test_gradients_reach_attached_vectors_and_nothing_else(clip_skip: int, model: StableDiffusion) -> None:
    embedding = Hooked(model, 2)
    conditions = model.encode_prompts(["a zork moon"], clip_skip)

    model.predict_noise(torch.ones(1, 4, 8, 8), torch.tensor([500]), conditions).square().mean().backward()

    gradient = embedding.parameter.grad
    assert gradient is not None and torch.isfinite(gradient).all() and (gradient.abs().sum(dim=1) > 0).all()
    for part in (model.unet, model.text_encoders[0].module):
        assert all(parameter.grad is None for parameter in part.parameters())


def test_pictures_become_scaled_latents(shared_model: StableDiffusion) -> None:
    pixels = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    posterior = shared_model.vae.encode(pixels).latent_dist

    mean, std = shared_model.encode_pictures(pixels)

    assert mean.shape == std.shape == (2, 4, 8, 6)
    assert mean.dtype == std.dtype == torch.float32 and not mean.requires_grad
    assert torch.equal(mean, posterior.mean * 0.18215)
    assert torch.equal(std, posterior.std * 0.18215)


def test_latents_become_pictures_in_range(shared_model: StableDiffusion) -> None:
    latents = torch.randn(2, 4, 8, 6, generator=torch.Generator().manual_seed(0)) * 30

    pixels = shared_model.decode_latents(latents)

    assert pixels.shape == (2, 3, 64, 48) and not pixels.requires_grad
    assert pixels.min() >= -1 and pixels.max() <= 1
    assert torch.equal(pixels, shared_model.vae.decode(latents / 0.18215).sample.clamp(-1, 1))


def test_slicing_takes_pictures_one_by_one(model: StableDiffusion, shared_model: StableDiffusion) -> None:
    model.enable_slicing()
    pixels = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    means, _ = model.encode_pictures(pixels)
    assert torch.equal(means, torch.cat([shared_model.encode_pictures(one[None])[0] for one in pixels]))
    drawn = model.decode_latents(means)
    assert torch.equal(drawn, torch.cat([shared_model.decode_latents(one[None]) for one in means]))


def test_slicing_takes_pictures_above_the_models_size_in_tiles() -> None:
    whole, sliced = load_model(), load_model()
    sliced.enable_slicing()
    rng = np.random.default_rng(0)
    scenes = np.concatenate([world.render(world.random_scene(rng)) for _ in range(2)], axis=1)
    pixels = torch.from_numpy(scenes).permute(2, 0, 1)[None] / 127.5 - 1
    latents = [model.encode_pictures(pixels)[0] for model in (whole, sliced)]
    assert latents[0].shape == latents[1].shape and not torch.equal(*latents)
    assert (latents[0] - latents[1]).norm() < 0.3 * latents[0].norm()
    assert (sliced.decode_latents(latents[1]) - pixels).abs().mean() < 0.1
    # As many pixels as the model's own size, though longer than it.
    flat = torch.zeros(1, 3, 32, 128)
    assert torch.equal(sliced.encode_pictures(flat)[0], whole.encode_pictures(flat)[0])


def test_attention_is_torchs_own_kernel(shared_model: StableDiffusion) -> None:
    """It never holds the table of all pairs of cells."""
    for part in (shared_model.unet, shared_model.vae):
        processors = {type(processor).__name__ for processor in part.attn_processors.values()}
        assert processors == {"AttnProcessor2_0"}
    assert {encoder.module.config._attn_implementation for encoder in shared_model.text_encoders} == {"sdpa"}


@pytest.mark.parametrize("training", [False, True])
def test_gradient_checkpointing_gives_equal_gradients(training: bool, model: StableDiffusion) -> None:
    """Also through a hook inside of a checkpointed block, which is where hypernetworks stand."""
    model.unet.train(training)
    strength = nn.Parameter(torch.ones(()))
    attention = model.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2
    calls = 0

    def scale(module: nn.Module, args: tuple[torch.Tensor]) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return args[0] * strength

    attention.to_k.register_forward_pre_hook(scale)

    def gradient(switch: Callable[[], None]) -> tuple[torch.Tensor, int]:
        nonlocal calls
        switch()
        calls, strength.grad = 0, None
        conditions = model.encode_prompts(["small moon"])
        model.predict_noise(torch.ones(1, 4, 8, 8), torch.tensor([500]), conditions).square().mean().backward()
        assert strength.grad is not None
        return strength.grad.clone(), calls

    plain, once = gradient(lambda: None)
    checkpointed, twice = gradient(model.enable_gradient_checkpointing)
    again, once_more = gradient(model.disable_gradient_checkpointing)

    assert plain != 0
    assert torch.equal(plain, checkpointed) and torch.equal(plain, again)
    assert (once, twice, once_more) == (1, 2, 1)


def test_nothing_changes_the_weights(model: StableDiffusion) -> None:
    before = weights(model)

    latents, _ = model.encode_pictures(torch.zeros(1, 3, 64, 64))
    model.predict_noise(latents, torch.tensor([3]), model.encode_prompts(["a moon"], clip_skip=2))
    model.decode_latents(latents)
    model.text_encoders[0].token_embeddings("moon").add_(1)

    after = weights(model)
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
