from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0, SlicedAttnProcessor
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from tests.support import UNET, tiny_model, weights
from tincture.adapters.adapter import Adapter
from tincture.adapters.hypernetwork import Hypernetwork, create_hypernetwork
from tincture.errors import FileFormatError, ModelError, UsageError
from tincture.formats.hypernetwork_file import read_hypernetwork_file
from tincture.models.conditions import Conditions
from tincture.models.families import FAMILIES, Family
from tincture.models.stable_diffusion import StableDiffusion

# Text contexts are 48 wide, so that self- and cross-attention differ: the three widths of this U-Net.
WIDTHS = [32, 48, 64]
PROCESSORS = [AttnProcessor, AttnProcessor2_0, lambda: SlicedAttnProcessor(slice_size=1)]
PROCESSOR_IDS = ["AttnProcessor", "AttnProcessor2_0", "SlicedAttnProcessor"]


class ReferenceProcessor:
    """Attention written out, with the contexts transformed one after the other."""

    def __init__(self, stack: list[tuple[Hypernetwork, float]]) -> None:
        self.stack = stack
        self.seen: list[int] = []

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any
    ) -> Tensor:
        k = v = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        self.seen.append(k.shape[-1])
        for hypernetwork, multiplier in self.stack:
            if k.shape[-1] in hypernetwork.pairs:
                k_module, v_module = hypernetwork.pairs[k.shape[-1]]
                k, v = k_module(k, multiplier), v_module(v, multiplier)
        query, key, value = attn.to_q(hidden_states), attn.to_k(k), attn.to_v(v)
        query, key, value = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (query, key, value))
        probabilities = (query @ key.transpose(-1, -2) * attn.scale).softmax(-1)
        out: Tensor = attn.to_out[0]((probabilities @ value).transpose(1, 2).flatten(-2))
        return out


@pytest.fixture
def unet() -> UNet2DConditionModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return UNet2DConditionModel(**{**UNET, "cross_attention_dim": 48}).requires_grad_(False).eval()


def hypernetwork(sizes: list[int] | None = None, seed: int = 0, scale: float = 0.3, **options: Any) -> Hypernetwork:
    """With weights large enough to show."""
    made = create_hypernetwork(f"h{seed}", sizes or WIDTHS, activation_func="relu", seed=seed, **options)
    generator = torch.Generator().manual_seed(100 + seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return made


def inputs(width: int = 48) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    return latents, torch.tensor([10, 700]), torch.randn(2, 7, width, generator=generator)


def run(unet: UNet2DConditionModel) -> Tensor:
    output: Tensor = unet(*inputs(), return_dict=False)[0]
    return output


def hooks(unet: nn.Module) -> int:
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in unet.modules())


def reference(unet: UNet2DConditionModel, stack: list[tuple[Hypernetwork, float]]) -> tuple[Tensor, list[int]]:
    processor = ReferenceProcessor(stack)
    unet.set_attn_processor(processor)
    return run(unet), processor.seen


# --- acting -----------------------------------------------------------------------------------------------------------


def test_transform_leaves_a_context_without_a_pair_alone() -> None:
    context = torch.randn(1, 2, 40, generator=torch.Generator().manual_seed(0))
    k, v = hypernetwork().transform(context)
    assert k is context
    assert v is context


def test_transform_uses_the_k_module_for_keys_and_the_v_module_for_values() -> None:
    made = hypernetwork()
    context = torch.randn(1, 2, 48, generator=torch.Generator().manual_seed(0))
    k, v = made.transform(context, 0.5)
    assert torch.equal(k, made.pairs[48][0](context, 0.5))
    assert torch.equal(v, made.pairs[48][1](context, 0.5))
    assert not torch.equal(k, v)


@pytest.mark.parametrize("processor", PROCESSORS, ids=PROCESSOR_IDS)
@pytest.mark.parametrize("multiplier", [1.0, 0.35])
def test_every_attention_with_a_pair_is_reached(
    unet: UNet2DConditionModel, processor: Callable[[], Any], multiplier: float
) -> None:
    made = hypernetwork()
    unet.set_attn_processor(processor())
    plain = run(unet)
    with made.attach(unet, multiplier):
        actual = run(unet)
    assert torch.equal(run(unet), plain)
    expected, seen = reference(unet, [(made, multiplier)])
    assert sorted(set(seen)) == WIDTHS, "self- and cross-attention of every width"
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)
    assert (actual - plain).abs().max() > 1e-3


@pytest.mark.parametrize("processor", PROCESSORS, ids=PROCESSOR_IDS)
def test_widths_without_a_pair_are_left_alone(unet: UNet2DConditionModel, processor: Callable[[], Any]) -> None:
    made = hypernetwork([48])
    unet.set_attn_processor(processor())
    with made.attach(unet):
        actual = run(unet)
    torch.testing.assert_close(actual, reference(unet, [(made, 1.0)])[0], atol=1e-5, rtol=1e-4)


def test_several_stack_in_the_order_they_were_attached(unet: UNet2DConditionModel) -> None:
    a, b, c = hypernetwork(seed=1), hypernetwork([48, 64], seed=2), hypernetwork(seed=3)
    with a.attach(unet, 0.9), b.attach(unet, 0.5), c.attach(unet, 0.7):
        actual = run(unet)
    expected = reference(unet, [(a, 0.9), (b, 0.5), (c, 0.7)])[0]
    other_order = reference(unet, [(c, 0.7), (b, 0.5), (a, 0.9)])[0]
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)
    assert (expected - other_order).abs().max() > 1e-4


def test_the_multiplier_counts_as_one_in_training(unet: UNet2DConditionModel) -> None:
    made = hypernetwork()
    with made.attach(unet, 1.0):
        full = run(unet)
    with made.train().attach(unet, 0.2):
        assert torch.equal(run(unet), full)
    with made.train(False).attach(unet, 0.2):
        assert not torch.equal(run(unet), full)


def test_it_attaches_to_a_whole_model_too(model: StableDiffusion) -> None:
    made = hypernetwork([32, 64])
    latents, timesteps, context = inputs(32)
    with made.attach(model.unet):
        expected = model.predict_noise(latents, timesteps, Conditions(context))
    with made.attach(model):
        assert torch.equal(model.predict_noise(latents, timesteps, Conditions(context)), expected)


# --- the model stays as it was ----------------------------------------------------------------------------------------


def test_the_model_is_the_same_bit_for_bit_afterwards(model: StableDiffusion) -> None:
    made = hypernetwork([32, 64]).train()
    before, keys = weights(model), list(model.unet.state_dict())
    latents, timesteps, context = inputs(32)
    plain = model.predict_noise(latents, timesteps, Conditions(context))
    adamw = torch.optim.AdamW(made.parameters(), lr=0.1)
    with made.attach(model):
        assert list(model.unet.state_dict()) == keys
        model.predict_noise(latents, timesteps, Conditions(context)).square().mean().backward()
        adamw.step()
    assert all(p.grad is None and not p.requires_grad for p in model.unet.parameters())
    after = weights(model)
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert hooks(model.unet) == 0
    assert torch.equal(model.predict_noise(latents, timesteps, Conditions(context)), plain)


def test_hooks_go_also_after_an_exception(unet: UNet2DConditionModel) -> None:
    with pytest.raises(KeyboardInterrupt), hypernetwork().attach(unet):
        assert hooks(unet) > 0
        raise KeyboardInterrupt
    assert hooks(unet) == 0


def test_one_that_leaves_takes_only_its_own_hooks(unet: UNet2DConditionModel) -> None:
    a, b = hypernetwork(seed=1), hypernetwork(seed=2)
    first, second = ExitStack(), ExitStack()
    first.enter_context(a.attach(unet))
    second.enter_context(b.attach(unet))
    first.close()
    actual = run(unet)
    second.close()
    assert hooks(unet) == 0
    torch.testing.assert_close(actual, reference(unet, [(b, 1.0)])[0], atol=1e-5, rtol=1e-4)


def test_fused_projections_are_refused(unet: UNet2DConditionModel) -> None:
    made = hypernetwork()
    unet.fuse_qkv_projections()
    with pytest.raises(ModelError, match="unfuse_qkv_projections"), made.attach(unet):
        pass
    assert hooks(unet) == 0
    unet.unfuse_qkv_projections()
    with made.attach(unet):
        assert hooks(unet) > 0


def test_a_model_without_a_fitting_attention_is_refused(unet: UNet2DConditionModel) -> None:
    words = "widths 768, but the attentions of this model take 32, 48, 64"
    with pytest.raises(ModelError, match=words), hypernetwork([768]).attach(unet):
        pass


class Sizes(NamedTuple):
    """A published model, by its widths."""

    family: Family
    called: str = "the model 'known'"

    @property
    def text_width(self) -> int:
        return self.family.text_width

    def context_widths(self) -> list[int]:
        return sorted(self.family.context_widths)


@pytest.mark.parametrize("model", FAMILIES.values(), ids=FAMILIES.keys())
@pytest.mark.parametrize("made_for", FAMILIES.values(), ids=FAMILIES.keys())
def test_one_made_for_another_family_is_refused_by_name_and_width(made_for: Family, model: Family) -> None:
    made = Hypernetwork("ink", made_for.context_widths, (1, 0.01, 1))
    if made_for is model:
        made.require_fit(Sizes(model))  # type: ignore[arg-type]
        return
    with pytest.raises(
        ModelError, match=f"'ink' .*{made_for.text_width}.*the model 'known'.*{model.title}.*{model.text_width}"
    ):
        made.require_fit(Sizes(model))  # type: ignore[arg-type]


def test_one_for_several_families_or_for_self_attention_alone_fits() -> None:
    for widths in ((768, 1024, 320, 640, 1280), (320, 640)):
        Hypernetwork("ink", widths, (1, 0.01, 1)).require_fit(Sizes(FAMILIES["sd1"]))  # type: ignore[arg-type]
    with pytest.raises(ModelError):
        Hypernetwork("ink", (320, 640), (1, 0.01, 1)).require_fit(Sizes(FAMILIES["sdxl"]))  # type: ignore[arg-type]


# --- training ---------------------------------------------------------------------------------------------------------


def gradients(model: StableDiffusion, made: Hypernetwork) -> list[Tensor]:
    latents, timesteps, context = inputs(32)
    with torch.random.fork_rng(devices=[]), made.train().attach(model):
        torch.manual_seed(5)  # of dropout
        model.predict_noise(latents, timesteps, Conditions(context)).square().mean().backward()
    found = [p.grad for p in made.parameters() if p.grad is not None]
    assert len(found) == len(made.parameters())
    for parameter in made.parameters():
        parameter.grad = None
    return found


@pytest.mark.parametrize("processor", PROCESSORS, ids=PROCESSOR_IDS)
def test_gradients_are_the_same_with_checkpointing(model: StableDiffusion, processor: Callable[[], Any]) -> None:
    made = hypernetwork([32, 64], dropout_structure=[0, 0.5, 0])
    model.unet.set_attn_processor(processor())
    kept = gradients(model, made)
    model.enable_gradient_checkpointing()
    recomputed = gradients(model, made)
    model.disable_gradient_checkpointing()
    assert all(torch.equal(a, b) for a, b in zip(kept, recomputed, strict=True))
    assert all(gradient.abs().max() > 0 for gradient in kept)


def test_gradients_are_those_of_the_attention_written_out(unet: UNet2DConditionModel) -> None:
    made = hypernetwork()
    with made.attach(unet):
        run(unet).square().mean().backward()
    actual = [p.grad for p in made.parameters()]
    made._network.zero_grad()
    reference(unet, [(made, 1.0)])[0].square().mean().backward()
    for gradient, parameter in zip(actual, made.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_model_trains_a_float32_hypernetwork(model: StableDiffusion, dtype: torch.dtype) -> None:
    made = hypernetwork([32, 64], scale=0.05)
    full = gradients(model, made)
    model.to("cpu", dtype)
    latents, timesteps, context = inputs(32)
    with made.attach(model):
        assert model.predict_noise(latents, timesteps, Conditions(context)).dtype == dtype
    half = gradients(model, made)
    assert {p.dtype for p in made.parameters()} == {torch.float32}
    assert {gradient.dtype for gradient in half} == {torch.float32}
    similarity = nn.functional.cosine_similarity(
        torch.cat([g.flatten() for g in full]), torch.cat([g.flatten() for g in half]), dim=0
    )
    assert similarity > 0.95


def test_state_round_trips_into_the_same_parameters() -> None:
    made, other = hypernetwork(seed=1), hypernetwork(seed=2)
    before = other.parameters()
    other.load_state_dict({key: value.clone() for key, value in made.state_dict().items()})
    assert all(a is b for a, b in zip(before, other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), other.parameters(), strict=True))


def test_a_state_of_another_shape_is_refused() -> None:
    with pytest.raises(FileFormatError, match="do not fit hypernetwork 'h1'"):
        hypernetwork(seed=1).load_state_dict(hypernetwork([32]).state_dict())


# --- making -----------------------------------------------------------------------------------------------------------


def test_a_new_one_is_ready_for_use_and_for_training() -> None:
    made: Adapter = create_hypernetwork("h", [32])
    assert (made.kind, made.name, made.step, made.trains_text) == ("hypernetwork", "h", 0, False)
    assert all(p.requires_grad and p.dtype == torch.float32 for p in made.parameters())
    assert sum(p.numel() for p in made.parameters()) == 2 * (32 * 64 + 64 + 64 * 32 + 32)
    assert not create_hypernetwork("h", [32]).pairs[32][0].training


def test_first_weights_follow_from_the_seed_and_differ_between_modules() -> None:
    before = torch.get_rng_state()
    a, b, other = (create_hypernetwork("h", WIDTHS, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.parameters()[0], other.parameters()[0])
    k, v = a.pairs[32]
    assert not torch.equal(k.linear[0].weight, v.linear[0].weight)


def test_sd1_widths_are_the_default() -> None:
    made = create_hypernetwork("h", layer_structure=[1, 0.01, 1])
    assert made.sizes == [768, 320, 640, 1280]


def test_structures_may_be_texts() -> None:
    made = create_hypernetwork("h", [32], "1, 1.5, 1.5, 1", dropout_structure="0, 0.1, 0.2, 0")
    assert made.layer_structure == [1, 1.5, 1.5, 1]
    assert made.dropout_structure == [0, 0.1, 0.2, 0]
    assert create_hypernetwork("h", [32], dropout_structure="").dropout_structure == [0, 0, 0]


def test_use_dropout_alone_means_the_legacy_rule() -> None:
    assert create_hypernetwork("h", [32], [1, 2, 2, 1], use_dropout=True).dropout_structure == [0, 0.3, 0.3, 0]
    assert Hypernetwork("h", [32], use_dropout=True, last_layer_dropout=False).dropout_structure == [0, 0, 0]


@pytest.mark.parametrize("sizes", [[], [0], [-32], [32, 32]])
def test_sizes_that_are_not_allowed(sizes: list[int]) -> None:
    with pytest.raises(UsageError, match="different context widths"):
        create_hypernetwork("h", sizes)


def test_a_tiny_models_widths_are_found() -> None:
    model = tiny_model()
    found = {m.to_k.in_features for m in model.unet.modules() if isinstance(m, Attention)}
    assert model.context_widths() == sorted(found)


@pytest.mark.parametrize(("dropout_structure", "text_calls"), [([0, 0, 0], 1), ([0, 0.5, 0], None)])
def test_the_text_context_is_transformed_once_per_call_unless_dropout_draws(
    unet: UNet2DConditionModel, dropout_structure: list[float], text_calls: int | None
) -> None:
    adapter = hypernetwork([48], dropout_structure=dropout_structure).train()
    calls: list[int] = []
    adapter.pairs[48][0].register_forward_hook(lambda *_: calls.append(1))
    cross_attentions = sum(name.endswith("attn2.to_k") for name, _ in unet.named_modules())
    with adapter.attach(unet):
        unet(torch.randn(1, 4, 8, 8), 10, encoder_hidden_states=torch.randn(1, 5, 48))
    assert cross_attentions > 1
    assert len(calls) == (text_calls or cross_attentions)


@pytest.mark.parametrize(("dropout_structure", "text_calls"), [([0, 0, 0], 1), ([0, 0.5, 0], None)])
def test_a_second_hypernetwork_transforms_what_the_first_made_of_the_text_once(
    unet: UNet2DConditionModel, dropout_structure: list[float], text_calls: int | None
) -> None:
    """And at every attention when the first one's dropout makes another context for each."""
    first = hypernetwork([48], dropout_structure=dropout_structure).train()
    second = hypernetwork([48], seed=1).train()
    calls: list[int] = []
    second.pairs[48][1].register_forward_hook(lambda *_: calls.append(1))
    cross_attentions = sum(name.endswith("attn2.to_k") for name, _ in unet.named_modules())
    with first.attach(unet), second.attach(unet):
        unet(torch.randn(1, 4, 8, 8), 10, encoder_hidden_states=torch.randn(1, 5, 48))
    assert len(calls) == (text_calls or cross_attentions)


def test_a_seed_that_torch_cannot_take_is_named() -> None:
    assert create_hypernetwork("ink", (8,), seed=2**64 - 1).sizes == [8]
    with pytest.raises(UsageError, match=r"The seed 18446744073709551616 is not allowed; .* to 18446744073709551615"):
        create_hypernetwork("ink", (8,), seed=2**64)


@pytest.mark.parametrize(("dropout", "last"), [((0.0, 0.3, 0.0), True), ((0.3, 0.3, 0.0, 0.0), False)])
def test_the_file_says_whether_the_last_inner_layer_drops_out(
    dropout: tuple[float, ...], last: bool, tmp_path: Path
) -> None:
    made = hypernetwork([48], layer_structure=(1, 2, 1) if last else (1, 2, 2, 1), dropout_structure=dropout)
    made.save(tmp_path / "ink.pt")
    assert read_hypernetwork_file(tmp_path / "ink.pt").last_layer_dropout is last


def test_it_goes_on_by_itself_where_it_was_moved_and_knows_its_widths() -> None:
    made = hypernetwork([48, 32])
    assert made.to("cpu") is made
    assert made.sizes == [48, 32]
