from __future__ import annotations

import inspect
import io
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.runs import equal
from tincture.errors import UsageError
from tincture.formats.files import atomic_torch_save, safe_torch_load
from tincture.settings.optimizers import LIBRARY, ONE_RATE, REFUSED, parse_arguments
from tincture.training.optimizer import (
    ParameterGroup,
    create_optimizer,
    effective_rate,
    optimizer_class,
    optimizer_names,
)
from tincture.training.optimizer_state import sample_states


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


# --- every one of them -----------------------------------------------------------------------------------------------

SHAPES = ((2, 8), (8,), (8, 6))
MATRICES_ONLY = ("Muon",)


def quadratic(shapes: Sequence[tuple[int, ...]] = SHAPES) -> tuple[list[nn.Parameter], list[torch.Tensor]]:
    """Weights of the shapes of embeddings and hypernetworks, and where they shall go."""
    random = torch.Generator().manual_seed(0)
    weights = [nn.Parameter(0.3 * torch.randn(shape, generator=random)) for shape in shapes]
    return weights, [torch.randn(shape, generator=random) for shape in shapes]


def of(name: str) -> tuple[list[nn.Parameter], list[torch.Tensor]]:
    return quadratic(SHAPES[::2] if name in MATRICES_ONLY else SHAPES)


def descend(optimizer: torch.optim.Optimizer, weights: list[nn.Parameter], goals: list[torch.Tensor], at: int) -> float:
    torch.manual_seed(at)  # some draw; the trainer seeds each step
    loss = 0.0
    for weight, goal in zip(weights, goals, strict=True):
        far = weight.detach() - goal
        loss += float(far.square().sum())
        weight.grad = 2 * far
    optimizer.step()
    return loss


@pytest.mark.parametrize("name", optimizer_names())
def test_every_optimizer_lowers_a_loss_in_silence_and_goes_on_exactly(name: str, tmp_path: Path) -> None:
    """At a rate that a quadratic bears, or at that of those who find it themselves; through a file midway."""
    own = name in ONE_RATE or name in ("AdamG", "Adadelta")
    rate = 1.0 if own else min(0.01 * LIBRARY.get(name, 10), 0.1)
    weights, goals = of(name)
    printed = io.StringIO()
    with warnings.catch_warnings(), redirect_stdout(printed), redirect_stderr(printed):
        warnings.simplefilter("error")
        optimizer = create_optimizer(name, weights, rate)
        losses = [descend(optimizer, weights, goals, at) for at in range(45)]
        atomic_torch_save({"optimizer": optimizer.state_dict(), "weights": weights}, tmp_path / "state.pt")
        saved = safe_torch_load(tmp_path / "state.pt")
        again = [nn.Parameter(weight.detach().clone()) for weight in saved["weights"]]
        other = create_optimizer(name, again, 0.3)
        other.load_state_dict(saved["optimizer"])
        for at in range(45, 51):
            losses.append(descend(optimizer, weights, goals, at))
            descend(other, again, goals, at)
    assert printed.getvalue() == ""
    assert equal([weight.detach() for weight in weights], [weight.detach() for weight in again])
    assert equal(optimizer.state_dict(), other.state_dict())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", LIBRARY)
def test_every_optimizer_begins_with_a_rate_of_0_and_with_gradients_of_0(name: str) -> None:
    weights, goals = quadratic()
    optimizer = create_optimizer(name, weights, 0.0)
    before = [weight.detach().clone() for weight in weights]
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    descend(optimizer, weights, goals, 0)
    assert all(torch.isfinite(weight).all() for weight in weights)
    assert equal([weight.detach() for weight in weights], before)


@pytest.mark.parametrize("name", REFUSED)
def test_others_are_refused_with_the_reason(name: str) -> None:
    assert name not in optimizer_names()
    with pytest.raises(UsageError) as error:
        create_optimizer(name.lower(), parameters(), 0.1)
    assert f"Optimizer '{name.lower()}' cannot be used: it {REFUSED[name]}." in str(error.value)


def test_all_of_the_library_are_offered_or_refused() -> None:
    import pytorch_optimizer

    known = {name.lower() for name in (*optimizer_names(), *REFUSED)}
    classes = [name for name, value in vars(pytorch_optimizer).items() if isinstance(value, type)]
    missing = [
        name
        for name in classes
        if issubclass(getattr(pytorch_optimizer, name), torch.optim.Optimizer) and name.lower() not in known
    ]
    assert missing == []
    assert {"Prodigy", "ScheduleFreeAdamW", "Lion", "CAME", "DAdaptAdam", "SOAP"} <= set(optimizer_names())


def test_torchs_own_names_win_and_near_ones_are_told() -> None:
    assert type(create_optimizer("AdaFactor", parameters(), 0.1)) is torch.optim.Adafactor
    assert type(create_optimizer(" PRODIGY ", parameters(), 1.0)).__name__ == "Prodigy"
    assert type(create_optimizer("AdamWScheduleFree", parameters(), 0.1)).__name__ == "ScheduleFreeAdamW"
    with pytest.raises(UsageError, match=r"Did you mean Prodigy\?"):
        create_optimizer("prodgy", parameters(), 0.1)


def test_the_rate_in_effect_is_d_times_the_rate() -> None:
    weights, goals = quadratic()
    optimizer = create_optimizer("Prodigy", weights, 0.5)
    found = []
    for at in range(40):
        rate = effective_rate(optimizer)
        assert rate == optimizer.param_groups[0]["d"] * 0.5
        found.append(rate)
        descend(optimizer, weights, goals, at)
    assert found[0] == 0.5e-6 and found[-1] > 1e-4
    assert effective_rate(create_optimizer("AdamW", weights, 0.5)) is None
    warming = create_optimizer("ScheduleFreeAdamW", weights, 0.5, None, {"warmup_steps": 4})
    assert [effective_rate(warming), descend(warming, weights, goals, 0) * 0 or effective_rate(warming)] == [
        0.125,
        0.25,
    ]


@pytest.mark.parametrize("name", sorted(ONE_RATE))
def test_one_rate_for_all_groups(name: str) -> None:
    from tincture.settings.schedule import Schedule

    one, other = Schedule.parse("1", 10), Schedule.parse("0.5", 10)
    groups = [
        ParameterGroup([weight], learning_rate=rate) for weight, rate in zip(parameters(), (one, other), strict=True)
    ]
    with pytest.raises(UsageError, match=f"{name} takes one learning rate"):
        create_optimizer(name, groups, 1.0)
    create_optimizer(name, [ParameterGroup([weight], learning_rate=one) for weight in parameters()], 1.0)
    create_optimizer("AdamW", groups, 1.0)


# --- arguments -------------------------------------------------------------------------------------------------------


def test_arguments_reach_the_optimizer() -> None:
    made = create_optimizer("prodigy", parameters(), 1.0, None, parse_arguments("betas=(0.9,0.99) d_coef=2"))
    assert (made.param_groups[0]["betas"], made.param_groups[0]["d_coef"]) == ((0.9, 0.99), 2)
    sgd = create_optimizer(
        "SGD", parameters(), 1.0, None, parse_arguments("momentum=.9, nesterov=true weight_decay=0.1")
    )
    assert [sgd.param_groups[0][name] for name in ("momentum", "nesterov", "weight_decay")] == [0.9, True, 0.1]
    groups = [ParameterGroup([weight], weight_decay=0.0) for weight in parameters()]
    kept = create_optimizer("SGD", groups, 1.0, None, {"weight_decay": 0.1})
    assert [group["weight_decay"] for group in kept.param_groups] == [0.1, 0.1]


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("Prodigy", {"d_coeff": 2}, "there is no d_coeff; the nearest is d_coef"),
        ("AdamW", {"xyz": 2}, "there is no xyz; known are betas, eps"),
        ("Prodigy", {"betas": 0.9}, r"betas is 0.9, but must be 2 numbers such as \(0.9, 0.999\)"),
        ("Prodigy", {"betas": (0.9,)}, "must be 2 numbers"),
        ("Prodigy", {"bias_correction": 1}, "bias_correction is 1, but must be true or false"),
        ("Prodigy", {"d_coef": True}, "d_coef is True, but must be a number"),
        ("Prodigy", {"d_coef": None}, "d_coef is None, but must be given"),
        ("ScheduleFreeAdamW", {"warmup_steps": 1.5}, "warmup_steps is 1.5, but must be a whole number"),
        ("AdamW", {"betas": (0.9, 1.5)}, "AdamW cannot be used here: Invalid beta"),
        ("SGD", {"momentum": 1000.0}, "SGD cannot be used here: with these arguments weights are not finite after"),
        ("RMSprop", {"alpha": 2.0}, "RMSprop cannot be used here: "),
        ("ScheduleFreeAdamW", {"r": 1e9}, "ScheduleFreeAdamW cannot be used here: "),
        ("Lion", {"betas": (0.9, 1.5)}, r"Lion cannot be used here: .*1\.0\)\. AdamW always can\."),
        ("Lion", {"rank": 3, "betas": 1}, "there is no rank.*; betas is 1, but"),
    ],
)
def test_wrong_arguments_are_told_in_one_sentence(name: str, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        create_optimizer(name, parameters(), 0.1, None, arguments)


def test_a_default_may_be_given() -> None:
    for name in ("AdamW", "Adafactor", "Rprop", "CAME", "Prodigy"):
        signature = inspect.signature(optimizer_class(name)).parameters
        usual = {key: signature[key].default for key in ("eps", "betas", "etas") if key in signature}
        optimizer = create_optimizer(name, parameters(), 0.1, None, usual)
        assert {key: optimizer.param_groups[0][key] for key in usual} == usual


@pytest.mark.parametrize(("arguments", "advice"), [({"eps": -1}, "Give other arguments"), ({"xyz": 1}, "known are")])
def test_advice_fits_what_was_given(arguments: dict[str, Any], advice: str) -> None:
    with pytest.raises(UsageError, match=advice) as error:
        create_optimizer("AdamW", parameters(), 0.1, None, arguments)
    assert "AdamW always can" not in str(error.value) and "maximize" not in str(error.value)


def test_samples_of_states_are_what_a_step_makes() -> None:
    for name in ("AdamW", "Adafactor", "CAME", "SGD"):
        weights, goals = quadratic()
        optimizer = create_optimizer(name, weights, 0.1)
        expected = sample_states(optimizer)
        assert optimizer.state_dict()["state"] == {}
        descend(optimizer, weights, goals, 0)
        for weight in weights:
            found = optimizer.state.get(weight, {})
            shapes = {key: getattr(value, "shape", None) for key, value in found.items()}
            assert shapes == {
                key: getattr(value, "shape", None) for key, value in expected[tuple(weight.shape)].items()
            }
