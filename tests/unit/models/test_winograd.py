"""Fewer multiplications, the same convolution: forward and backward, wherever it is used."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tincture.models import winograd
from tincture.models.winograd import convolve, transform_convolutions, weight_sums


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("count", "inner", "outer", "height", "width"), [(1, 3, 5, 2, 2), (2, 4, 4, 6, 10), (3, 1, 2, 8, 4)]
)
def test_it_is_the_convolution_and_its_gradient(count: int, inner: int, outer: int, height: int, width: int) -> None:
    input, weight = numbers(count, inner, height, width).requires_grad_(), numbers(outer, inner, 3, 3, seed=1)
    expected = functional.conv2d(input, weight, padding=1)
    torch.testing.assert_close(convolve(input, weight_sums(weight)), expected)
    back = numbers(*expected.shape, seed=2)
    (gradient,) = torch.autograd.grad(expected, input, back)
    torch.testing.assert_close(convolve(back, weight_sums(weight).transpose(1, 2), reverse=True), gradient)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", 4)
    monkeypatch.setattr(winograd, "LEAST_TILES", 8)


def layer(**options: object) -> nn.Conv2d:
    torch.manual_seed(0)
    given = {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "padding": 1} | options
    made: nn.Conv2d = nn.Conv2d(**given)  # type: ignore[arg-type]
    return made.requires_grad_(False)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_gives_what_it_gave_with_less_error_than_single_precision_has(bias: bool) -> None:
    plain = layer(bias=bias)
    fast = copy.deepcopy(plain)
    transform_convolutions(fast)
    input = numbers(2, 4, 8, 8).float().requires_grad_()
    torch.testing.assert_close(fast(input), plain(input), rtol=1e-5, atol=1e-6)
    assert "sums" in fast._buffers and fast.state_dict().keys() == plain.state_dict().keys()
    back = [torch.autograd.grad(each(input).square().sum(), input)[0] for each in (fast, plain)]
    torch.testing.assert_close(*back, rtol=1e-5, atol=1e-5)


OTHERS = [
    {"kernel_size": 1, "padding": 0},
    {"stride": 2},
    {"padding": 0},
    {"dilation": 2, "padding": 2},
    {"groups": 2},
    {"padding_mode": "circular"},
    {"in_channels": 3},
]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("options", OTHERS, ids=str)
def test_other_layers_stay_as_they_are(options: dict[str, object]) -> None:
    other = layer(**options)
    transform_convolutions(other)
    assert type(other) is nn.Conv2d


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("case", ["few cells", "odd", "half precision", "autocast", "trained"])
def test_an_input_that_it_is_not_for_is_convolved_as_before(case: str) -> None:
    plain = layer()
    fast = copy.deepcopy(plain)
    transform_convolutions(fast)
    height, width = {"few cells": (4, 4), "odd": (9, 9)}.get(case, (8, 8))
    input = numbers(1, 4, height, width).float()
    if case == "half precision":
        plain, fast, input = plain.bfloat16(), fast.bfloat16(), input.bfloat16()
    if case == "trained":
        fast.weight.requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
        assert torch.equal(fast(input), plain(input))
    assert "sums" not in fast._buffers


def test_layers_of_gigabytes_and_small_ones_are_left_out() -> None:
    with torch.device("meta"):
        layers = [nn.Conv2d(wide, wide, 3, padding=1) for wide in (128, 320, 640, 1280)]
    for each in layers:
        transform_convolutions(each)
    assert [type(each) is nn.Conv2d for each in layers] == [True, False, False, True]
