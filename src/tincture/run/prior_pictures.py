"""The regularisation pictures of a run: loaded, checked, encoded, and put into words."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tincture import randomness
from tincture.adapters.adapter import Adapter
from tincture.data import captions
from tincture.data.batches import BatchPlan
from tincture.data.dataset import PictureDataset
from tincture.data.latent_files import LatentFiles
from tincture.data.listing import Source
from tincture.errors import UsageError
from tincture.models.diffusion_model import DiffusionModel
from tincture.run.data import NONE_DESCRIBED, Encoded, load_data
from tincture.run.losses import negative_prompts
from tincture.run.prior_drawing import PriorDrawing
from tincture.settings.schedule import Schedule
from tincture.settings.train import TrainSettings
from tincture.training.step_data import Prior, TrainingData
from tincture.workspace import Workspace

USUAL_WEIGHT = "1"


@dataclass(frozen=True)
class PriorPictures:
    """Pictures that are trained beside those to be learned, with the lines of their prompt template."""

    dataset: PictureDataset
    lines: list[str]

    def prompts(self, name: str) -> list[str]:
        """All that they may be trained with, each once; their captions are used as they are.

        Args:
            name: what prompts call the adapter.
        """
        each = (captions.possible_prompts(sample.caption, self.lines, name) for sample in self.dataset)
        return list(dict.fromkeys(prompt for prompts in each for prompt in prompts))


def prior_lines(settings: TrainSettings, workspace: Workspace) -> list[str]:
    """The lines of their prompt template, none without such pictures; UsageError when there is no such template."""
    if not settings.has_prior:
        return []
    template = settings.prior_template
    return captions.load_template(template, workspace.templates) if template else [captions.FILEWORDS]


def load_prior(
    settings: TrainSettings,
    model: DiffusionModel,
    lines: list[str],
    files: LatentFiles | None = None,
    *,
    keep_pixels: int = 0,
    described: Mapping[str, str] = NONE_DESCRIBED,
) -> PriorPictures | None:
    """The pictures, without masks, in the sizes of the others; None without any.

    Raises:
        DataError: none can be used.
        UsageError: a folder is for training or validation too.
    """
    if not settings.prior_folders:
        return None
    others = {_real(folder) for folder in (*settings.folders, *settings.validation_folders)}
    for folder in settings.prior_folders:
        if _real(folder) in others:
            raise UsageError(
                f"The folder {Source.parse(folder).folder} is named by --prior-data, and for training or validation "
                "too; name it once."
            )
    folders = settings.prior_folders
    shared: dict[str, Any] = {"keep_pixels": keep_pixels, "described": described}
    return PriorPictures(load_data(settings, model, files, folders=folders, masked=False, **shared), lines)


def check_prior(settings: TrainSettings, model: DiffusionModel, adapter: Adapter, prior: PriorPictures | None) -> None:
    """UsageError for pictures that can teach the adapter nothing."""
    if prior is not None:
        where = f"in {', '.join(settings.prior_folders)} (--prior-data)"
        _require_taught(settings, prior.prompts(adapter.word), where, model, adapter)


def check_drawn(
    settings: TrainSettings, drawing: PriorDrawing | None, lines: list[str], model: DiffusionModel, adapter: Adapter
) -> None:
    """The same of pictures that are to be drawn, before they are.

    Args:
        lines: of their prompt template.
    """
    if drawing is not None:
        prompts = captions.possible_prompts(drawing.prompt, lines, adapter.word)
        _require_taught(settings, prompts, f"of {drawing.prompt!r} (--prior-prompt)", model, adapter)


def _require_taught(
    settings: TrainSettings, positive: Sequence[str], which: str, model: DiffusionModel, adapter: Adapter
) -> None:
    prompts = [*positive, *negative_prompts(settings, adapter.word)]
    if adapter.is_taught_by(prompts, model):
        return
    raise UsageError(
        f"The pictures {which} teach "
        f"{adapter.name!r} nothing, since its name is in none of their prompts, and only there does it act. It cannot "
        "make the model forget what is said without it either: leave them out, or give a --prior-template with [name]."
    )


def make_prior(settings: TrainSettings, name: str, prior: PriorPictures, encoded: Encoded) -> Prior:
    """What the steps of a run draw from, and how much it counts.

    Args:
        name: what prompts call the adapter.
        encoded: of all the pictures.
    """
    dataset, lines = prior.dataset, prior.lines

    def prompt(index: int, global_step: int, slot: int) -> str:
        rng = randomness.generator(settings.seed, "prompt", global_step, slot)
        return captions.prompt_for(dataset[index].caption, lines, name, rng)

    batch_size = min(settings.batch_size, sum(dataset.repeats()))
    data = TrainingData(
        plan=BatchPlan(dataset.sizes(), batch_size, settings.seed, dataset.repeats()),
        latents=encoded.latents,
        prompt=prompt,
        latent_sampling_method=settings.latent_sampling_method,
        time_ids=encoded.time_ids,
    )
    return Prior(data, prior_weight(settings))


def prior_weight(settings: TrainSettings) -> Schedule:
    """How much they count in each step."""
    return Schedule.parse(settings.prior_weight or USUAL_WEIGHT, settings.steps)


def prior_plan(
    settings: TrainSettings, name: str, prior: PriorPictures | None, drawing: PriorDrawing | None
) -> dict[str, Any]:
    """What a plan says of them, empty without any; ``name`` is the adapter's in prompts.

    Args:
        prior: None, too, for as long as pictures of ``drawing`` are missing.
    """
    if prior is None and drawing is None:
        return {}
    found: dict[str, Any] = {
        "weight": settings.prior_weight or USUAL_WEIGHT,
        "template": settings.prior_template or captions.FILEWORDS,
    }
    if prior is not None:
        counted = {"pictures": prior.dataset.pictures(), "samples_per_epoch": sum(prior.dataset.repeats())}
        found = {**counted, **found, "prompt": prior.prompts(name)[0]}
    if drawing is not None:
        drawn = {"to_draw": len(drawing.missing()), "folder": str(drawing.folder)}
        found = {"pictures": drawing.count, **found, "drawn_by": drawing.prompt, **drawn}
    return {"prior": found}


def _real(folder: str) -> str:
    return os.path.realpath(Source.parse(folder).folder)
