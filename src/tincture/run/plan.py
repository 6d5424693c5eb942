"""What a training would do, told before anything is written."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from tincture.adapters.adapter import Adapter
from tincture.data.batches import BatchPlan
from tincture.data.dataset import PictureDataset
from tincture.errors import AlreadyTrainedError
from tincture.formats.software import software
from tincture.models.arithmetic import Arithmetic, precision_remarks
from tincture.models.devices import PRECISIONS, device_title, resolve_device, total_memory
from tincture.models.diffusion_model import DiffusionModel
from tincture.models.threads import computing_threads
from tincture.run.averages import planned as planned_averages
from tincture.run.best import best_path, check_places
from tincture.run.components import check, check_steps, fit_memory, load_base, load_members, place
from tincture.run.data import load_template, open_latents, picture_remarks
from tincture.run.defaults import completed
from tincture.run.descriptions import caption_remarks, find_undescribed, needless_remarks
from tincture.run.digests import pictures_digests
from tincture.run.duration import Timing
from tincture.run.grids import validation_plan
from tincture.run.losses import loss_words
from tincture.run.memory.estimate import MemoryEstimate, MemoryEstimator
from tincture.run.memory.whole_process import process_bytes, program_bytes
from tincture.run.optimizer_file import with_optimizer
from tincture.run.past.changes import facts_of_record, libraries
from tincture.run.presence import find_adapters
from tincture.run.prior_drawing import PriorDrawing, prior_drawing, with_drawn
from tincture.run.prior_pictures import check_drawn, check_prior, load_prior, prior_lines, prior_plan
from tincture.run.split import Sides, load_sides
from tincture.run.timing import RunTimes, Workload, planned_duration
from tincture.run.together import planned_processes
from tincture.run.trainer import make_optimizer
from tincture.settings.schedule import Schedule
from tincture.settings.train import FIELDS, TrainSettings
from tincture.workspace import Workspace


def plan(
    settings: TrainSettings,
    workspace: Workspace,
    timing: Timing = "measure",
    watch: Callable[[], object] = lambda: None,
    *,
    digests: bool = False,
    alone: bool = False,
) -> dict[str, Any]:
    """What ``train`` would do, with nothing written: settings, pictures, sizes, epochs, trained numbers, memory, time.

    The memory is that of the device, in MiB: the most at a time, the most of each phase, and what of it lies there.

    Args:
        timing: ``measure``: how long the run will take is measured, where that is not known from earlier plans and
            runs; ``known``: it is told where it is known; ``none``: it is left out.
        watch: called again and again on the way; what it raises ends the plan.
        alone: nothing but this happens in this process: on a CPU, what a run's process takes at most, the program and
            the model's files while they load among it, is there too, as ``process_mib``.
        digests: what tells whether a later training is the same is there too, as ``facts``; all pictures are read.

    Raises:
        OutOfMemoryError: the run does not fit into what ``vram`` says.
    """
    paths, processes = find_adapters(settings, workspace), planned_processes(settings)
    adapter = load_members(settings, workspace, paths)
    given, (named, why) = settings, with_optimizer(settings, adapter, paths)
    complete = completed(named, workspace)
    settings, reasons = complete.settings, complete.reasons
    optimizer = make_optimizer(settings, adapter)  # as what follows, it refuses what train would refuse
    check_places(settings, adapter, paths)
    device = resolve_device(settings.device)
    lines, own_lines = load_template(settings, workspace), prior_lines(settings, workspace)
    undescribed = find_undescribed(settings, lines, own_lines)
    watch()
    model = load_base(settings, workspace, stay=True)
    program = program_bytes(model) if alone and device.type == "cpu" else None
    watch()
    files = open_latents(settings, model, device)
    sides = load_sides(settings, model, files)
    drawing = prior_drawing(settings, model, workspace)
    check_drawn(settings, drawing, own_lines, model, adapter)
    is_there = drawing is None or not drawing.missing()
    prior = load_prior(with_drawn(settings, drawing), model, own_lines, files) if is_there else None
    watch()
    dataset = sides.training
    check(settings, model, adapter, lines, dataset)
    check_prior(settings, model, adapter, prior)
    batches = BatchPlan(dataset.sizes(), settings.batch_size, settings.seed, dataset.repeats())
    estimator = MemoryEstimator(model, adapter, dataset, lines, device.type, sides.validation, prior)
    settings, fitted = fit_memory(settings, estimator, device)
    read = [dataset, prior.dataset] if prior else [dataset]
    watch()
    trained = sum(parameter.numel() for parameter in adapter.parameters())
    remaining = max(0, settings.last_step - adapter.step)
    made: dict[str, Any] = {"model_hash": model.hash, "template_lines": lines, "libraries": libraries(), **software()}
    made["arithmetic"] = [Arithmetic.current(device.type).to_dict()]
    facts = {**made, "pictures": dataset.pictures(), **pictures_digests(sides, prior)} if digests else {}
    found: dict[str, Any] = {
        **({"facts": facts_of_record(facts)} if digests else {}),
        "settings": settings.to_dict(),
        "model": {
            "name": model.name,
            "hash": model.hash,
            "family": model.family.title,
            "inpainting": model.is_inpainting,
            "predicts": model.predicts,
            **({"chosen": complete.model_reason} if complete.model_reason else {}),
        },
        "chosen_by_default": {name: reason for name, reason in reasons.items() if name != "model"},
        "pictures": dataset.pictures(),
        "samples_per_epoch": sum(dataset.repeats()),
        **prior_plan(settings, adapter.word, prior, drawing),
        "skipped": {str(path): reason for each in read for path, reason in each.skipped},
        "remarks": [
            *picture_remarks(settings, read),
            *caption_remarks(settings, sides, lines, prior),
            *needless_remarks(settings, lines, own_lines, len(undescribed)),
            *_drawing_remarks(drawing),
            *_end_remarks(settings, adapter),
            *Arithmetic.current(device.type).remarks(),
            *precision_remarks(device.type, settings.precision),
        ],
        "buckets": _buckets(dataset),
        "micro_batches_per_epoch": batches.micro_batches_per_epoch,
        **({"schedules": schedules} if (schedules := _schedules(settings)) else {}),
        "steps": remaining,
        "epochs": round(remaining * settings.gradient_accumulation_steps / batches.micro_batches_per_epoch, 2),
        "trained_numbers": trained,
        **({"trained_together": together} if (together := list(_together(settings, adapter))) else {}),
        **({"fixed_adapters": [str(one) for one in settings.fixed]} if settings.fixed else {}),
        "memory_mib": _mib(estimator.estimate(settings)),
        **({} if program is None else {"process_mib": _process_mib(program, estimator, settings, workspace)}),
        "device": _device(device),
        **({"processes": processes} if processes > 1 else {}),
        **_validation(settings, sides, adapter, paths),
        **({"averages": averages} if (averages := _averages(settings, adapter, paths)) else {}),
        "optimizer": "; ".join(_optimizer(settings, given, optimizer, why)),
        "loss": loss_words(settings),
        **({"token_norms": token_norms} if (token_norms := _token_norms(settings, model)) else {}),
        "on_divergence": _on_divergence(settings),
        **({"chosen_for_memory": dict(fitted.chosen)} if fitted else {}),
    }
    validation = found.get("validation", {"predictions": 0, "measurements": 1, "measured_pictures": 0})
    predictions = validation["predictions"] // validation["measurements"]
    work = Workload(settings, model, adapter, dataset, lines, device, predictions, processes)
    watch()
    times = RunTimes(work, timing, lambda: _prepared(work, workspace), watch)
    to_encode = sum(files is None or files.read(sample) is None for each in read for sample in each)
    with computing_threads(settings.threads):
        duration = planned_duration(times, to_encode + validation["measured_pictures"])
    return {**found, "duration": duration}


def _schedules(settings: TrainSettings) -> dict[str, str]:
    """By setting, the values of what changes from step to step: in words, and as a curve of bars."""
    texts = {name: getattr(settings, name) for name, spec in FIELDS.items() if spec.schedule}
    if settings.clip_grad_mode == "none":
        texts.pop("clip_grad_value")
    read = {name: Schedule.parse(text, settings.steps) for name, text in texts.items() if text}
    return {name: f"{each.in_words()} {each.curve()}" for name, each in read.items() if each.changes}


def _device(device: torch.device) -> dict[str, Any]:
    """Its name, and its memory in MiB, None where nobody tells."""
    size = total_memory(device)
    return {"name": device_title(device), "memory_mib": None if size is None else round(size / 2**20)}


def _prepared(work: Workload, workspace: Workspace) -> DiffusionModel:
    """The model as the run will have it. It is cast, not loaded anew: what it computes does not matter here."""
    model = work.model.to(work.model.device, PRECISIONS[work.settings.precision])
    return place(model, work.settings, workspace, work.device)


def _validation(settings: TrainSettings, sides: Sides, adapter: Adapter, paths: Sequence[Path]) -> dict[str, Any]:
    planned = validation_plan(settings, sides, adapter.step)
    best, *others = [str(best_path(path)) for path in paths]
    more = {"best_paths_of_companions": others} if others else {}
    return {"validation": {**planned, "best_path": best, **more}} if planned else {}


def _averages(settings: TrainSettings, adapter: Adapter, paths: Sequence[Path]) -> dict[str, str]:
    members = zip(adapter.members(), paths, strict=True)
    return {file: weights for one, path in members for file, weights in planned_averages(settings, one, path).items()}


def _together(settings: TrainSettings, adapter: Adapter) -> Iterator[str]:
    """Each of several adapters in words: which it is, how many numbers of it are trained, at what rate."""
    rates = [settings.learning_rate, *(other.rate for other in settings.others)]
    for member, rate in zip(adapter.members(), rates, strict=True) if settings.others else ():
        numbers = sum(parameter.numel() for parameter in member.parameters())
        yield f"{member.kind} {member.name}: {numbers:,} numbers from step {member.step} on, rate {rate}"


def _token_norms(settings: TrainSettings, model: DiffusionModel) -> dict[str, float]:
    """By text encoder, the mean norm of the model's own tokens, where those of vectors are held to it."""
    held = settings.norm_limit or settings.norm_weight
    return {encoder: round(norm, 6) for encoder, norm in model.text.token_norms().items()} if held else {}


def _optimizer(
    settings: TrainSettings, given: TrainSettings, optimizer: torch.optim.Optimizer, why: str
) -> Iterator[str]:
    """It in words: with which arguments, and what of it was not given."""
    arguments = f" with {settings.optimizer_args}" if settings.optimizer_args else ""
    yield f"{type(optimizer).__name__}{arguments}{f', {why}' if why else ''}"
    if "weight_decay" in (group := optimizer.param_groups[0]):
        parts = (("biases", settings.weight_decay_bias), ("norms", settings.weight_decay_norm))
        apart = "".join(f", {decay:g} of {name}" for name, decay in parts if decay is not None)
        yield f"weight decay {group['weight_decay']:g}{apart}"
    if not given.learning_rate:
        yield f"rate {settings.learning_rate}, the usual one with it"


def _on_divergence(settings: TrainSettings) -> str:
    """What the guards do, in words."""
    spike = f" or {settings.spike_threshold:g} times the mean of the 32 before" if settings.spike_threshold else ""
    becomes = {
        "stop": "the run stops",
        "skip": "the step is left out",
        "rollback": f"the run goes back to its last state with {settings.rollback_factor:g} times the rate",
    }[settings.on_divergence]
    most = "" if settings.on_divergence == "stop" else f", at most {settings.divergence_limit} times"
    return f"where a loss is not finite{spike}, {becomes}{most}"


def _drawing_remarks(drawing: PriorDrawing | None) -> Iterator[str]:
    if drawing is not None and (missing := len(drawing.missing())):
        yield (
            f"Before the first step the model draws {missing} of {drawing.count} pictures of {drawing.prompt!r}; the "
            "duration is without that, and the memory without their latents."
        )


def _end_remarks(settings: TrainSettings, adapter: Adapter) -> Iterator[str]:
    if 0 < settings.last_step - adapter.step <= settings.early_stopping_patience * settings.validation_every:
        yield (
            f"The run is too short to end early: {settings.early_stopping_patience} measurements without progress, one "
            f"every {settings.validation_every} steps, come to all its steps."
        )
    if settings.last_step < settings.steps:
        yield (
            f"The learning rate's schedule ends at step {settings.last_step}, and the run with it, though steps is "
            f"{settings.steps}."
        )
    try:
        check_steps(settings, adapter)
    except AlreadyTrainedError as error:
        yield str(error)


def _mib(estimate: MemoryEstimate) -> dict[str, float]:
    weights = {f"weights of {part.replace('_', ' ')}": size for part, size in estimate.weights.items()}
    sizes = {
        "peak": estimate.peak,
        **estimate.phases,
        **weights,
        "trained numbers and optimizer": estimate.trained,
        "latents and prompts": estimate.data,
    }
    return {name: round(size / 2**20, 3 if size < 2**20 else 1) for name, size in sizes.items()}


def _process_mib(program: int, estimator: MemoryEstimator, settings: TrainSettings, workspace: Workspace) -> int:
    return round(process_bytes(program, estimator.estimate(settings), settings, workspace) / 2**20)


def _buckets(dataset: PictureDataset) -> list[dict[str, Any]]:
    """For each size in pixels: how many pictures have it, and what share of them is cut off on average."""
    samples = sorted((sample for sample in dataset if not sample.flip), key=lambda sample: sample.fit.size)
    grouped = [(size, list(group)) for size, group in itertools.groupby(samples, lambda sample: sample.fit.size)]
    return [
        {
            "size": f"{width}x{height}",
            "pictures": len(group),
            "cropped": round(sum(sample.fit.cropped for sample in group) / len(group), 4),
        }
        for (width, height), group in grouped
    ]
