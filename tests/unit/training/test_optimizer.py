from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.runs import equal
from tincture.errors import UsageError
from tincture.formats.files import atomic_torch_save, safe_torch_load
from tincture.training.optimizer import create_optimizer, optimizer_names


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.arange(6.0).view(2, 3)), nn.Parameter(torch.ones(1, 2))]


def test_upper_and_lower_case_are_alike() -> None:
    assert type(create_optimizer("adamw", parameters(), 0.1)) is torch.optim.AdamW
    assert type(create_optimizer("SGD", parameters(), 0.1)) is torch.optim.SGD


def test_weight_decay_is_the_optimizers_own_unless_given() -> None:
    assert create_optimizer("AdamW", parameters(), 0.1).param_groups[0]["weight_decay"] == 0.01
    assert create_optimizer("AdamW", parameters(), 0.1, 0.0).param_groups[0]["weight_decay"] == 0
    assert create_optimizer("AdamW", parameters(), 0.1, 0.5).param_groups[0]["weight_decay"] == 0.5


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"Optimizer 'AdmW' cannot be used\. Did you mean AdamW\?.*Choose one of"):
        create_optimizer("AdmW", parameters(), 0.1)


@pytest.mark.parametrize("name", ["LBFGS", "lbfgs", "SparseAdam", "Optimizer", "lr_scheduler"])
def test_what_needs_more_than_gradients_is_refused(name: str) -> None:
    assert name not in optimizer_names()
    with pytest.raises(UsageError, match=f"Optimizer '{name}' cannot be used"):
        create_optimizer(name, parameters(), 0.1)


def test_weight_decay_for_an_optimizer_without_is_refused() -> None:
    without = "Rprop"
    create_optimizer(without, parameters(), 0.1, 0.0)
    with pytest.raises(UsageError, match=r"Rprop takes no weight decay, but 0\.5 was given"):
        create_optimizer(without, parameters(), 0.1, 0.5)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no optimizer for matrices only")
def test_an_optimizer_for_matrices_only_is_told_in_a_sentence() -> None:
    with pytest.raises(UsageError, match="Optimizer Muon cannot be used here"):
        create_optimizer("Muon", [nn.Parameter(torch.ones(3))], 0.1)


@pytest.mark.parametrize("name", optimizer_names())
def test_every_optimizer_goes_on_exactly_from_its_saved_state(name: str, tmp_path: Path) -> None:
    def step(optimizer: torch.optim.Optimizer, trained: list[nn.Parameter]) -> None:
        for parameter in trained:
            parameter.grad = parameter.detach().cos()
        optimizer.step()

    trained = parameters()
    optimizer = create_optimizer(name, trained, 0.1)
    step(optimizer, trained)
    atomic_torch_save({"optimizer": optimizer.state_dict(), "trained": trained}, tmp_path / "state.pt")
    saved = safe_torch_load(tmp_path / "state.pt")
    again = [nn.Parameter(parameter.detach().clone()) for parameter in saved["trained"]]
    other = create_optimizer(name, again, 0.7)
    other.load_state_dict(saved["optimizer"])
    for _ in range(2):
        step(optimizer, trained)
        step(other, again)
    assert equal([p.detach() for p in trained], [p.detach() for p in again])
    assert not torch.equal(trained[0], parameters()[0])
