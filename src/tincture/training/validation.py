"""How well an adapter does on pictures that are not trained, beside how well it does on those that are.

The loss is the mean squared error, on a grid: each picture with noise and a timestep for each of several bands of all
timesteps, which depend on the picture's content alone. So the curve is smooth, and comparable between runs whatever
their seeds, and whatever error, weights, noise and timesteps they train with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tincture import randomness
from tincture.events import Event, RunStarted, Stage, StepEnd, Validated
from tincture.processes.ranks import ALONE, Processes
from tincture.training.loss import PLAIN
from tincture.training.metrics import mean_and_error
from tincture.training.trainer import Trainer

SEED = 0
"""Of the noise and the timesteps of every grid, whatever the run's own seed is."""
PART = "validation"
"""What a run's states call it."""


@dataclass(frozen=True)
class Example:
    """A picture of the grid, encoded.

    Attributes:
        latents: (4, h, w) float32, on the model's device.
        prompt: what it is trained with.
        content: the sha256 of its file, 64 hex digits.
        weights: (1, h, w), how much each cell counts; None: all alike.
        time_ids: (1, n), see ``DiffusionModel.time_ids``.
    """

    latents: Tensor
    prompt: str
    content: str
    weights: Tensor | None = None
    time_ids: Tensor | None = None


@dataclass(frozen=True)
class Cell:
    """One prediction: an example in a band."""

    example: int
    band: int


class Grid:
    """Some examples at some bands of timesteps.

    Args:
        bands: equally likely parts of the timesteps; each example has one timestep of each.
        at_once: predictions that are made together.
    """

    def __init__(self, examples: Sequence[Example], bands: int, at_once: int) -> None:
        self.examples, self.bands, self.at_once = examples, bands, at_once

    @property
    def predictions(self) -> int:
        """How many a measurement takes."""
        return len(self.examples) * self.bands

    @torch.no_grad()
    def losses(
        self,
        trainer: Trainer,
        on_progress: Callable[[int], None] = lambda done: None,
        processes: Processes = ALONE,
    ) -> list[list[float]]:
        """For each example the loss in each band, with what acts on the trainer's model now.

        Args:
            on_progress: is told how many predictions are made.
            processes: share the predictions out; all get all losses.
        """
        found = [[math.nan] * self.bands for _ in self.examples]
        errors: list[Tensor] = []
        # Each process makes whole batches, so that the losses are the same bit for bit, however many there are.
        own = processes.share(list(self._batches()))
        for batch in own:
            errors.append(self._errors(batch, trainer))
            on_progress(min(sum(map(len, errors)) * processes.world_size, self.predictions))
        values = torch.cat(errors).tolist() if errors else []
        cells = [cell for batch in own for cell in batch]
        for measured in processes.gathered(list(zip(cells, values, strict=True))):
            for cell, value in measured:
                found[cell.example][cell.band] = value
        return found

    def loss(
        self,
        trainer: Trainer,
        on_progress: Callable[[int], None] = lambda done: None,
        processes: Processes = ALONE,
    ) -> tuple[float, float]:
        """The mean over all, with its standard error over the pictures; NaN where one of them is not finite."""
        means = [math.fsum(row) / len(row) for row in self.losses(trainer, on_progress, processes)]
        return mean_and_error(means) if all(map(math.isfinite, means)) else (math.nan, math.nan)

    def _batches(self) -> Iterator[list[Cell]]:
        """All cells; those of a batch are of one size."""
        by_shape: dict[tuple[int, ...], list[Cell]] = {}
        for index, example in enumerate(self.examples):
            cells = by_shape.setdefault(tuple(example.latents.shape), [])
            cells += [Cell(index, band) for band in range(self.bands)]
        for cells in by_shape.values():
            yield from (cells[at : at + self.at_once] for at in range(0, len(cells), self.at_once))

    def _errors(self, cells: Sequence[Cell], trainer: Trainer) -> Tensor:
        """(B,) float32 on the device."""
        model, chosen = trainer.model, [self.examples[cell.example] for cell in cells]
        latents = torch.stack([example.latents for example in chosen])
        noise = torch.stack([_noise(example, cell.band) for example, cell in zip(chosen, cells, strict=True)])
        shares = [_share(example, cell.band, self.bands) for example, cell in zip(chosen, cells, strict=True)]
        weights = [example.weights for example in chosen if example.weights is not None]
        time_ids = [example.time_ids for example in chosen if example.time_ids is not None]
        with trainer.autocast():
            prompts = [example.prompt for example in chosen]
            errors = PLAIN.errors(
                # As far as in the last step, so that measurements can be compared.
                trainer.predictor(prompts, torch.cat(time_ids) if time_ids else None, trainer.steps - 1),
                model.noise_process,
                latents,
                noise.to(model.device, non_blocking=True),
                model.noise_process.timesteps_at(shares).to(model.device, non_blocking=True),
                torch.stack(weights) if weights else None,
            )
        return errors.mean(dim=(1, 2, 3))


def _noise(example: Example, band: int) -> Tensor:
    return randomness.normal(example.latents.shape, SEED, "validation noise", int(example.content, 16), band)


def _share(example: Example, band: int, bands: int) -> float:
    """Where in the whole range its timestep of this band lies, from 0 up to 1."""
    within = randomness.generator(SEED, "validation timestep", int(example.content, 16), band).random()
    return (band + float(within)) / bands


def is_due(step: int, every: int, end: int) -> bool:
    """Whether a run that ends at ``end`` is measured at this step, beside its first one."""
    return step % every == 0 or step == end


class Validator:
    """Measures every ``every`` steps, before the first and after the last, and ends a run that has become no better.

    It is a part of the run's states, so that a run that goes on knows what it measured, and the best weights. It must
    come before the watcher that saves those.

    Args:
        trainer: whose adapter is measured, with the weights to publish, and who emits ``Validated``.
        held_out: of pictures that are not trained.
        trained: of pictures that are.
        stage: what that is called while it goes on.
        patience: how many measurements may follow the best one before the run ends; 0: any number.

    Attributes:
        measured: all of this run so far, in the order of their steps.
        best: the measurement with the lowest loss, of equal ones the first; None without a finite one.
        best_weights: by name, copies of the published tensors at the best of them, on the CPU.
    """

    def __init__(
        self, trainer: Trainer, held_out: Grid, trained: Grid, *, every: int, stage: str = PART, patience: int = 0
    ) -> None:
        self.trainer, self.held_out, self.trained, self.stage = trainer, held_out, trained, stage
        self.every, self.patience = every, patience
        self.measured: list[Validated] = []
        self.best: Validated | None = None
        self.best_weights: dict[str, Tensor] = {}
        trainer.add_part(PART, self)

    def on_event(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            # What a kill kept the run from measuring is made up for.
            if not self.measured or (self._due(event) and self.measured[-1].global_step != event.global_step):
                self.measure(event)
            self._end_without_progress()
        elif isinstance(event, StepEnd) and self._due(event):
            self.measure(event)
            self._end_without_progress()

    def measure(self, at: RunStarted | StepEnd) -> None:
        """Measures the adapter as it is, within the trainer's run, and emits what was found."""
        trainer, first = self.trainer, self.held_out.predictions
        progress = Stage(trainer.emit, self.stage, first + self.trained.predictions)
        with trainer.publishing() as published, progress as stage:
            held_out = self.held_out.loss(trainer, stage.advance, trainer.processes)
            trained = self.trained.loss(trainer, lambda done: stage.advance(first + done), trainer.processes)
            self._note(at.global_step, at.steps, *held_out, *trained)
            if self.measured[-1].is_best:
                tensors = published.state_dict()
                self.best_weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
        self.trainer.emit(self.measured[-1])

    def state_dict(self) -> dict[str, Any]:
        """See ``training.trainer.Part``."""
        rows = [
            [each.global_step, each.steps, each.loss, each.error, each.training_loss, each.training_error]
            for each in self.measured
        ]
        return {"measured": rows, "best_weights": self.best_weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over what ``state_dict`` gave."""
        self.measured, self.best, self.best_weights = [], None, dict(state["best_weights"])
        for row in state["measured"]:
            self._note(*row)

    def _due(self, event: RunStarted | StepEnd) -> bool:
        return is_due(event.global_step, self.every, event.steps)

    def _note(
        self, step: int, steps: int, loss: float, error: float, training_loss: float, training_error: float
    ) -> None:
        best_step, best_loss = (self.best.global_step, self.best.loss) if self.best else (None, math.inf)
        if loss < best_loss:
            best_step, best_loss = step, loss
        noted = Validated(step, steps, loss, error, training_loss, training_error, best_step, best_loss)
        self.measured.append(noted)
        if noted.is_best:
            self.best = noted

    def _end_without_progress(self) -> None:
        latest = self.measured[-1]
        steps = [each.global_step for each in self.measured]
        since = len(steps) - 1 - (0 if latest.best_step is None else steps.index(latest.best_step))
        if self.patience and since >= self.patience:
            self.trainer.end(
                f"The loss of the pictures for validation has not become lower in the {since} measurements since step "
                f"{latest.best_step or steps[0]}, the best one, where it was {latest.best_loss:.6f}; so the run ended "
                f"at step {latest.global_step}."
            )
