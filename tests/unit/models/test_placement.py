from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from tests.own_memory import OwnMemory
from tests.support import tiny_model, tiny_sdxl, weights
from tincture.adapters.hypernetwork import create_hypernetwork
from tincture.models.conditions import Conditions
from tincture.models.placement import DENOISER, TEXT_ENCODERS, VAE
from tincture.models.sampling import generate
from tincture.models.stable_diffusion import StableDiffusion
from tincture.settings.drawing import Drawing


def offloaded(model: StableDiffusion) -> tuple[StableDiffusion, OwnMemory]:
    model.placement = OwnMemory(model.placement.parts)
    model.placement.offload("cpu")
    return model, model.placement


def predict(model: StableDiffusion) -> Tensor:
    return model.predict_noise(torch.ones(1, 4, 8, 8), torch.tensor([5]), model.encode_prompts(["red moon"]))


# --- who is there -----------------------------------------------------------------------------------------------------


def test_a_part_comes_when_it_acts_and_leaves_unless_it_is_kept() -> None:
    model, placement = offloaded(tiny_model())
    model.encode_pictures(torch.zeros(1, 3, 16, 16))
    assert placement.told == ["+vae", "-vae"]
    predict(model)
    assert placement.told[2:] == ["+text_encoders", "-text_encoders", "+unet"]
    placement.keep = frozenset({DENOISER, TEXT_ENCODERS})
    predict(model)
    predict(model)
    assert placement.told[5:] == ["+text_encoders"]


def test_pictures_have_the_device_to_themselves() -> None:
    model, placement = offloaded(tiny_model())
    placement.keep = frozenset({DENOISER, TEXT_ENCODERS})
    predict(model)
    placement.told.clear()
    model.decode_latents(torch.zeros(1, 4, 2, 2))
    assert sorted(placement.told[:2]) == ["-text_encoders", "-unet"]
    assert placement.told[2:] == ["+vae", "-vae"]


def test_many_pictures_in_a_row_move_the_encoder_once() -> None:
    model, placement = offloaded(tiny_model())
    with placement.acting(VAE, alone=True):
        for _ in range(3):
            model.encode_pictures(torch.zeros(1, 3, 16, 16))
        assert placement.told == ["+vae"]
    assert placement.told == ["+vae", "-vae"]


def test_parts_leave_after_an_exception() -> None:
    model, placement = offloaded(tiny_model())
    with pytest.raises(RuntimeError):
        model.encode_pictures(torch.zeros(1, 5, 16, 16))
    assert placement.told == ["+vae", "-vae"]


def test_an_inpainting_model_encodes_its_blank_picture_before_the_unet_comes() -> None:
    model, placement = offloaded(tiny_model(in_channels=9))
    predict(model)
    assert placement.told[2:] == ["+vae", "-vae", "+unet"]


# --- what comes out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [tiny_model, tiny_sdxl])
def test_coming_and_going_changes_no_bit(make: Callable[[], StableDiffusion]) -> None:
    drawing = Drawing(steps=2, width=16, height=16, guidance_scale=3.0)
    plain, (model, placement) = make(), offloaded(make())
    pictures = [generate(one, ["a moon", "red"], drawing, seeds=[1, 2]) for one in (plain, model)]
    assert torch.equal(*pictures) and pictures[0].float().std() > 0
    encoded = [one.encode_pictures(torch.linspace(-1, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)) for one in (plain, model)]
    assert all(torch.equal(own, other) for own, other in zip(*encoded, strict=True))
    assert placement.told


def test_gradients_of_kept_parts_are_the_same() -> None:
    gradients = []
    for model in (tiny_model(), offloaded(tiny_model())[0]):
        network = create_hypernetwork("ink", model.context_widths(), (1, 2, 1), "relu")
        with network.attach(model):
            predict(model).square().mean().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    assert all(torch.equal(own, other) for own, other in zip(*gradients, strict=True))  # type: ignore[arg-type]


# --- devices ----------------------------------------------------------------------------------------------------------


def test_parts_lie_on_the_device_only_while_they_act() -> None:
    """torch's device without memory shows where tensors lie, though nothing can be computed there."""
    model = tiny_model()
    before = weights(model)
    model.placement.offload("meta")
    assert model.device.type == "meta" and model.dtype == torch.float32
    with model.placement.acting(VAE, alone=True):
        assert devices(model) == {"vae": "meta", "text_encoder": "cpu", "unet": "cpu"}
    with model.placement.acting(DENOISER), model.placement.acting(TEXT_ENCODERS):
        assert devices(model) == {"vae": "cpu", "text_encoder": "meta", "unet": "meta"}
    assert devices(model) == {"vae": "cpu", "text_encoder": "cpu", "unet": "meta"}
    model.placement.forget()
    assert devices(model) == {"vae": "cpu", "text_encoder": "cpu", "unet": "cpu"}
    after = weights(model)
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_adapters_go_where_the_model_computes() -> None:
    model = tiny_model()
    model.placement.offload("meta")
    network = create_hypernetwork("ink", model.context_widths(), (1, 2, 1))
    with network.attach(model):
        assert {parameter.device.type for parameter in network.parameters()} == {"meta"}


def test_on_a_cpu_nothing_moves() -> None:
    model = tiny_model()
    model.placement.offload("cpu")
    assert not model.placement.offloading
    with watched(model) as moves:
        predict(model)
    assert moves == []


def test_moving_a_model_ends_the_coming_and_going() -> None:
    model = tiny_model()
    model.placement.offload("meta")
    with model.placement.acting(DENOISER):
        pass
    model.to("cpu", torch.bfloat16)
    assert not model.placement.offloading and model.dtype == torch.bfloat16
    assert set(devices(model).values()) == {"cpu"}
    assert isinstance(model.encode_prompts(["moon"]), Conditions)


def devices(model: StableDiffusion) -> dict[str, str]:
    found: dict[str, set[str]] = {}
    parts = {"vae": model.vae, "text_encoder": model.text_encoders[0].module, "unet": model.unet}
    for name, module in parts.items():
        found[name] = {tensor.device.type for tensor in (*module.parameters(), *module.buffers())}
    return {name: next(iter(types)) if len(types) == 1 else "both" for name, types in found.items()}


@contextmanager
def watched(model: StableDiffusion) -> Iterator[list[str]]:
    moves: list[str] = []
    placement, come = model.placement, model.placement._come
    placement._come = lambda name: (moves.append(name), come(name))[1]  # type: ignore[method-assign, func-returns-value]
    try:
        yield moves
    finally:
        placement._come = come  # type: ignore[method-assign]
