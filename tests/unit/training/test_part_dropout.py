from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.unit.training.test_trainer import latents
from tincture.data.batches import BatchPlan, Piece
from tincture.training.part_dropout import dropout_of_part
from tincture.training.step_data import Share, TrainingData

DATA = TrainingData(BatchPlan([(8, 8)] * 6, 6, 0), latents(), lambda index, global_step, slot: "cat")
WHOLE = Piece([3, 1, 5, 0], 10)


def part(first: int, count: int) -> Share:
    return Share(DATA, WHOLE.indices[first : first + count], WHOLE.first_slot + first, 1.0, WHOLE)


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.4), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 4))


@pytest.mark.parametrize("checkpointed", [False, True], ids=["kept", "checkpointed"])
def test_parts_drop_out_what_the_whole_does(checkpointed: bool) -> None:
    """In the forward pass, and in that of gradient checkpointing within the backward one."""
    layers, inputs = network(), torch.randn(4, 3, 4, generator=torch.Generator().manual_seed(0))

    def result(share: Share | None, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        layers.zero_grad()
        given = inputs[rows].clone().requires_grad_()
        torch.manual_seed(7)
        with dropout_of_part(share or Share(DATA, WHOLE.indices, WHOLE.first_slot, 1.0)):
            made = checkpoint(layers, given, use_reentrant=False) if checkpointed else layers(given)
            made.square().sum().backward()
        assert given.grad is not None
        return made.detach(), given.grad

    whole, gradient = result(None, slice(None))
    for first, count in ((0, 1), (1, 2), (3, 1)):
        rows = slice(first, first + count)
        made, own = result(part(first, count), rows)
        assert torch.allclose(made, whole[rows], atol=1e-6)
        assert torch.allclose(own, gradient[rows], atol=1e-6)
        assert torch.equal(made == 0, whole[rows] == 0)


def test_without_it_a_part_would_drop_out_otherwise() -> None:
    ones, layer = torch.ones(4, 64), nn.Dropout(0.5)
    torch.manual_seed(7)
    whole = layer(ones)
    torch.manual_seed(7)
    assert not torch.equal(layer(ones[2:]), whole[2:])
    torch.manual_seed(7)
    with dropout_of_part(part(2, 2)):
        assert torch.equal(layer(ones[2:]), whole[2:])
        assert torch.equal(layer.eval()(ones[2:]), ones[2:])
        assert layer.train()(torch.ones(5, 2)).shape == (5, 2)  # other rows than the micro-batch's: as ever


def test_in_place_too() -> None:
    layer, ones = nn.Dropout(0.5, inplace=True), torch.ones(4, 8)
    torch.manual_seed(3)
    whole = layer(ones.clone())
    torch.manual_seed(3)
    own = ones[1:3].clone()
    with dropout_of_part(part(1, 2)):
        assert layer(own) is own
    assert torch.equal(own, whole[1:3])
