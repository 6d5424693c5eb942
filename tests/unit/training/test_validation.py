"""The grid of a validation for models of other anatomies, and what a run that goes back forgets."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from tests.support import tiny_model, tiny_sdxl
from tests.toy_family import toy_model
from tincture import randomness
from tincture.events import RolledBack, Validated
from tincture.training.conditioning import Conditioning
from tincture.training.metrics import ValidationLog
from tincture.training.trainer import Trainer
from tincture.training.validation import Example, Grid, is_due


def trainer_of(model: Any) -> Trainer:
    conditioning = Conditioning(model, trains_text=False)
    parts = {"model": model, "conditioning": conditioning, "autocast": contextlib.nullcontext, "guidance": None}
    trainer = cast(Trainer, SimpleNamespace(**parts, steps=1))
    trainer.predictor = functools.partial(Trainer.predictor, trainer)  # type: ignore[method-assign]
    return trainer


def example(number: int, channels: int, side: int, time_ids: Tensor | None = None) -> Example:
    latents = randomness.normal((channels, side, side), 1, "latents", number)
    weights = torch.rand(1, side, side, generator=torch.Generator().manual_seed(number)) + 0.5
    return Example(latents, "a red moon" if number % 2 else "star", f"{number + 10:064x}", weights, time_ids)


@pytest.mark.parametrize("name", ["sd1", "v prediction", "sdxl", "flow"])
@pytest.mark.parametrize("at_once", [1, 3, 64])
def test_each_cell_is_the_loss_of_its_own(name: str, at_once: int) -> None:
    """Whatever shares its batch, for every noise process, with weights and sizes; pictures of two sizes."""
    made: dict[str, Any] = {
        "sd1": tiny_model,
        "v prediction": lambda: tiny_model(prediction_type="v_prediction"),
        "sdxl": tiny_sdxl,
        "flow": toy_model,
    }
    model = made[name]()
    ids = [torch.arange(6.0)[None] * (number + 1) if name == "sdxl" else None for number in range(3)]
    examples = [example(number, model.latent_channels, (4, 8, 4)[number], ids[number]) for number in range(3)]
    found = Grid(examples, 3, at_once).losses(trainer_of(model))
    process = model.noise_process
    for row, one in zip(found, examples, strict=True):
        for band, value in enumerate(row):
            key = int(one.content, 16)
            noise = randomness.normal(one.latents.shape, 0, "validation noise", key, band)[None]
            share = (band + randomness.generator(0, "validation timestep", key, band).random()) / 3
            at, latents = process.timesteps_at([share]), one.latents[None]
            with torch.no_grad():
                conditions = model.encode_prompts([one.prompt])
                noisy = process.add_noise(latents, noise, at)
                prediction = model.predict_noise(noisy, at, conditions, one.time_ids)
            error = (prediction - process.target(latents, noise, at)) ** 2 * one.weights
            of_timestep = process.loss_weights(at)
            expected = error.mean() * (1 if of_timestep is None else of_timestep[0])
            assert value == pytest.approx(float(expected), rel=2e-4)


@pytest.mark.parametrize("make", [tiny_model, toy_model])
def test_even_shares_stand_for_what_is_drawn(make: Any) -> None:
    process = make().noise_process
    even = process.timesteps_at([(number + 0.5) / 4000 for number in range(4000)]).double()
    drawn = process.draw_timesteps(3, 0, range(4000)).double()
    for quantile in (0.1, 0.25, 0.5, 0.75, 0.9):
        spread = float(drawn.std())
        assert float(even.quantile(quantile)) == pytest.approx(float(drawn.quantile(quantile)), abs=0.06 * spread)
    assert torch.equal(even, even.sort().values)


def test_a_loss_that_is_not_finite_is_no_mean() -> None:
    model = tiny_model()
    sound = example(0, 4, 4)
    broken = dataclasses.replace(sound, latents=torch.full((4, 4, 4), torch.nan))
    loss, error = Grid([sound, broken], 2, 8).loss(trainer_of(model))
    assert loss != loss and error != error


def test_steps_that_are_due() -> None:
    assert [step for step in range(8) if is_due(step, 3, 7)] == [0, 3, 6, 7]


def test_the_log_drops_what_a_run_leaves_when_it_goes_back(tmp_path: Path) -> None:
    path = tmp_path / "validation_loss.csv"
    path.write_text("torn,nonsense\n\0\xff", encoding="latin-1")
    measured = [Validated(step, 9, 0.5 - step / 20, 0.01, 0.4, 0.02, step, 0.5 - step / 20) for step in (0, 3, 6)]
    log = ValidationLog(path, measured[:2])
    log.on_event(measured[2])
    assert [line.split(",")[0] for line in path.read_text().splitlines()] == ["step", "0", "3", "6"]
    log.on_event(RolledBack(4, 7, "it diverged", 0.5, 1))
    assert path.read_text().splitlines()[1:] == [
        "0,0.5000000,0.0100000,0.4000000,0.0200000,0",
        "3,0.3500000,0.0100000,0.4000000,0.0200000,3",
    ]
