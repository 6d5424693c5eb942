"""From settings to what a run learns from: pictures, their latents, prompts, weights and masks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from tincture import randomness
from tincture.adapters.adapter import Adapter, AuxiliaryLoss
from tincture.adapters.attention_mask import latent_mask
from tincture.data import captions
from tincture.data.batches import BatchPlan
from tincture.data.dataset import PictureDataset, Sample
from tincture.data.fitting import Buckets
from tincture.data.folders import load_dataset
from tincture.data.latent_files import LatentFiles
from tincture.data.latents import LatentCache
from tincture.data.masks import mask_weights
from tincture.data.picture_check import check_picture
from tincture.errors import UsageError
from tincture.events import Emit, Stage
from tincture.models.arithmetic import Arithmetic
from tincture.models.diffusion_model import DiffusionModel
from tincture.models.placement import VAE
from tincture.processes.ranks import ALONE, Processes
from tincture.run.duration import ENCODING, USUAL_PREVIEWS
from tincture.settings.train import TrainSettings
from tincture.training.step_data import PromptDraw, TrainingData
from tincture.workspace import Workspace

NONE_DESCRIBED: Mapping[str, str] = MappingProxyType({})
_MUCH = 0.1
"""So much of the pictures is not cut off without a word."""
_IN_SLICES = ", in slices"
"""How latents were made that slicing may have changed a little."""


def open_latents(settings: TrainSettings, model: DiffusionModel, device: torch.device) -> LatentFiles | None:
    """Where latents are kept from run to run, if the settings name a place; UsageError when it is a file.

    Args:
        device: where they are made.
    """
    if not settings.cache_dir:
        return None
    encoder = f"{model.latents_hash()} on {Arithmetic.current(device.type).place()}"
    return LatentFiles(
        settings.cache_dir, encoder, latent_channels=model.latent_channels, stride=model.vae_scale_factor
    )


def load_data(
    settings: TrainSettings,
    model: DiffusionModel,
    files: LatentFiles | None = None,
    *,
    folders: Sequence[str] | None = None,
    keep_pixels: int = 0,
    masked: bool = True,
    described: Mapping[str, str] = NONE_DESCRIBED,
) -> PictureDataset:
    """The pictures, at the settings' size or the model's own; DataError when none can be used.

    Args:
        folders: where they lie; None: where the settings say.
        files: spare decoding the pictures whose latents they hold.
        keep_pixels: bytes of pixels that stay until they are encoded.
        masked: whether masks count, if the settings want any.
        described: what was written of pictures without a caption, see ``load_dataset``.
    """
    width, height = settings.width or model.default_size, settings.height or model.default_size
    stride = model.vae_scale_factor
    return load_dataset(
        settings.folders if folders is None else folders,
        width=width,
        height=height,
        resize=settings.resize,
        varsize=settings.varsize,
        buckets=_buckets(settings, width * height, stride) if settings.buckets else None,
        skip_small=settings.small_pictures == "skip",
        recursive=settings.recursive,
        folder_repeats=settings.folder_repeats,
        flip=settings.flip,
        masks=settings.masks if masked and (settings.use_weight or settings.attention_mask_weight) else None,
        stride=stride,
        word_regex=settings.word_regex,
        join_string=settings.join_string,
        caption_encoding=settings.caption_encoding,
        described=described,
        check=files.check if files else check_picture,
        keep_pixels=keep_pixels,
    )


def _buckets(settings: TrainSettings, area: int, stride: int) -> Buckets:
    sides = {"step": settings.bucket_step, "shortest": settings.bucket_min, "longest": settings.bucket_max}
    return Buckets.around(area, stride, **sides)


def load_template(settings: TrainSettings, workspace: Workspace) -> list[str]:
    """The lines of the prompt template; UsageError when there is no such template.

    Where adapters that are trained together have templates of their own, lines of all take turns, so that each template
    is used alike; in those lines, [name] is the name of their owner already.
    """
    templates = [captions.load_template(settings.template, workspace.templates)]
    for other in settings.others:
        if other.template:
            name = workspace.find_adapter(other.kind, other.name).stem
            lines = captions.load_template(other.template, workspace.templates)
            templates.append([line.replace(captions.NAME, name) for line in lines])
    longest = max(map(len, templates))
    return [lines[number % len(lines)] for number in range(longest) for lines in templates]


def turns(settings: TrainSettings) -> int:
    """How many templates there are, whose lines take turns."""
    return 1 + sum(bool(other.template) for other in settings.others)


@dataclass(frozen=True)
class Encoded:
    """A data set as the denoiser sees it; ``weights`` and ``time_ids`` as ``TrainingData`` has them."""

    latents: LatentCache
    weights: Sequence[Tensor] | None
    time_ids: Sequence[Tensor] | None


def encode(
    settings: TrainSettings,
    model: DiffusionModel,
    dataset: PictureDataset,
    emit: Emit,
    files: LatentFiles | None = None,
    *,
    masked: bool = True,
    processes: Processes = ALONE,
) -> Encoded:
    """Every picture encoded.

    Args:
        emit: is told how far it is.
        files: hold latents of earlier runs, and keep these.
        masked: whether masks weigh the loss, if the settings want it.
        processes: share the pictures out.
    """
    if files is not None and model.slicing and not files.encoder.endswith(_IN_SLICES):
        files.encoder += _IN_SLICES
    with model.placement.acting(VAE, alone=True), Stage(emit, ENCODING, len(dataset)) as stage:
        latents = LatentCache.encode(
            model,
            dataset,
            seed=settings.seed,
            on_progress=lambda done, _: stage.advance(done),
            files=files,
            processes=processes,
        )
    return Encoded(
        latents,
        weights=_loss_weights(settings, model, dataset, latents) if masked and settings.use_weight else None,
        time_ids=[_time_ids(model, sample) for sample in dataset] if model.family.knows_sizes else None,
    )


def training_data(
    settings: TrainSettings, name: str, dataset: PictureDataset, encoded: Encoded, lines: list[str]
) -> TrainingData:
    """What the steps of a run draw from.

    Args:
        name: what takes the place of [name].
        lines: of the prompt template.
    """
    return TrainingData(
        plan=BatchPlan(dataset.sizes(), settings.batch_size, settings.seed, dataset.repeats()),
        latents=encoded.latents,
        prompt=prompt_draw(settings, name, dataset, lines),
        latent_sampling_method=settings.latent_sampling_method,
        weights=encoded.weights,
        time_ids=encoded.time_ids,
    )


def _time_ids(model: DiffusionModel, sample: Sample) -> Tensor:
    return model.time_ids(sample.original_size, sample.crop, sample.fit.size).to(model.device)


def prompt_draw(settings: TrainSettings, name: str, dataset: PictureDataset, lines: list[str]) -> PromptDraw:
    """Draws the prompt of a sample in a step."""

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


def possible_prompts(settings: TrainSettings, name: str, dataset: PictureDataset, lines: list[str]) -> list[str] | None:
    """Every prompt that the run may use, each once; None where shuffled or dropped tags make too many."""
    if settings.shuffle_tags or settings.tag_drop_out > 0:
        return None
    found: dict[str, None] = {}
    for sample in dataset:
        found |= dict.fromkeys(
            captions.possible_prompts(
                sample.caption,
                lines,
                name,
                keep_tags=settings.keep_tags,
                caption_drop_out=settings.caption_drop_out,
            )
        )
    return list(found)


def preview_prompts(settings: TrainSettings, dataset: PictureDataset, draw: PromptDraw) -> tuple[str, ...]:
    """The settings' prompts of previews, or those of the first pictures."""
    pictures = [index for index, sample in enumerate(dataset) if not sample.flip][:USUAL_PREVIEWS]
    return settings.preview_prompts or tuple(dict.fromkeys(draw(index, 0, index) for index in pictures))


def _loss_weights(
    settings: TrainSettings, model: DiffusionModel, dataset: PictureDataset, latents: LatentCache
) -> list[Tensor]:
    weights = []
    for index in range(len(dataset)):
        _, height, width = latents.shape(index)
        mask = dataset.mask(index)
        weights.append(mask_weights(mask, height, width, settings.unmasked_weight).to(model.device))
    return weights


def picture_remarks(settings: TrainSettings, read: Sequence[PictureDataset]) -> Iterator[str]:
    """Sentences about the pictures of a run: of ``read`` the first are those to be learned, the others are beside."""
    yield from (remark for each in read for remark in each.remarks)
    yield from _mask_remarks(settings, read[0])
    yield from _cut_remarks(settings, read[0])


def _mask_remarks(settings: TrainSettings, dataset: PictureDataset) -> Iterator[str]:
    """A sentence for when the loss is to be weighed by masks, and there are none."""
    if settings.use_weight and all(dataset.mask(index) is None for index in range(len(dataset))):
        yield "use_weight is on, but no picture has a mask or an alpha channel; all count wholly."


def _cut_remarks(settings: TrainSettings, dataset: PictureDataset) -> Iterator[str]:
    """A sentence for when much of the pictures is cut off that buckets would keep."""
    cut = [sample.fit.cropped for sample in dataset if not sample.flip]
    share = math.fsum(cut) / len(cut)
    if share >= _MUCH and not (settings.buckets or settings.varsize):
        yield (
            f"Of a picture {share:.0%} is cut off on average to bring it to width and height; `buckets` keeps more, "
            "and `resize` stretch keeps all, distorted."
        )


def require_masks(settings: TrainSettings, dataset: PictureDataset) -> None:
    """UsageError when the settings want attention to be held to masks, and there are none."""
    if settings.attention_mask_weight and all(_drawn_mask(dataset, index) is None for index in range(len(dataset))):
        raise UsageError(
            f"--attention-mask-weight is {settings.attention_mask_weight}, but no picture in "
            f"{', '.join(settings.folders)} has a mask; put mask pictures into a folder called mask beside them or "
            "name it by --masks, give the pictures an alpha channel, or leave the weight out."
        )


def auxiliary_loss(
    settings: TrainSettings, model: DiffusionModel, adapter: Adapter, dataset: PictureDataset
) -> AuxiliaryLoss | None:
    """The adapter's own term of the loss, if it has one with these settings."""

    def masks() -> list[Tensor | None]:
        return [_latent_mask(dataset, index, model) for index in range(len(dataset))]

    return adapter.auxiliary_loss(settings.to_dict(), model, masks)


def _latent_mask(dataset: PictureDataset, index: int, model: DiffusionModel) -> Tensor | None:
    mask, sample, stride = _drawn_mask(dataset, index), dataset[index], model.vae_scale_factor
    if mask is None:
        return None
    return latent_mask(mask, sample.height // stride, sample.width // stride).to(model.device)


def _drawn_mask(dataset: PictureDataset, index: int) -> Tensor | None:
    """A sample's mask, or None where it says nothing, being the same everywhere."""
    mask = dataset.mask(index)
    return mask if mask is not None and mask.min() < mask.max() else None
