from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tincture.run.memory.live import LiveMemory

MIB = 2**20


def test_tensors_count_until_they_are_freed() -> None:
    with LiveMemory() as memory:
        one = torch.zeros(MIB, dtype=torch.uint8)
        two = torch.zeros(2 * MIB, dtype=torch.uint8)
        assert memory.now == 3 * MIB
        del two
        assert memory.now == MIB
        assert one.numel() == MIB
    assert memory.peak == 3 * MIB


def test_views_and_work_in_place_take_nothing() -> None:
    with LiveMemory() as memory:
        one = torch.zeros(4, MIB, dtype=torch.uint8)
        view = one[1:].t()
        view.add_(1)
        assert memory.now == memory.peak == 4 * MIB


def test_what_was_there_before_does_not_count() -> None:
    weight = torch.zeros(MIB)
    with LiveMemory([weight, weight]) as memory:
        transposed = weight.reshape(2, -1).t()
        weight.add_(1)
        assert memory.peak == 0 and transposed.numel()


def test_tensors_take_up_whole_blocks() -> None:
    with LiveMemory(block=512) as memory:
        kept = [torch.zeros(1), torch.zeros(129)]
    assert memory.peak == 512 + 1024 and kept


def test_the_backward_pass_counts_and_lets_go() -> None:
    start = torch.zeros(256, 1024, requires_grad=True)
    with LiveMemory([start]) as memory:
        loss = start.exp().exp().sum()
        assert memory.now == 2 * MIB + 4
        loss.backward()
        del loss
        assert start.grad is not None and memory.now == MIB
    assert 3 * MIB <= memory.peak <= 4 * MIB + 8


def test_tensors_that_hold_nothing_count_as_if_they_did() -> None:
    with FakeTensorMode(), LiveMemory() as memory:
        huge = torch.empty(1000, MIB, dtype=torch.float16)
        assert (huge + 1).shape == huge.shape
    assert memory.peak == 4000 * MIB


def test_numbers_asked_of_nothing_are_usable() -> None:
    with FakeTensorMode(), LiveMemory():
        rate, count = torch.tensor([0.9]) * 1, torch.tensor([3]) * 1
        assert 1 - rate.item() > 0
        assert 1 / count.item() == 1
    with LiveMemory():
        assert torch.tensor([3]).add(1).item() == 4
