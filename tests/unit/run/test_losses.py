"""Losses, noise and timesteps by the settings of a run: wired, exact after a stop, told in the plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.runs import Bench, csv_text, equal, last_state, trained
from tincture import recipe
from tincture.errors import UsageError
from tincture.run.losses import loss_words, training_loss
from tincture.settings.schedule import Schedule
from tincture.training.loss import TrainingLoss
from tincture.training.noise import NoiseDraw
from tincture.training.timesteps import OWN, TimestepDraw
from tincture.training.weighting import Debiased, MinSNR

SMALL: dict[str, Any] = {"steps": 4, "batch_size": 2, "log_every": 1}
# settings, what they make of the loss, and the words of the plan
SWITCHES: dict[str, tuple[dict[str, Any], TrainingLoss, str]] = {
    "l1": ({"loss": "l1"}, TrainingLoss("l1", 0.1), "l1"),
    "huber": ({"loss": "huber"}, TrainingLoss("huber", 0.1), "huber with the scale 0.1"),
    "smooth_l1": (
        {"loss": "smooth_l1", "loss_scale": 0.5},
        TrainingLoss("smooth_l1", 0.5),
        "smooth_l1 with the scale 0.5",
    ),
    "min_snr": (
        {"timestep_weighting": "min_snr"},
        TrainingLoss(scale=0.1, weighting=MinSNR(Schedule.parse("5", 4))),
        "mse; timesteps weighed by min-SNR with gamma 5",
    ),
    "gamma": (
        {"timestep_weighting": "min_snr", "min_snr_gamma": "3:2, 0.1"},
        TrainingLoss(scale=0.1, weighting=MinSNR(Schedule.parse("3:2, 0.1", 4))),
        "mse; timesteps weighed by min-SNR with gamma 3:2, 0.1",
    ),
    "debiased": (
        {"timestep_weighting": "debiased"},
        TrainingLoss(scale=0.1, weighting=Debiased()),
        "mse; timesteps weighed by debiased estimation",
    ),
    "offset": ({"offset_noise": 0.1}, TrainingLoss(scale=0.1, noise=NoiseDraw(0.1)), "mse; offset noise 0.1"),
    "perturbation": (
        {"input_perturbation": 0.1},
        TrainingLoss(scale=0.1, noise=NoiseDraw(0, 0.1)),
        "mse; input perturbation 0.1",
    ),
    "range": (
        {"timestep_min": 0.2, "timestep_max": 0.6},
        TrainingLoss(scale=0.1, timesteps=TimestepDraw("uniform", 0.2, 0.6, steps=4)),
        "mse; timesteps from 0.2 to 0.6 of all",
    ),
    "early": (
        {"timestep_distribution": "early", "timestep_bias": 0.5},
        TrainingLoss(scale=0.1, timesteps=TimestepDraw("early", bias=0.5, steps=4)),
        "mse; timesteps early with the bias 0.5",
    ),
    "late": (
        {"timestep_distribution": "late"},
        TrainingLoss(scale=0.1, timesteps=TimestepDraw("late", steps=4)),
        "mse; timesteps late with the bias 1",
    ),
    "late_curriculum": (
        {"timestep_distribution": "late_curriculum"},
        TrainingLoss(scale=0.1, timesteps=TimestepDraw("late_curriculum", steps=4)),
        "mse; timesteps late curriculum",
    ),
    "growing_range": (
        {"timestep_distribution": "growing_range"},
        TrainingLoss(scale=0.1, timesteps=TimestepDraw("growing_range", steps=4)),
        "mse; timesteps growing range",
    ),
    "logit_normal": (
        {"timestep_distribution": "logit_normal", "logit_mean": 1, "logit_std": 0.5},
        TrainingLoss(scale=0.1, timesteps=TimestepDraw("logit_normal", mean=1, std=0.5, steps=4)),
        "mse; timesteps logit normal with mean 1 and spread 0.5",
    ),
}


@pytest.mark.parametrize("name", SWITCHES)
def test_settings_make_the_loss_and_its_words(bench: Bench, name: str) -> None:
    changes, loss, words = SWITCHES[name]
    settings = bench.settings("embedding", **SMALL, **changes)
    own = loss if loss.timesteps != OWN else dataclasses.replace(loss, timesteps=TimestepDraw(steps=4))
    assert training_loss(settings) == own
    assert loss_words(settings) == words


def test_without_a_choice_the_loss_is_the_squared_error_at_the_models_own_timesteps(bench: Bench) -> None:
    settings = bench.settings("hypernetwork", **SMALL)
    assert training_loss(settings) == TrainingLoss(scale=0.1, timesteps=TimestepDraw(steps=4))
    assert recipe.plan(settings, bench.workspace, timing="none")["loss"] == "mse"


@pytest.mark.parametrize("kind", ["embedding", "hypernetwork"])
@pytest.mark.parametrize("names", [("huber", "gamma", "offset", "logit_normal"), ("perturbation", "late_curriculum")])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    new_bench: Callable[[str], Bench], kind: str, names: tuple[str, ...]
) -> None:
    changes = {name: value for each in names for name, value in SWITCHES[each][0].items()}
    whole = new_bench("whole").train(kind, **SMALL, **changes)
    stopped = new_bench("stopped")
    result = stopped.resume(stopped.train(kind, stop_after=2, **SMALL, **changes).run_dir)
    assert equal(trained(result.adapter_path), trained(whole.adapter_path))
    assert csv_text(result.run_dir) == csv_text(whole.run_dir)
    assert equal(last_state(result.run_dir), last_state(whole.run_dir))


def test_what_is_chosen_is_what_is_trained(new_bench: Callable[[str], Bench]) -> None:
    """One of each part of the loss: no two of the results are the same."""
    results = []
    for name in ("", "huber", "debiased", "offset", "perturbation", "late"):
        changes = SWITCHES[name][0] if name else {}
        result = new_bench(f"of-{name}").train("embedding", **{**SMALL, "steps": 2, "log_every": 2, **changes})
        results.append(torch.cat([one.flatten() for one in trained(result.adapter_path).values()]))
    apart = [(one - other).abs().max().item() for i, one in enumerate(results) for other in results[:i]]
    assert min(apart) > 1e-7


def test_validation_measures_the_same_whatever_is_trained(new_bench: Callable[[str], Bench]) -> None:
    """Before the first step the curves of two runs have one value, so that they can be compared."""
    measured = []
    for name in ("huber", "range", "debiased"):
        bench = new_bench(name)
        changes = {**SMALL, **SWITCHES[name][0], "steps": 1, "validation_share": 0.4, "validation_bands": 3}
        result = bench.train("embedding", **changes)
        measured.append((result.run_dir / "validation_loss.csv").read_text().splitlines()[1])
    assert len(set(measured)) == 1


def test_contradictions_are_refused_together(bench: Bench) -> None:
    with pytest.raises(UsageError) as refused:
        bench.settings(
            "embedding",
            loss="l1",
            loss_scale=1,
            timestep_weighting="debiased",
            min_snr_gamma=5,
            timestep_bias=0.5,
            logit_mean=0,
            logit_std=1,
            timestep_min=0.5,
            timestep_max=0.5,
        )
    first, *faults = str(refused.value).splitlines()
    assert first == "6 settings are not allowed:"
    assert [fault.strip() for fault in faults] == [
        "loss_scale is 1.0, but loss is 'l1', which has no scale; leave it out, or choose huber or smooth_l1",
        "min_snr_gamma is '5', but timestep_weighting is 'debiased', which has no gamma; leave it out, or choose "
        "min_snr",
        "timestep_bias is 0.5, but timestep_distribution is 'uniform', which has no bias that could be given; leave it "
        "out, or choose early or late",
        "logit_mean is 0.0, but timestep_distribution is 'uniform', which has no mean; leave it out, or choose "
        "logit_normal",
        "logit_std is 1.0, but timestep_distribution is 'uniform', which has no spread that could be given; leave it "
        "out, or choose logit_normal",
        "timestep_min is 0.5, but must be below timestep_max, 0.5: no timestep is left",
    ]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"timestep_weighting": "min_snr", "min_snr_gamma": "5:x"}, "min_snr_gamma: In the schedule '5:x' segment 1"),
        (
            {"timestep_weighting": "min_snr", "min_snr_gamma": "5:9, 0"},
            "min_snr_gamma is '5:9, 0', but must be above 0",
        ),
        ({"offset_noise": 2}, "offset_noise is 2.0, but must be at least 0 and at most 1"),
        ({"timestep_weighting": "debias"}, "timestep_weighting is 'debias', but must be none, min_snr or debiased"),
    ],
)
def test_what_is_not_allowed_is_refused(bench: Bench, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        bench.settings("hypernetwork", **changes)
