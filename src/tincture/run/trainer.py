"""From settings to the trainer of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from tincture.adapters.adapter import Adapter, AuxiliaryLoss
from tincture.data.batches import BatchPlan
from tincture.data.dataset import PictureDataset
from tincture.data.latents import LatentCache
from tincture.errors import UsageError
from tincture.events import Progressed
from tincture.models.diffusion_model import DiffusionModel
from tincture.processes.ranks import ALONE, Processes
from tincture.run.data import possible_prompts
from tincture.run.duration import PROMPTS
from tincture.run.losses import guidance, negative_prompts, training_loss, vector_norms
from tincture.settings.optimizers import USUAL, parse_arguments
from tincture.settings.schedule import Schedule
from tincture.settings.train import TrainSettings
from tincture.training.conditioning import Conditioning
from tincture.training.guard import Guard
from tincture.training.optimizer import ParameterGroup, create_optimizer
from tincture.training.step_data import Prior, TrainingData
from tincture.training.trainer import Clipping, Trainer
from tincture.training.vector_norms import VectorNorms

_PROMPT_MEMORY = 256 * 2**20
"""Bytes of encoded prompts that stay on the device: 1,100 prompts of Stable Diffusion 1, 400 of XL."""


def make_optimizer(settings: TrainSettings, adapter: Adapter) -> torch.optim.Optimizer:
    """The settings' optimizer over the adapter; UsageError when there is none such or it cannot train it."""
    rate = Schedule.parse(settings.learning_rate, settings.steps).at(adapter.step)
    arguments = parse_arguments(settings.optimizer_args)
    return create_optimizer(settings.optimizer or USUAL, parameter_groups(settings, adapter), rate, None, arguments)


def parameter_groups(settings: TrainSettings, adapter: Adapter) -> list[ParameterGroup]:
    """The parameters with what the settings give each part of them, member by member of adapters trained together.

    Biases and norms are parts of their own only where they have a weight decay of their own.

    Raises:
        UsageError: they have one, and none of the adapters has such weights.
    """
    apart = _decays_apart(settings, adapter)
    own = [(settings.learning_rate, settings.weight_decay)]
    given = own + [(other.rate, other.weight_decay) for other in settings.others]
    return [
        ParameterGroup(part, name, Schedule.parse(rate, settings.steps), weight_decay if decay is None else decay)
        for member, (rate, weight_decay) in zip(adapter.members(), given, strict=True)
        for name, parameters in member.parameter_groups().items()
        for decay, part in _parts(parameters, apart)
    ]


def _decays_apart(settings: TrainSettings, adapter: Adapter) -> dict[int, float]:
    """By the parameter's id, weight decays of biases and norms that have one of their own."""
    decays: dict[int, float] = {}
    for name, flag, decay in (
        ("bias", "--weight-decay-bias", settings.weight_decay_bias),
        ("norm", "--weight-decay-norm", settings.weight_decay_norm),
    ):
        found = [each for member in adapter.members() for each in member.biases_and_norms().get(name, ())]
        if decay is not None and not found:
            raise UsageError(
                f"{flag} is {decay:g}, but the {adapter.kind} {adapter.name!r} has no weights of that "
                "sort; leave it out."
            )
        decays |= {} if decay is None else {id(each): decay for each in found}
    return decays


def _parts(
    parameters: Sequence[nn.Parameter], decays: Mapping[int, float]
) -> Iterator[tuple[float | None, list[nn.Parameter]]]:
    """The parameters by weight decays of their own; first those without one."""
    for decay in dict.fromkeys((None, *decays.values())):
        part = [each for each in parameters if decays.get(id(each)) == decay]
        if part:
            yield decay, part


def make_trainer(
    settings: TrainSettings,
    model: DiffusionModel,
    adapter: Adapter,
    data: TrainingData,
    optimizer: torch.optim.Optimizer,
    *,
    known_prompts: Sequence[str] = (),
    auxiliary_loss: AuxiliaryLoss | None = None,
    prior: Prior | None = None,
    norms: VectorNorms | None = None,
    processes: Processes = ALONE,
) -> Trainer:
    """The trainer of a run that begins at the adapter's step.

    Args:
        known_prompts: see ``Conditioning``.
        auxiliary_loss: is added to the denoising loss.
        prior: is trained in each step too.
        norms: holds the norms of vectors that stand for tokens.
        processes: share every step out.
    """
    learning_rate = Schedule.parse(settings.learning_rate, settings.steps)
    rates = [group.learning_rate or learning_rate for group in parameter_groups(settings, adapter)]
    clipping = None
    if settings.clip_grad_mode != "none":
        clipping = Clipping(settings.clip_grad_mode, Schedule.parse(settings.clip_grad_value, settings.steps))
    trainer = Trainer(
        model,
        adapter,
        data,
        Conditioning(
            model,
            trains_text=adapter.trains_text,
            clip_skip=settings.clip_skip,
            capacity=prompts_in_memory(model),
            known=known_prompts,
        ),
        optimizer,
        learning_rate=learning_rate,
        group_rates=rates,
        # As in the webui, a schedule that ends earlier ends the run.
        steps=min(settings.steps, max(rate.end_step for rate in rates)),
        global_step=adapter.step,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        clipping=clipping,
        precision=settings.precision,
        seed=settings.seed,
        log_every=settings.log_every,
        loss=training_loss(settings),
        auxiliary_loss=auxiliary_loss,
        guidance=guidance(settings, adapter.word),
        prior=prior,
        vector_norms=norms,
        log_norms=settings.logs_norms,
        guard=Guard(
            settings.on_divergence,
            divergence_limit=settings.divergence_limit,
            rollback_factor=settings.rollback_factor,
            spike_threshold=settings.spike_threshold,
            overflow_limit=settings.overflow_limit,
        ),
        processes=processes,
    )
    trainer.conditioning.on_progress = lambda done, total: trainer.emit(Progressed(PROMPTS, done, total))
    return trainer


def make_sample_trainer(
    settings: TrainSettings,
    model: DiffusionModel,
    adapter: Adapter,
    latents: LatentCache,
    prompts: Sequence[str],
    size: tuple[int, int],
) -> Trainer:
    """A trainer whose steps have the shapes of a run's, to see what such a step takes.

    Args:
        latents: make up a micro-batch, all of them of one size.
        prompts: one for each.
        size: width and height of their pictures in pixels.
    """
    count, (width, height), stride = len(latents), size, model.vae_scale_factor
    weight = torch.ones(1, height // stride, width // stride, device=latents.means[0].device)
    data = TrainingData(
        plan=BatchPlan([size] * count, count, settings.seed),
        latents=latents,
        prompt=lambda index, global_step, slot: prompts[index],
        latent_sampling_method=settings.latent_sampling_method,
        weights=[weight] * count if settings.use_weight else None,
        time_ids=[model.time_ids(size, (0, 0), size).to(weight.device)] * count if model.family.knows_sizes else None,
    )
    auxiliary = adapter.auxiliary_loss(settings.to_dict(), model, lambda: [weight[0]] * count)
    # it takes as long as the others, without their weights, and always counts
    prior = Prior(dataclasses.replace(data, weights=None), Schedule.parse(1, 1)) if settings.has_prior else None
    norms = vector_norms(settings, adapter, lambda: dict.fromkeys(model.text.widths, 1.0))
    optimizer = make_optimizer(settings, adapter)
    return make_trainer(settings, model, adapter, data, optimizer, auxiliary_loss=auxiliary, prior=prior, norms=norms)


def known_prompts(
    settings: TrainSettings,
    model: DiffusionModel,
    adapter: Adapter,
    dataset: PictureDataset,
    lines: list[str],
    further: Sequence[str] = (),
) -> list[str]:
    """The prompts to encode before the first step, so that the text encoders can leave the device; none if they can't.

    They can't where the text side is trained, and where there are more prompts than stay on the device.

    Args:
        further: prompts that are used beside those of the data set.
    """
    if not settings.offload or adapter.trains_text:
        return []
    prompts = possible_prompts(settings, adapter.word, dataset, lines)
    if prompts is None:
        return []
    known = list(dict.fromkeys([*prompts, *further, *negative_prompts(settings, adapter.word)]))
    return known if len(known) < prompts_in_memory(model) else []


def prompts_in_memory(model: DiffusionModel) -> int:
    """How many encoded prompts, as short as the empty one, stay on the device."""
    return _PROMPT_MEMORY // model.bytes_of_prompt()
