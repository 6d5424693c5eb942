"""From settings to the components of a run, checked against each other before the slow parts begin.

Below this module everything takes flat parameters.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tincture.adapters.adapter import Adapter
from tincture.adapters.embedding import Embedding
from tincture.adapters.hypernetwork import Hypernetwork
from tincture.data.dataset import PictureDataset
from tincture.devices import PRECISIONS, resolve_device
from tincture.errors import DataError, ModelError, UsageError
from tincture.events import Callback, ModelLoaded
from tincture.models.loading import load_model
from tincture.models.sampling import SAMPLERS
from tincture.models.stable_diffusion import StableDiffusion
from tincture.run_data import attention_mask_loss, load_data, open_latents, require_masks, training_data
from tincture.settings import TrainSettings
from tincture.training.conditioning import Conditioning
from tincture.training.lr_schedule import Schedule
from tincture.training.optimizer import create_optimizer
from tincture.training.trainer import Clipping, Trainer
from tincture.workspace import Workspace


@dataclasses.dataclass(frozen=True)
class Components:
    """What a run is made of.

    Attributes:
        lines: of the prompt template.
    """

    settings: TrainSettings
    model: StableDiffusion
    adapter: Adapter
    dataset: PictureDataset
    lines: list[str]
    trainer: Trainer


def prepare(
    settings: TrainSettings,
    workspace: Workspace,
    adapter: Adapter,
    lines: list[str],
    callbacks: Sequence[Callback],
    record: Mapping[str, Any] | None = None,
) -> Components:
    """Everything that a run is made of, checked before the slow parts begin.

    Args:
        lines: of the prompt template.
        record: of the run that goes on; model and data must be those it began with.
    """
    learning_rate = Schedule.parse(settings.learning_rate, settings.steps)
    clipping = None
    if settings.clip_grad_mode != "none":
        clipping = Clipping(settings.clip_grad_mode, Schedule.parse(settings.clip_grad_value, settings.steps))
    optimizer = create_optimizer(
        settings.optimizer, adapter.parameters(), learning_rate.at(adapter.step), settings.weight_decay
    )
    model = load_base(settings, workspace)
    for callback in callbacks:
        callback.on_event(ModelLoaded(model.describe()))
    files = open_latents(settings, model)
    dataset = load_data(settings, model, files)
    if record is not None:
        _check_unchanged(settings, model, dataset, record)
    check(settings, model, adapter, lines, dataset)
    for path, reason in dataset.skipped:
        warnings.warn(f"{path} is skipped: {reason}", stacklevel=2)
    for remark in dataset.remarks:
        warnings.warn(remark, stacklevel=2)
    adapter.to(model.device)
    trainer = Trainer(
        model,
        adapter,
        training_data(settings, model, adapter.name, dataset, lines, callbacks, files),
        Conditioning(model, trains_text=adapter.trains_text, clip_skip=settings.clip_skip),
        optimizer,
        learning_rate=learning_rate,
        # As in the webui, a schedule that ends earlier ends the run.
        steps=min(settings.steps, learning_rate.end_step),
        global_step=adapter.step,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        clipping=clipping,
        precision=settings.precision,
        seed=settings.seed,
        log_every=settings.log_every,
        auxiliary_loss=attention_mask_loss(settings, model, adapter, dataset),
    )
    return Components(settings, model, adapter, dataset, lines, trainer)


def load_base(settings: TrainSettings, workspace: Workspace) -> StableDiffusion:
    """The frozen model, on the device and in the precision of the settings."""
    device = resolve_device(settings.device)
    chosen = dataclasses.asdict(settings.overrides())
    dtype = PRECISIONS[settings.precision]
    model = load_model(settings.model, workspace=workspace, device=device, dtype=dtype, **chosen)
    if settings.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    return model


def load_adapter(kind: str, path: Path, name: str) -> Adapter:
    """The adapter in ``path``, called ``name``: as in the webui its file's name counts, not what stands in the file."""
    adapter: Adapter = Embedding.load(path) if kind == "embedding" else Hypernetwork.load(path)
    adapter.name = name
    return adapter


def check_steps(settings: TrainSettings, adapter: Adapter) -> None:
    """UsageError when the adapter has all its steps already."""
    end = min(settings.steps, Schedule.parse(settings.learning_rate, settings.steps).end_step)
    if adapter.step >= end:
        what = "--steps is" if end == settings.steps else "the learning rate's schedule ends at"
        raise UsageError(
            f"The {settings.kind} {settings.name!r} has {adapter.step} steps already, and {what} {end}: "
            "nothing is left to do. Give a larger one to train it further."
        )


def _check_unchanged(
    settings: TrainSettings, model: StableDiffusion, dataset: PictureDataset, record: Mapping[str, Any]
) -> None:
    if dataset.digest() != record["data_hash"]:
        raise DataError(
            f"The pictures, captions or masks in {', '.join(settings.folders)} have changed since the run began; put "
            "them back to resume."
        )
    if model.hash != record["model_hash"]:
        raise ModelError(
            f"The model {settings.model!r} is not the one that the run began with; put that one back to resume."
        )


def check(
    settings: TrainSettings, model: StableDiffusion, adapter: Adapter, lines: list[str], dataset: PictureDataset
) -> None:
    """What can be wrong only between settings, model, adapter and data."""
    if settings.preview_sampler not in SAMPLERS:
        raise UsageError(f"There is no sampler {settings.preview_sampler!r}; known are {', '.join(SAMPLERS)}.")
    if settings.batch_size > sum(dataset.repeats()):
        raise UsageError(
            f"--batch-size is {settings.batch_size}, but {', '.join(settings.folders)} has {sum(dataset.repeats())} "
            "usable pictures; give at most that many, or use --gradient-accumulation-steps for a larger batch."
        )
    layers = min(encoder.layers for encoder in model.text_encoders)
    if settings.clip_skip > layers:
        raise UsageError(f"--clip-skip is {settings.clip_skip}, but the text encoder has {layers} layers.")
    _check_adapter(settings, model, adapter, lines)
    require_masks(settings, dataset)


def _check_adapter(settings: TrainSettings, model: StableDiffusion, adapter: Adapter, lines: list[str]) -> None:
    if isinstance(adapter, Embedding):
        adapter.require_fit(model)
        unnamed = [line for line in lines if "[name]" not in line]
        if unnamed:
            raise UsageError(
                f"The template {settings.template!r} has a line without [name] ({unnamed[0]!r}): nothing in it can be "
                "trained. Use subject, subject_filewords, style, style_filewords or a template of your own with [name]."
            )
    elif isinstance(adapter, Hypernetwork):
        adapter.require_fit(model)
