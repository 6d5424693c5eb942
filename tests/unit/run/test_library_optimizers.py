"""Optimizers beyond AdamW in runs: exact resume, sidecars, published averages, the rate in effect."""

from __future__ import annotations

import csv
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runs import RANDOM, Bench, Recorder, equal, last_state, trained
from tincture import recipe
from tincture.adapters.hypernetwork import Hypernetwork
from tincture.errors import UsageError
from tincture.events import StepsDone
from tincture.formats.files import atomic_torch_save, safe_torch_load
from tincture.formats.hypernetwork_optimizer import write_hypernetwork_optimizer
from tincture.settings.train import TrainSettings

CHOICES: dict[str, dict[str, Any]] = {
    "Prodigy": {"optimizer": "Prodigy", "optimizer_args": "d_coef=2 bias_correction=true", "learning_rate": "1"},
    "ScheduleFreeAdamW": {"optimizer": "schedulefreeadamw", "learning_rate": "0 -> 0.01:2, 0.01"},
    "Lion": {"optimizer": "lion", "optimizer_args": "betas=(0.9, 0.99)", "learning_rate": "1e-3"},
    "CAME": {"optimizer": "CAME"},
    "Adafactor": {"optimizer": "adafactor"},
    "SGD momentum": {"optimizer": "SGD", "optimizer_args": "momentum=0.9 nesterov=true"},
}
NAMES = {"SGD momentum": "SGD"}


@pytest.mark.parametrize(
    ("choice", "kind"),
    [
        *[(choice, "embedding") for choice in ("Prodigy", "ScheduleFreeAdamW", "Adafactor", "SGD momentum")],
        *[(choice, "hypernetwork") for choice in ("ScheduleFreeAdamW", "Lion", "CAME")],
    ],
)
def test_a_run_that_stops_goes_on_to_the_last_bit(new_bench: Callable[[str], Bench], choice: str, kind: str) -> None:
    """Previews and copies, for which averages are looked at, do not disturb it either."""
    looked = {"preview_every": 1, "preview_steps": 1, "preview_prompts": ["a cat"], "save_every": 1}
    settings = {**RANDOM, **CHOICES[choice], "steps": 4}
    at_once = new_bench("one").train(kind, **settings)
    bench = new_bench("two")
    stopped = bench.train(kind, stop_after=2, **settings, **looked)
    assert stopped.interrupted
    resumed = bench.resume(stopped.run_dir)
    assert equal(trained(resumed.adapter_path), trained(at_once.adapter_path))
    before, after = last_state(at_once.run_dir), last_state(resumed.run_dir)
    assert equal(before["optimizer"], after["optimizer"]) and equal(before["adapter"], after["adapter"])


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return math.sqrt(sum(float((one[name] - other[name]).square().sum()) for name in one))


@pytest.mark.parametrize("choice", ["Prodigy", "ScheduleFreeAdamW", "Adafactor", "SGD momentum"])
def test_a_second_run_begins_as_the_first_ended(new_bench: Callable[[str], Bench], choice: str) -> None:
    """The optimizer, its arguments and what it learned come from the sidecar; no name is given again."""
    settings = {**CHOICES[choice], "save_optimizer_state": True}
    at_once = trained(new_bench("one").train("hypernetwork", steps=4, **settings).adapter_path)
    bench = new_bench("two")
    start = trained(bench.path("hypernetwork"))
    bench.train("hypernetwork", steps=2, **settings)
    sidecar = safe_torch_load(f"{bench.path('hypernetwork')}.optim")
    assert sidecar["optimizer_name"] == NAMES.get(choice, choice)
    rate = {"learning_rate": settings.get("learning_rate", "1e-2")}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = recipe.plan(bench.settings("hypernetwork", steps=4, **rate), bench.workspace, timing="none")
        again = trained(bench.train("hypernetwork", steps=4, **rate).adapter_path)
    assert plan["settings"]["optimizer"] == NAMES.get(choice, choice)
    if choice == "ScheduleFreeAdamW":  # from averages and back costs the last bits
        assert distance(again, at_once) < 0.01 * distance(at_once, start)
    else:
        assert equal(again, at_once)


def test_a_sidecar_of_plain_gradient_descent_is_taken(bench: Bench) -> None:
    """It holds no state of any weight."""
    bench.train("hypernetwork", steps=2, optimizer="SGD", save_optimizer_state=True)
    assert safe_torch_load(f"{bench.path('hypernetwork')}.optim")["optimizer_state_dict"]["state"] == {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = bench.train("hypernetwork", steps=3)
    assert recipe.find_adapter(bench.settings("hypernetwork"), bench.workspace) == run.adapter_path
    assert safe_torch_load(next(run.run_dir.glob("state/*.pt")))["optimizer"]["param_groups"][0].keys() >= {"nesterov"}


def test_an_optimizer_that_is_not_known_is_adamw_with_a_warning(bench: Bench) -> None:
    path = bench.path("hypernetwork")
    write_hypernetwork_optimizer(path, "Sorcerer", {"state": {}, "param_groups": [{"lr": 1.0, "params": []}]})
    with pytest.warns(UserWarning, match=r"names the optimizer 'Sorcerer', which is not known: AdamW is used"):
        plan = recipe.plan(bench.settings("hypernetwork"), bench.workspace, timing="none")
    assert plan["settings"]["optimizer"] == "AdamW"


def test_a_named_optimizer_wins_over_the_sidecars(bench: Bench) -> None:
    bench.train("hypernetwork", steps=2, optimizer="Lion", save_optimizer_state=True)
    with pytest.warns(UserWarning, match="another optimizer"):
        run = bench.train("hypernetwork", steps=3, optimizer="AdamW", save_optimizer_state=True)
    assert safe_torch_load(f"{run.adapter_path}.optim")["optimizer_name"] == "AdamW"


def test_states_that_do_not_fit_are_left_alone(bench: Bench) -> None:
    bench.train("hypernetwork", steps=2, optimizer="CAME", save_optimizer_state=True)
    sidecar = Path(f"{bench.path('hypernetwork')}.optim")
    content = safe_torch_load(sidecar)
    first = content["optimizer_state_dict"]["state"][0]
    name = next(name for name, value in first.items() if isinstance(value, torch.Tensor) and value.ndim)
    first[name] = torch.zeros(3, 3, 3)
    atomic_torch_save(content, sidecar)
    with pytest.warns(UserWarning, match="another optimizer"):
        bench.train("hypernetwork", steps=3)


@pytest.mark.parametrize("kind", ["embedding", "hypernetwork"])
def test_files_hold_the_averages_and_states_what_is_trained(bench: Bench, kind: str) -> None:
    """x = y + (1 - 1/beta) (z - y), by Defazio et al. 2024: y is where gradients are taken, z the fast iterate."""
    run = bench.train(kind, steps=5, optimizer="ScheduleFreeAdamW", learning_rate="0.05")
    state = last_state(run.run_dir)
    if kind == "hypernetwork":
        order = [name for name, _ in Hypernetwork.load(run.adapter_path)._network.named_parameters()]
    else:
        order = list(state["adapter"])
    published = trained(run.adapter_path)
    beta = state["optimizer"]["param_groups"][0]["betas"][0]
    for number, name in enumerate(order):
        y, z = state["adapter"][name].double(), state["optimizer"]["state"][number]["z"].double()
        torch.testing.assert_close(published[name].double(), y + (1 - 1 / beta) * (z - y), rtol=1e-5, atol=1e-6)
        assert not torch.equal(published[name], state["adapter"][name]) or torch.equal(y, z)
    assert any(not torch.equal(published[name], state["adapter"][name]) for name in order)


def test_averages_of_averages_are_refused(bench: Bench) -> None:
    with pytest.raises(UsageError, match="ScheduleFreeAdamW averages the weights itself"):
        bench.settings("embedding", optimizer="ScheduleFreeAdamW", ema="0.9")
    bench.train("hypernetwork", steps=2, optimizer="ScheduleFreeAdamW", save_optimizer_state=True)
    with pytest.raises(UsageError, match="averages the weights itself"):
        bench.train("hypernetwork", steps=3, ema="0.9")


def rows(run_dir: Path) -> list[dict[str, str]]:
    (path,) = run_dir.glob("*_loss.csv")
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_rate_in_effect_is_logged_beside_the_scheduled_one(bench: Bench) -> None:
    recorder = Recorder()
    run = bench.train(
        "embedding",
        steps=6,
        callbacks=[recorder],
        log_every=1,
        **{**CHOICES["Prodigy"], "optimizer_args": "d0=1e-4"},
    )
    found = rows(run.run_dir)
    assert list(found[0]) == ["step", "epoch", "epoch_step", "loss", "learn_rate", "effective_rate"]
    assert [float(row["learn_rate"]) for row in found] == [1.0] * 6
    effective = [event.effective_rate for event in recorder.of(StepsDone)]
    assert [float(row["effective_rate"]) for row in found] == pytest.approx(effective, rel=1e-4)
    assert effective[0] == 1e-4  # d begins so
    assert all(rate >= 1e-4 for rate in effective)


def test_a_log_that_was_begun_without_keeps_its_columns(bench: Bench) -> None:
    stopped = bench.train("embedding", steps=6, stop_after=3, **CHOICES["Prodigy"])
    (path,) = stopped.run_dir.glob("*_loss.csv")
    path.write_text("".join(line.rsplit(",", 1)[0] + "\n" for line in path.read_text().splitlines()))
    bench.resume(stopped.run_dir)
    found = rows(stopped.run_dir)
    assert list(found[0]) == ["step", "epoch", "epoch_step", "loss", "learn_rate"] and len(found) == 6


def test_other_optimizers_have_the_columns_of_the_webui(bench: Bench) -> None:
    run = bench.train("embedding", steps=2, optimizer="Lion", learning_rate="1e-3")
    assert list(rows(run.run_dir)[0]) == ["step", "epoch", "epoch_step", "loss", "learn_rate"]


@pytest.mark.parametrize(
    ("optimizer", "embedding", "hypernetwork"),
    [("", "0.005", "1e-5"), ("Prodigy", "1", "1"), ("lion", "0.001", "2e-06"), ("SGD", "0.5", "0.001")],
)
def test_each_optimizer_has_a_rate_where_none_is_given(
    bench: Bench, optimizer: str, embedding: str, hypernetwork: str
) -> None:
    for kind, rate in (("embedding", embedding), ("hypernetwork", hypernetwork)):
        settings = bench.settings(kind, optimizer=optimizer, learning_rate="")
        assert settings.resolved().learning_rate == rate
        assert settings.last_step == settings.steps


@pytest.mark.parametrize("name", ["Prodigy", "ScheduleFreeAdamW", "Lion", "SGD"])
def test_gradients_are_scaled_in_half_precision(bench: Bench, name: str) -> None:
    run = bench.train("hypernetwork", steps=2, optimizer=name, precision="fp16", learning_rate="1e-3")
    assert run.global_step == 2
    assert all(torch.isfinite(tensor).all() for tensor in trained(run.adapter_path).values())


def test_rates_of_their_own_are_refused_where_an_optimizer_has_one_for_all(bench: Bench) -> None:
    def settings(rate: str) -> TrainSettings:
        companions = [f"hypernetwork:ink:{rate}"]
        return bench.settings("embedding", optimizer="Prodigy", learning_rate="1", companions=companions)

    with pytest.raises(UsageError, match="'Prodigy', which takes one learning rate for all that is trained together"):
        settings("0.5")
    recipe.plan(settings("1"), bench.workspace, timing="none")


def test_a_card_and_the_best_file_hold_the_averages_too(new_bench: Callable[[str], Bench]) -> None:
    bench = new_bench("cards")
    run = bench.train(
        "embedding",
        steps=4,
        optimizer="ScheduleFreeAdamW",
        learning_rate="0.05",
        validation_share=0.4,
        validation_every=4,
        validation_bands=2,
    )
    assert run.best_path is not None
    best = trained(run.best_path)
    state = last_state(run.run_dir)["adapter"]
    if not equal(best, trained(run.adapter_path)):  # the untrained one was better
        assert not equal(best, state)
    assert not equal(trained(run.adapter_path), state)
