"""From settings to the components of a run, checked against each other before the slow parts begin.

Below this module everything takes flat parameters.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tincture.adapters.adapter import Adapter, adapter_class
from tincture.adapters.embedding_database import usable_embeddings
from tincture.adapters.joint import joined
from tincture.adapters.with_fixed import Fixed, WithFixed
from tincture.data.dataset import PictureDataset
from tincture.data.decoded import PIXEL_MEMORY
from tincture.errors import AlreadyTrainedError, DataError, ModelError, UsageError
from tincture.events import Callback, Emit, MemoryFitted, ModelLoaded, Stage, emitter
from tincture.kinds.registry import find_kind
from tincture.models.devices import PRECISIONS, half_precision, resolve_device
from tincture.models.diffusion_model import DiffusionModel
from tincture.models.loading.load import load_model
from tincture.models.placement import DENOISER, TEXT_ENCODERS
from tincture.models.samplers import require_samplers
from tincture.processes.ranks import ALONE, Processes
from tincture.run.averages import averaged
from tincture.run.data import (
    Encoded,
    auxiliary_loss,
    encode,
    open_latents,
    picture_remarks,
    require_masks,
    training_data,
)
from tincture.run.descriptions import describe_missing, descriptions_in, find_undescribed, needless_remarks
from tincture.run.digests import all_digests, pictures_digests
from tincture.run.duration import TimeLeft
from tincture.run.grids import make_grid, measured, validation_prompts
from tincture.run.losses import check_norms, negative_prompts, vector_norms
from tincture.run.memory.estimate import MemoryEstimator
from tincture.run.memory.fit import available_memory, fit, shortage_explained
from tincture.run.naming import require_named
from tincture.run.presence import find_fixed
from tincture.run.prior_drawing import prior_drawing, with_drawn
from tincture.run.prior_pictures import PriorPictures, check_drawn, check_prior, load_prior, make_prior, prior_lines
from tincture.run.split import Sides, count_listed, load_sides
from tincture.run.together import require_same_files
from tincture.run.trainer import known_prompts, make_optimizer, make_trainer
from tincture.settings.train import TrainSettings
from tincture.training.trainer import Trainer
from tincture.training.validation import Grid
from tincture.workspace import Workspace


@dataclasses.dataclass(frozen=True)
class Components:
    """What a run is made of.

    Attributes:
        settings: with nothing left open.
        lines: of the prompt template.
        sides: the pictures, those that are trained and those that are not.
        prior: regularisation pictures, if there are any.
        grids: what is measured of those for validation, and of those that are trained; None without validation.
        described: what was written of pictures without a caption, by the sha256 of their files.
        estimator: tells the memory that other settings would take.
        time_left: measures how long the parts of the run take, from the loading of the model on.
    """

    settings: TrainSettings
    model: DiffusionModel
    adapter: Adapter
    sides: Sides
    lines: list[str]
    trainer: Trainer
    grids: tuple[Grid, Grid] | None
    prior: PriorPictures | None
    described: Mapping[str, str]
    estimator: MemoryEstimator
    time_left: TimeLeft

    @property
    def dataset(self) -> PictureDataset:
        """The pictures that are trained."""
        return self.sides.training


def prepare(
    settings: TrainSettings,
    workspace: Workspace,
    adapter: Adapter,
    lines: list[str],
    callbacks: Sequence[Callback],
    record: Mapping[str, Any] | None = None,
    *,
    model_reason: str = "",
    processes: Processes = ALONE,
    checked: Callable[[TrainSettings, DiffusionModel, Emit], object] = lambda settings, model, emit: None,
) -> Components:
    """Everything that a run is made of, checked before the slow parts begin.

    Args:
        lines: of the prompt template.
        record: of the run that goes on; model and data must be those it began with.
        model_reason: why the model is the one it is, where nobody named it.
        processes: compute the run together; all of them call this.
        checked: called once all is checked, before the slow parts.
    """
    make_optimizer(settings, adapter)  # refuses what cannot be used before anything heavy is loaded
    own_lines = prior_lines(settings, workspace) if record is None else record.get("prior_lines", [])
    time_left, device = TimeLeft(), resolve_device(settings.device)
    emit = emitter([time_left, *callbacks])
    # Before the base model is loaded, so that memory need not hold both; a run that goes on has the texts already.
    if record is None:
        if undescribed := find_undescribed(settings, lines, own_lines):
            check_without_model(settings, count_listed(settings))
        described = processes.from_main(lambda: describe_missing(settings, undescribed, emit))
    else:
        described = descriptions_in(record)
    with Stage(emit, "loading the model"):
        model = load_base(settings, workspace)
    why = f" ({model_reason})" if model_reason else ""
    emit(ModelLoaded(f"{model.describe()}{why}", model, functools.cache(lambda: usable_embeddings(model, workspace))))
    drawing = prior_drawing(settings, model, workspace)
    if drawing is not None:
        check_drawn(settings, drawing, own_lines, model, adapter)
        processes.from_main(functools.partial(drawing.draw, model, device, emit))
        settings = with_drawn(settings, drawing)
    files = open_latents(settings, model, device)
    with Stage(emit, "reading pictures"):
        reading: dict[str, Any] = {"keep_pixels": PIXEL_MEMORY, "described": described}
        sides = load_sides(settings, model, files, **reading)
        prior = load_prior(settings, model, own_lines, files, **reading)
    dataset = sides.training
    if processes.world_size > 1:
        require_same_files(processes, all_digests(model, adapter, sides, prior, [*lines, *own_lines]))
    if record is not None:
        _check_unchanged(settings, model, sides, prior, record)
    check(settings, model, adapter, lines, dataset)
    check_prior(settings, model, adapter, prior)
    read = [dataset, prior.dataset] if prior else [dataset]
    skipped = (f"{path} is skipped: {reason}" for each in read for path, reason in each.skipped)
    needless = needless_remarks(settings, lines, own_lines, len(described))
    for remark in (*skipped, *picture_remarks(settings, read), *needless):
        warnings.warn(remark, stacklevel=2)
    estimator = MemoryEstimator(model, adapter, dataset, lines, device.type, sides.validation, prior)
    with Stage(emit, "fitting memory") if settings.open_memory_settings() else contextlib.nullcontext():
        settings, fitted = processes.from_main(functools.partial(fit_memory, settings, estimator, device))
    if fitted is not None:
        emit(fitted)
    checked(settings, model, emit)
    with shortage_explained(settings, device, lambda: estimator):
        with Stage(emit, "preparing the model"):
            estimator.model = model = place(model, settings, workspace, device)
            adapter.to(model.device)
        # Only now: some, such as Adagrad, make their state at once, on the device where the parameters are.
        optimizer = make_optimizer(settings, adapter)
        further = validation_prompts(settings, adapter.word, sides.validation, lines)
        further += prior.prompts(adapter.word) if prior else []
        known = known_prompts(settings, model, adapter, dataset, lines, further)
        model.placement.keep = frozenset({DENOISER} if known else {DENOISER, TEXT_ENCODERS})
        encode_all = functools.partial(encode, settings, model, emit=emit, files=files, processes=processes)
        encoded = encode_all(dataset)
        grids = _grids(settings, adapter, sides, encoded, lines, encode_all)
        loss = auxiliary_loss(settings, model, adapter, dataset)
        beside = None
        if prior is not None:
            beside = make_prior(settings, adapter.word, prior, encode_all(prior.dataset, masked=False))
        adapter = averaged(settings, adapter, optimizer)
    for remark in files.remarks() if files else ():
        warnings.warn(remark, stacklevel=2)
    trainer = make_trainer(
        settings,
        model,
        adapter,
        training_data(settings, adapter.word, dataset, encoded, lines),
        optimizer,
        known_prompts=known,
        auxiliary_loss=loss,
        prior=beside,
        norms=vector_norms(settings, adapter, model.text.token_norms),
        processes=processes,
    )
    return Components(settings, model, adapter, sides, lines, trainer, grids, prior, described, estimator, time_left)


def _grids(
    settings: TrainSettings,
    adapter: Adapter,
    sides: Sides,
    trained: Encoded,
    lines: list[str],
    encode_all: Callable[[PictureDataset], Encoded],
) -> tuple[Grid, Grid] | None:
    if sides.validation is None:
        return None
    samples = [sides.validation[index] for index in measured(settings, sides.validation)]
    chosen = sides.validation.part(samples)
    return (
        make_grid(settings, adapter.word, chosen, encode_all(chosen), lines),
        make_grid(settings, adapter.word, sides.training, trained, lines),
    )


def load_base(settings: TrainSettings, workspace: Workspace, *, stay: bool = False) -> DiffusionModel:
    """The frozen model in the precision of the settings, on their device unless ``place`` shall bring it there.

    Where the precision is not chosen yet, it is a half one: that takes the least memory until it is.

    Args:
        stay: it shall only be looked at, on the CPU and in half precision.
    """
    device = resolve_device(settings.device)
    comes_later = settings.open_memory_settings() or settings.offload or settings.weight_storage == "float8"
    precision = half_precision(device) if stay or settings.precision == "auto" else settings.precision
    return load_model(
        settings.model,
        workspace=workspace,
        device="cpu" if stay or comes_later else device,
        dtype=PRECISIONS[precision],
        **dataclasses.asdict(settings.overrides()),
    )


def fit_memory(
    settings: TrainSettings, estimator: MemoryEstimator, device: torch.device
) -> tuple[TrainSettings, MemoryFitted | None]:
    """``settings`` with nothing left open of their memory settings, and what was chosen if anything was.

    Raises:
        OutOfMemoryError: the run does not fit into what ``vram`` says.
    """
    usual = settings.open_memory_settings()
    if not usual:
        return settings, None
    available = available_memory(settings, device)
    found, estimate = fit(settings, estimator, available, device)
    return found, MemoryFitted({name: getattr(found, name) for name in usual}, estimate.peak, available)


def place(model: DiffusionModel, settings: TrainSettings, workspace: Workspace, device: torch.device) -> DiffusionModel:
    """The model as all memory settings have it: loaded anew where its precision turned out to be another."""
    dtype = PRECISIONS[settings.precision]
    if model.dtype != dtype:
        model = load_base(settings, workspace)
    if settings.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    if settings.slicing:
        model.enable_slicing()
    if settings.weight_storage == "float8":
        model.store_in_float8(device)
    if device.type == "cpu" and settings.precision == "fp32":
        model.speed_up_convolutions()
    if settings.offload:
        model.placement.offload(device)
    elif model.device != device:
        model.to(device, dtype)
    return model


def load_members(settings: TrainSettings, workspace: Workspace, paths: Sequence[Path]) -> Adapter:
    """What a run trains, beside what is fixed: the adapter in the first of ``paths``, with those in the others."""
    given = zip(settings.adapters, paths, strict=True)
    return with_fixed(settings, workspace, [load_adapter(kind, path, path.stem) for (kind, _), path in given])


def with_fixed(settings: TrainSettings, workspace: Workspace, members: Sequence[Adapter]) -> Adapter:
    """One adapter of ``members``, with those that act beside them."""
    adapter, paths = joined(members), find_fixed(settings, workspace)
    fixed = [
        Fixed(load_adapter(one.kind, path, path.stem), one.multiplier)
        for one, path in zip(settings.fixed, paths, strict=True)
    ]
    return WithFixed(adapter, fixed) if fixed else adapter


def load_adapter(kind: str, path: Path, name: str) -> Adapter:
    """The adapter in ``path``, called ``name``: as in the webui its file's name counts, not what stands in the file."""
    adapter = adapter_class(find_kind(kind)).load(path)
    adapter.name = name
    return adapter


def check_steps(settings: TrainSettings, adapter: Adapter) -> None:
    """AlreadyTrainedError when the adapter has all its steps."""
    end = settings.last_step
    if adapter.step >= end:
        what = "--steps is" if end == settings.steps else "the learning rate's schedule ends at"
        raise AlreadyTrainedError(
            f"The {settings.kind} {settings.name!r} has {adapter.step} steps already, and {what} {end}: "
            "nothing is left to do. Give a larger one to train it further.",
            adapter.step,
        )


def _check_unchanged(
    settings: TrainSettings,
    model: DiffusionModel,
    sides: Sides,
    prior: PriorPictures | None,
    record: Mapping[str, Any],
) -> None:
    if any(digest != record.get(name, "") for name, digest in pictures_digests(sides, prior).items()):
        folders = (*settings.folders, *settings.validation_folders, *settings.prior_folders)
        raise DataError(
            f"The pictures, captions or masks in {', '.join(folders)} have changed since the run began; put them back "
            "to resume."
        )
    if model.hash != record["model_hash"]:
        raise ModelError(
            f"The model {settings.model!r} is not the one that the run began with; put that one back to resume."
        )


def check_without_model(settings: TrainSettings, samples: int) -> None:
    """What is wrong whatever the model is.

    Args:
        samples: how many pictures come in an epoch, at most.
    """
    require_samplers(settings.preview_sampler)
    if settings.batch_size > samples:
        raise UsageError(
            f"--batch-size is {settings.batch_size}, but {', '.join(settings.folders)} has {samples} usable pictures; "
            "give at most that many, or use --gradient-accumulation-steps for a larger batch."
        )


def check(
    settings: TrainSettings, model: DiffusionModel, adapter: Adapter, lines: list[str], dataset: PictureDataset
) -> None:
    """What can be wrong only between settings, model, adapter and data."""
    check_without_model(settings, sum(dataset.repeats()))
    if settings.clip_skip > model.text.layers:
        raise UsageError(f"--clip-skip is {settings.clip_skip}, but the text encoder has {model.text.layers} layers.")
    # One that the negative prompt names learns from every prompt, whether a line names it or not.
    apart = negative_prompts(settings, adapter.word)
    adapter.check_run(settings.to_dict(), model, () if apart and adapter.is_taught_by(apart, model) else lines)
    check_norms(settings, adapter)
    require_named(settings, model, adapter, lines, dataset)
    require_masks(settings, dataset)
