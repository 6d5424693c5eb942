from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.support import tiny_model
from tincture.models.conditions import Conditions
from tincture.models.float8 import FULL_PRECISION_LAYERS, pack, store_in_float8, unpack
from tincture.models.stable_diffusion import StableDiffusion


def rounded_model(dtype: torch.dtype = torch.float32) -> StableDiffusion:
    """The tiny model with the weights that float8 leaves of them, kept whole: what storage must compute like."""
    model = tiny_model().to("cpu", dtype)
    for name, child in model.unet.named_children():
        for layer in child.modules() if name not in FULL_PRECISION_LAYERS else ():
            if type(layer) in (nn.Linear, nn.Conv2d):
                layer.weight.data = unpack(*pack(layer.weight))
    return model


def stored_model(dtype: torch.dtype = torch.float32) -> StableDiffusion:
    model = tiny_model().to("cpu", dtype)
    store_in_float8(model.unet)
    return model


def step(model: StableDiffusion, autocast: torch.dtype | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The prediction, and the gradients of text and latents."""
    generator = torch.Generator().manual_seed(3)
    text = torch.randn(2, 77, 32, generator=generator, requires_grad=True)
    noisy = torch.randn(2, 4, 8, 8, generator=generator, requires_grad=True)
    with torch.autocast("cpu", autocast, enabled=autocast is not None):
        prediction = model.predict_noise(noisy, torch.tensor([10, 900]), Conditions(text))
        prediction.float().square().mean().backward()
    assert text.grad is not None and noisy.grad is not None
    return prediction, text.grad, noisy.grad


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [1e-6, 0.02, 30.0])
def test_weights_keep_four_significant_bits_however_small_they_are(spread: float) -> None:
    weight = torch.randn(16, 3, 3, 3, generator=torch.Generator().manual_seed(0)) * spread
    stored, scale = pack(weight)
    assert stored.dtype == torch.uint8 and stored.shape == weight.shape
    errors = (unpack(stored, scale) - weight).abs()
    rows = weight.flatten(1).abs().amax(1).reshape(-1, 1, 1, 1)
    # half of the last bit, or of the smallest step below the normal numbers
    assert (errors <= torch.maximum(weight.abs() / 16, rows / 448 * 2 * 2**-10)).all()
    assert torch.equal(scale.log2(), scale.log2().round())


def test_rows_have_scales_of_their_own() -> None:
    weight = torch.tensor([[300.0, -7.0], [3e-5, 1e-5], [0.0, 0.0]])
    back = unpack(*pack(weight))
    torch.testing.assert_close(back, weight, rtol=1 / 16, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_is_made_whole_is_exact_in_half_precision(dtype: torch.dtype) -> None:
    weight = torch.randn(64, 32, generator=torch.Generator().manual_seed(0)) * 0.05
    stored, scale = pack(weight)
    assert torch.equal(unpack(stored, scale.to(dtype)).float(), unpack(stored, scale))


# --- layers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("dtype", "autocast"), [(torch.float32, None), (torch.bfloat16, torch.bfloat16)])
def test_predictions_and_gradients_are_those_of_the_rounded_weights(
    dtype: torch.dtype, autocast: torch.dtype | None, checkpointing: bool
) -> None:
    stored, reference = stored_model(dtype), rounded_model(dtype)
    if checkpointing:
        stored.enable_gradient_checkpointing()
    tolerance = 1e-6 if dtype is torch.float32 else 2e-2
    for own, expected in zip(step(stored, autocast), step(reference, autocast), strict=True):
        assert (own - expected).norm() <= tolerance * expected.norm()
        assert expected.norm() > 0


def test_gradient_is_that_of_the_function() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1, groups=1), nn.Flatten(), nn.Linear(16, 5)).double()
    unet = nn.ModuleDict({"block": layers}).requires_grad_(False)
    store_in_float8(unet)
    picture = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layers, (picture,))


def test_only_matrices_and_convolutions_between_the_ends_change() -> None:
    plain, stored = tiny_model().unet, stored_model().unet
    changed = {name for name, weight in stored.named_parameters() if weight.dtype == torch.uint8}
    layers = {name for name, layer in plain.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
    kept = {name for name in layers if name.split(".")[0] in FULL_PRECISION_LAYERS}
    assert kept == {"conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2"}
    assert changed == {f"{name}.weight" for name in layers - kept}
    whole = dict(plain.named_parameters())
    assert all(torch.equal(weight, whole[name]) for name, weight in stored.named_parameters() if name not in changed)


def test_no_whole_weight_is_kept_for_the_backward_pass() -> None:
    kept: list[Tensor] = []
    layer = nn.ModuleDict({"block": nn.Linear(64, 32)}).requires_grad_(False)
    store_in_float8(layer)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        layer["block"](torch.randn(2, 64, requires_grad=True))
    assert [tensor.dtype for tensor in kept if tensor.numel() >= 64 * 32] == [torch.uint8]


def test_moves_casts_and_copies_leave_the_stored_weights_alone() -> None:
    model, other = stored_model(), stored_model()
    other.to("cpu", torch.bfloat16).to("cpu", torch.float32)
    copied = copy.deepcopy(model.unet)
    weights = dict(model.unet.named_parameters())
    for unet in (other.unet, copied):
        for name, weight in unet.named_parameters():
            if weight.dtype == torch.uint8:
                assert torch.equal(weight, weights[name])
    assert torch.equal(step(model)[0], step(stored_model())[0])


def test_a_device_without_such_numbers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from tincture.errors import UsageError

    class Refusing(Tensor):
        def to(self, *args: object, **kwargs: object) -> Tensor:  # type: ignore[override]
            raise TypeError("Trying to convert Float8_e4m3fn to the MPS backend")

    with pytest.raises(UsageError, match=r"cannot be stored as float8 on the device cpu.*`weight_storage`"):
        pack(torch.ones(2, 2).as_subclass(Refusing))
