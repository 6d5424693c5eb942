"""From settings to the components of a run, checked against each other before the slow parts begin.

Below this module everything takes flat parameters.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from tincture import randomness
from tincture.adapters.adapter import Adapter
from tincture.adapters.embedding import Embedding
from tincture.adapters.hypernetwork import Hypernetwork
from tincture.data import captions
from tincture.data.batches import BatchPlan
from tincture.data.dataset import PictureDataset, Sample, load_dataset
from tincture.data.latents import LatentCache
from tincture.data.masks import mask_weights
from tincture.data.sizes import Buckets
from tincture.devices import PRECISIONS, resolve_device
from tincture.errors import DataError, ModelError, UsageError
from tincture.events import Callback, Progressed
from tincture.models.loading import load_model
from tincture.models.sampling import SAMPLERS
from tincture.models.stable_diffusion import StableDiffusion
from tincture.settings import TrainSettings
from tincture.training.conditioning import Conditioning
from tincture.training.lr_schedule import Schedule
from tincture.training.optimizer import create_optimizer
from tincture.training.trainer import Clipping, PromptDraw, Trainer, TrainingData
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
    dataset = load_data(settings, model)
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
        _training_data(settings, model, adapter.name, dataset, lines, callbacks),
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
    )
    return Components(settings, model, adapter, dataset, lines, trainer)


def load_base(settings: TrainSettings, workspace: Workspace) -> StableDiffusion:
    """The frozen model, on the device and in the precision of the settings."""
    device = resolve_device(settings.device)
    model = load_model(settings.model, workspace=workspace, device=device, dtype=PRECISIONS[settings.precision])
    if settings.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    return model


def load_data(settings: TrainSettings, model: StableDiffusion) -> PictureDataset:
    """The pictures, at the settings' size or the model's own; DataError when none can be used."""
    width, height = settings.width or model.default_size, settings.height or model.default_size
    stride = model.vae_scale_factor
    return load_dataset(
        settings.folders,
        width=width,
        height=height,
        resize=settings.resize,
        varsize=settings.varsize,
        buckets=_buckets(settings, width * height, stride) if settings.buckets else None,
        skip_small=settings.small_pictures == "skip",
        recursive=settings.recursive,
        folder_repeats=settings.folder_repeats,
        flip=settings.flip,
        masks=settings.masks if settings.use_weight else None,
        stride=stride,
        word_regex=settings.word_regex,
        join_string=settings.join_string,
        caption_encoding=settings.caption_encoding,
    )


def _buckets(settings: TrainSettings, area: int, stride: int) -> Buckets:
    side = math.isqrt(area)
    step = settings.bucket_step or max(stride, min(64, side // 8 // stride * stride))
    return Buckets.of_area(area, step, settings.bucket_min or side // 2, settings.bucket_max or side * 2)


def load_adapter(kind: str, path: Path, name: str) -> Adapter:
    """The adapter in ``path``, called ``name``: as in the webui its file's name counts, not what stands in the file."""
    adapter: Adapter = Embedding.load(path) if kind == "embedding" else Hypernetwork.load(path)
    adapter.name = name
    return adapter


def load_template(settings: TrainSettings, workspace: Workspace) -> list[str]:
    """The lines of the prompt template; UsageError when there is no such template."""
    return captions.load_template(settings.template, workspace.templates)


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


def _check_adapter(settings: TrainSettings, model: StableDiffusion, adapter: Adapter, lines: list[str]) -> None:
    if isinstance(adapter, Embedding):
        adapter.require_fit(model)
        unnamed = [line for line in lines if "[name]" not in line]
        if unnamed:
            raise UsageError(
                f"The template {settings.template!r} has a line without [name] ({unnamed[0]!r}): nothing in it can be "
                "trained. Use subject, subject_filewords, style, style_filewords or a template of your own with [name]."
            )
    elif isinstance(adapter, Hypernetwork) and not set(adapter.sizes) & set(model.context_widths()):
        raise ModelError(
            f"The hypernetwork {adapter.name!r} has layers for widths {sorted(adapter.sizes)}, none of which "
            f"{model.name} has ({', '.join(map(str, model.context_widths()))}); create one for this model."
        )


def _training_data(
    settings: TrainSettings,
    model: StableDiffusion,
    name: str,
    dataset: PictureDataset,
    lines: list[str],
    callbacks: Sequence[Callback],
) -> TrainingData:
    def told(done: int, total: int) -> None:
        for callback in callbacks:
            callback.on_event(Progressed("latents", done, total))

    latents = LatentCache.encode(model, dataset, seed=settings.seed, on_progress=told)
    return TrainingData(
        plan=BatchPlan(dataset.sizes(), settings.batch_size, settings.seed, dataset.repeats()),
        latents=latents,
        prompt=_prompt_draw(settings, name, dataset, lines),
        latent_sampling_method=settings.latent_sampling_method,
        weights=_loss_weights(settings, model, dataset, latents) if settings.use_weight else None,
        time_ids=[_time_ids(model, sample) for sample in dataset] if model.family.knows_sizes else None,
    )


def _time_ids(model: StableDiffusion, sample: Sample) -> Tensor:
    size = (sample.width, sample.height)
    return model.time_ids(sample.original_size or size, sample.crop, size).to(model.device)


def _prompt_draw(settings: TrainSettings, name: str, dataset: PictureDataset, lines: list[str]) -> PromptDraw:
    def draw(index: int, global_step: int, slot: int) -> str:
        return captions.prompt_for(
            dataset[index].caption,
            lines,
            name,
            randomness.generator(settings.seed, "prompt", global_step, slot),
            shuffle_tags=settings.shuffle_tags,
            keep_tags=settings.keep_tags,
            tag_drop_out=settings.tag_drop_out,
            caption_drop_out=settings.caption_drop_out,
        )

    return draw


def _loss_weights(
    settings: TrainSettings, model: StableDiffusion, dataset: PictureDataset, latents: LatentCache
) -> list[Tensor]:
    weights = []
    for index in range(len(dataset)):
        _, height, width = latents.shape(index)
        weights.append(mask_weights(dataset.mask(index), height, width, settings.unmasked_weight).to(model.device))
    return weights
