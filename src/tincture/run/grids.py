"""What a run's validation measures: which pictures, with which prompts, how many predictions at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tincture.data import captions
from tincture.data.dataset import PictureDataset
from tincture.run.data import Encoded, turns
from tincture.run.split import Sides
from tincture.settings.train import TrainSettings
from tincture.training.validation import Example, Grid, is_due

_AT_ONCE = 8
"""Predictions that are made together: without gradients they take less memory than one of training."""


def make_grid(
    settings: TrainSettings, name: str, dataset: PictureDataset, encoded: Encoded, lines: Sequence[str]
) -> Grid:
    """What is measured of one side, see ``measured``.

    Args:
        name: what takes the place of [name].
        encoded: all pictures of the data set.
        lines: of the prompt template.
    """
    latents, weights, time_ids = encoded.latents, encoded.weights, encoded.time_ids
    chosen = measured(settings, dataset)
    examples = [
        Example(
            latents.means[index],
            prompt,
            dataset.content(dataset[index]),
            None if weights is None else weights[index],
            None if time_ids is None else time_ids[index],
        )
        for index, prompt in zip(chosen, validation_prompts(settings, name, dataset, lines), strict=True)
    ]
    return Grid(examples, settings.validation_bands, at_once(settings))


def measured(settings: TrainSettings, dataset: PictureDataset) -> list[int]:
    """Which of a side's samples are measured: no mirrored ones, of the others as many as allowed, by their contents."""
    plain = [index for index, sample in enumerate(dataset) if not sample.flip]
    return sorted(plain, key=lambda index: dataset.content(dataset[index]))[: settings.validation_pictures]


def at_once(settings: TrainSettings) -> int:
    """Predictions that are made together; as many as in training where memory is short."""
    saving = settings.slicing or settings.gradient_checkpointing
    return settings.batch_size if saving else max(settings.batch_size, _AT_ONCE)


def validation_prompts(
    settings: TrainSettings, name: str, validation: PictureDataset | None, lines: Sequence[str]
) -> list[str]:
    """Prompts of the pictures that are measured of one side; where there are several templates, these take turns."""
    if validation is None:
        return []
    count = turns(settings)
    return [
        _prompt(validation[index].caption, name, lines[number % count :: count])
        for number, index in enumerate(measured(settings, validation))
    ]


def _prompt(caption: str, name: str, lines: Sequence[str]) -> str:
    """With the first of those lines that say most, and the caption as it is."""
    line = max(lines, key=lambda line: (captions.NAME in line) + (captions.FILEWORDS in line))
    return captions.possible_prompts(caption, [line], name)[0]


def validation_plan(settings: TrainSettings, sides: Sides, start: int) -> dict[str, Any]:
    """What a plan says of validation, empty without one.

    Args:
        start: the adapter's step.
    """
    if sides.validation is None:
        return {}
    end, every = settings.last_step, settings.validation_every
    steps = [step for step in range(start, end + 1) if step == start or is_due(step, every, end)]
    chosen = len(measured(settings, sides.validation)), len(measured(settings, sides.training))
    return {
        "pictures": sides.validation.pictures(),
        "measured_pictures": chosen[0],
        "measured_training_pictures": chosen[1],
        "every": every,
        "measurements": len(steps),
        "predictions": sum(chosen) * settings.validation_bands * len(steps),
    }
