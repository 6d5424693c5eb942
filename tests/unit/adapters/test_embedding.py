from __future__ import annotations

import copy
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support import weights
from tincture.adapters.adapter import Adapter
from tincture.adapters.embedding import Embedding, create_embedding
from tincture.errors import FileFormatError, ModelError, UsageError
from tincture.models.stable_diffusion import StableDiffusion

VOCABULARY = 655
WIDTH = 32


def embedding(name: str = "zorbo", rows: int = 3, seed: int = 0) -> Embedding:
    vectors = torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed)) * 0.02
    return Embedding(name, {"clip_l": vectors})


def table(model: StableDiffusion) -> nn.Embedding:
    found: nn.Embedding = model.text_encoders[0].module.get_input_embeddings()
    return found


def hooks(model: StableDiffusion) -> int:
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.text_encoders[0].module.modules())


def with_resized_table(model: StableDiffusion, rows: Tensor) -> tuple[Any, nn.Embedding]:
    """A copy of the text encoder whose table has ``rows`` appended and collects gradients."""
    text_encoder = copy.deepcopy(model.text_encoders[0].module)
    resized = nn.Embedding(VOCABULARY + len(rows), WIDTH)
    with torch.no_grad():
        resized.weight.copy_(torch.cat([table(model).weight, rows]))
    text_encoder.set_input_embeddings(resized)
    return text_encoder, resized


# --- acting -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 3, 75])
def test_output_and_gradient_are_those_of_a_resized_table(model: StableDiffusion, rows: int) -> None:
    made = embedding(rows=rows)
    prompts = ["zorbo", "red moon"] if rows == 75 else ["a zorbo on the left", "red moon", "zorbo zorbo"]
    text_encoder, resized = with_resized_table(model, made.parameters()[0].detach())
    with made.attach(model):
        ids = model.text.tokenize(prompts)
        actual = model.encode_prompts(prompts).hidden_states
        weight = torch.randn(actual.shape, generator=torch.Generator().manual_seed(1))
        (actual * weight).sum().backward()
    assert (ids >= VOCABULARY).sum() >= rows
    expected = text_encoder(ids).last_hidden_state
    (expected * weight).sum().backward()
    assert torch.equal(actual, expected)
    assert resized.weight.grad is not None
    gradient = made.parameters()[0].grad
    assert gradient is not None
    assert gradient.abs().max() > 0
    torch.testing.assert_close(gradient, resized.weight.grad[VOCABULARY:], atol=1e-7, rtol=1e-5)


def test_several_embeddings_act_side_by_side(model: StableDiffusion) -> None:
    a, b, c = embedding("zorbo", 2, 1), embedding("quax", 3, 2), embedding("flim", 1, 3)
    prompts = ["quax and zorbo and flim", "flim quax"]
    rows = torch.cat([e.parameters()[0].detach() for e in (a, b, c)])
    text_encoder, _ = with_resized_table(model, rows)
    with a.attach(model), b.attach(model), c.attach(model):
        ids = model.text.tokenize(prompts)
        actual = model.encode_prompts(prompts).hidden_states
    assert set(ids[ids >= VOCABULARY].tolist()) == set(range(VOCABULARY, VOCABULARY + 6))
    assert torch.equal(actual, text_encoder(ids).last_hidden_state)


def test_embeddings_may_leave_in_any_order(model: StableDiffusion) -> None:
    a, b = embedding("zorbo", 2, 1), embedding("quax", 3, 2)
    with b.attach(model):
        expected = model.encode_prompts(["a quax"]).hidden_states
    first, second = ExitStack(), ExitStack()
    first.enter_context(a.attach(model))
    second.enter_context(b.attach(model))
    first.close()
    assert torch.equal(model.encode_prompts(["a quax"]).hidden_states, expected)
    second.close()
    assert hooks(model) == 0


def test_prompts_without_the_name_stay_as_they_are(model: StableDiffusion) -> None:
    plain = model.encode_prompts(["a red moon"]).hidden_states
    with embedding().attach(model):
        assert torch.equal(model.encode_prompts(["a red moon"]).hidden_states, plain)


def test_changed_vectors_act_at_once(model: StableDiffusion) -> None:
    made = embedding()
    with made.attach(model):
        before = model.encode_prompts(["a zorbo"]).hidden_states
        with torch.no_grad():
            made.parameters()[0].add_(0.1)
        assert not torch.equal(model.encode_prompts(["a zorbo"]).hidden_states, before)


def test_clip_skip_and_half_precision(model: StableDiffusion) -> None:
    made = embedding()
    with made.attach(model):
        full = model.encode_prompts(["a zorbo"], clip_skip=2).hidden_states
    model.to("cpu", torch.bfloat16)
    with made.attach(model):
        half = model.encode_prompts(["a zorbo"], clip_skip=2).hidden_states
        half.float().square().sum().backward()
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), full, atol=0.1, rtol=0.1)
    gradient = made.parameters()[0].grad
    assert gradient is not None
    assert gradient.dtype == torch.float32
    assert gradient.abs().max() > 0


# --- the model stays as it was ----------------------------------------------------------------------------------------


class TablesMade(TorchDispatchMode):
    """Records every tensor with as many rows as the token table that an operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for value in output if isinstance(output, tuple | list) else (output,):
            if isinstance(value, Tensor) and value.ndim == 2 and VOCABULARY <= value.shape[0] < VOCABULARY + 10:
                self.found.append(str(func))
        return output


def test_only_the_new_vectors_are_trained(model: StableDiffusion) -> None:
    made = embedding(rows=3)
    before, weight = weights(model), table(model).weight
    version, place = weight._version, weight.data_ptr()
    adamw = torch.optim.AdamW(made.parameters(), lr=0.1)
    with made.attach(model), TablesMade() as tables:
        loss = model.predict_noise(
            torch.zeros(1, 4, 8, 8), torch.tensor([500]), model.encode_prompts(["a zorbo"])
        ).square()
        loss.mean().backward()
        adamw.step()
    assert tables.found == [], "no copy of the table and no gradient of its size"
    trained = [p for group in adamw.param_groups for p in group["params"]]
    assert sum(p.numel() for p in trained) == 3 * WIDTH
    state = [value for values in adamw.state.values() for value in values.values() if isinstance(value, Tensor)]
    assert sum(value.numel() for value in state) == 2 * 3 * WIDTH + 1, "two moments and a step count"
    assert table(model).weight is weight
    assert (weight._version, weight.data_ptr()) == (version, place), "the table was written"
    assert all(p.grad is None for part in (model.text_encoders[0].module, model.unet) for p in part.parameters())
    after = weights(model)
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_hooks_and_name_go_also_after_an_exception(model: StableDiffusion) -> None:
    keys = list(model.text_encoders[0].module.state_dict())
    with pytest.raises(KeyboardInterrupt), embedding().attach(model):
        assert list(model.text_encoders[0].module.state_dict()) == keys
        assert len(model.text.attached) == 1
        assert hooks(model) > 0
        raise KeyboardInterrupt
    assert model.text.attached == []
    assert hooks(model) == 0


def test_vectors_of_another_width_are_refused(model: StableDiffusion) -> None:
    for vectors in ({"clip_l": torch.zeros(1, 768)}, {"clip_h": torch.zeros(1, 1024)}):
        with (
            pytest.raises(
                ModelError,
                match=r"clip_[lh] (768|1024), but the text encoder of the model 'tiny' is clip_l 32.*`model`",
            ),
            Embedding("e", vectors).attach(model),
        ):
            pass
    assert hooks(model) == 0


def test_more_vectors_than_a_prompt_holds_are_refused(model: StableDiffusion) -> None:
    with pytest.raises(ModelError, match="76 vectors, but a prompt has room for 75"), embedding(rows=76).attach(model):
        pass
    assert hooks(model) == 0


def test_attaching_twice_is_refused(model: StableDiffusion) -> None:
    made = embedding()
    with made.attach(model), pytest.raises(ModelError, match="attached to this model already"), made.attach(model):
        pass
    assert hooks(model) == 0


def test_a_multiplier_is_refused(model: StableDiffusion) -> None:
    with pytest.raises(UsageError, match=r"multiplier 0\.5"), embedding().attach(model, 0.5):
        pass


# --- training ---------------------------------------------------------------------------------------------------------


def test_state_round_trips_into_the_same_parameters() -> None:
    made, other = embedding(seed=1), embedding(seed=2)
    (before,) = other.parameters()
    other.load_state_dict({key: value.clone() for key, value in made.state_dict().items()})
    assert other.parameters()[0] is before
    assert torch.equal(before, made.parameters()[0])
    assert before.requires_grad


def test_a_state_of_another_shape_is_refused() -> None:
    with pytest.raises(FileFormatError, match="do not fit embedding 'zorbo'"):
        embedding(rows=3).load_state_dict(embedding(rows=2).state_dict())


def test_it_is_an_adapter() -> None:
    made: Adapter = embedding()
    assert (made.kind, made.name, made.step, made.trains_text) == ("embedding", "zorbo", 0, True)
    assert made.train() is made
    (parameter,) = made.parameters()
    assert made.to("cpu") is made
    assert made.parameters()[0] is parameter


# --- making -----------------------------------------------------------------------------------------------------------


def test_the_init_text_is_spread_over_the_vectors(model: StableDiffusion) -> None:
    tokens = model.text_encoders[0].token_embeddings("a small red moon on the left")
    n = len(tokens)
    assert n >= 5
    for num_vectors in (1, 2, 3, n, n + 3, 75):
        made = create_embedding("e", model, num_vectors, "a small red moon on the left")
        expected = torch.stack([tokens[i * n // num_vectors] for i in range(num_vectors)])
        assert made.num_vectors == num_vectors
        assert torch.equal(made.vectors["clip_l"], expected)
    assert (made.model_name, made.model_hash, made.step) == ("tiny", "0123456789", 0)


def test_an_empty_init_text_gives_zeros(model: StableDiffusion) -> None:
    rows = create_embedding("e", model, 2, "").vectors["clip_l"]
    assert rows.shape == (2, WIDTH)
    assert not rows.any()


def test_new_vectors_are_no_view_of_the_table(model: StableDiffusion) -> None:
    made = create_embedding("e", model, 1, "moon")
    before = table(model).weight.clone()
    with torch.no_grad():
        made.parameters()[0].fill_(5)
    assert torch.equal(table(model).weight, before)


def test_a_half_precision_model_gives_float32_vectors(model: StableDiffusion) -> None:
    model.to("cpu", torch.float16)
    assert create_embedding("e", model, 1, "moon").vectors["clip_l"].dtype == torch.float32


@pytest.mark.parametrize("num_vectors", [0, -1, 76])
def test_a_number_of_vectors_that_is_not_possible(model: StableDiffusion, num_vectors: int) -> None:
    with pytest.raises(UsageError, match=f"{num_vectors} vectors are not possible; num_vectors is 1 to 75"):
        create_embedding("e", model, num_vectors)


@pytest.mark.parametrize("vectors", [{}, {"clip_l": torch.zeros(8)}, {"clip_l": torch.zeros(0, 8)}])
def test_vectors_of_another_shape_are_refused(vectors: dict[str, Tensor]) -> None:
    with pytest.raises(UsageError, match=r"needs vectors of the shape \(num_vectors, width\)"):
        Embedding("e", vectors)
