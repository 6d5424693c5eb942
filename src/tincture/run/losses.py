"""From settings to what a step makes smaller, and that in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from tincture.adapters.adapter import Adapter
from tincture.errors import UsageError
from tincture.kinds.registry import PLACEHOLDER
from tincture.settings.groups.loss import BIASED, SCALED
from tincture.settings.groups.negative import USUAL_GUIDANCE
from tincture.settings.schedule import Schedule
from tincture.settings.train import TrainSettings
from tincture.training.guidance import Guidance
from tincture.training.loss import TrainingLoss
from tincture.training.noise import NoiseDraw
from tincture.training.timesteps import TimestepDraw
from tincture.training.vector_norms import TokenVectors, VectorNorms
from tincture.training.weighting import Debiased, MinSNR, TimestepWeighting

USUAL_SCALE, USUAL_GAMMA, USUAL_BIAS = 0.1, "5", 1.0
USUAL_LOGIT_MEAN, USUAL_LOGIT_STD = 0.0, 1.0


def training_loss(settings: TrainSettings) -> TrainingLoss:
    """Error, weights of timesteps, noise and timesteps as the settings have them."""
    return TrainingLoss(
        error=settings.loss,
        scale=_or(settings.loss_scale, USUAL_SCALE),
        weighting=_weighting(settings),
        noise=NoiseDraw(settings.offset_noise, settings.input_perturbation),
        timesteps=TimestepDraw(
            settings.timestep_distribution,
            settings.timestep_min,
            settings.timestep_max,
            bias=_or(settings.timestep_bias, USUAL_BIAS),
            mean=_or(settings.logit_mean, USUAL_LOGIT_MEAN),
            std=_or(settings.logit_std, USUAL_LOGIT_STD),
            steps=settings.last_step,
        ),
    )


def check_norms(settings: TrainSettings, adapter: Adapter) -> None:
    """UsageError when the settings want norms of vectors held, and none of the adapter's stand for tokens."""
    if (settings.norm_limit or settings.norm_weight) and not adapter.token_vectors():
        raise UsageError(
            f"No vectors of the {adapter.kind} {adapter.name!r} stand for tokens, so that there is nothing whose norms "
            "--norm-limit or --norm-weight could hold; leave them out."
        )


def vector_norms(
    settings: TrainSettings, adapter: Adapter, mean_norms: Callable[[], Mapping[str, float]]
) -> VectorNorms | None:
    """What holds the norms of the adapter's vectors as the settings have it; None: nothing does.

    Args:
        mean_norms: finds out those of the model's own tokens, by text encoder; asked only where they are needed.
    """
    if not (settings.norm_limit or settings.norm_weight):
        return None
    means = mean_norms()
    vectors = [TokenVectors(rows, means[encoder]) for encoder, rows in adapter.token_vectors()]
    texts = (settings.norm_limit, settings.norm_weight)
    return VectorNorms(vectors, *(Schedule.parse(text, settings.steps) if text else None for text in texts))


def guidance(settings: TrainSettings, name: str) -> Guidance | None:
    """What predictions are guided away from, if anything; ``name`` takes the place of [name]."""
    if not settings.negative_prompt:
        return None
    scale = Schedule.parse(settings.guidance_scale or USUAL_GUIDANCE, settings.steps)
    return Guidance(settings.negative_prompt.replace(PLACEHOLDER, name), scale)


def negative_prompts(settings: TrainSettings, name: str) -> list[str]:
    """The negative prompt, if there is one, as ``guidance`` has it."""
    found = guidance(settings, name)
    return [found.negative_prompt] if found else []


def _weighting(settings: TrainSettings) -> TimestepWeighting | None:
    match settings.timestep_weighting:
        case "min_snr":
            return MinSNR(Schedule.parse(_gamma(settings), settings.steps))
        case "debiased":
            return Debiased()
    return None


def _gamma(settings: TrainSettings) -> str:
    return settings.min_snr_gamma or USUAL_GAMMA


def _or(given: float | None, usual: float) -> float:
    return usual if given is None else given


def loss_words(settings: TrainSettings) -> str:
    """What is made smaller, for a person: "huber with the scale 0.1; offset noise 0.05"; "mse" with nothing chosen."""
    return "; ".join(_words(settings))


def _words(settings: TrainSettings) -> Iterator[str]:
    scale = f" with the scale {_or(settings.loss_scale, USUAL_SCALE):g}" if settings.loss in SCALED else ""
    yield f"{settings.loss}{scale}"
    if settings.timestep_weighting == "min_snr":
        yield f"timesteps weighed by min-SNR with gamma {_gamma(settings)}"
    if settings.timestep_weighting == "debiased":
        yield "timesteps weighed by debiased estimation"
    if settings.offset_noise:
        yield f"offset noise {settings.offset_noise:g}"
    if settings.input_perturbation:
        yield f"input perturbation {settings.input_perturbation:g}"
    yield from _timestep_words(settings)
    if settings.attention_mask_weight:
        yield f"attention held to masks, weight {settings.attention_mask_weight}"
    if settings.norm_limit:
        yield f"vectors at most {settings.norm_limit} times as long as tokens on average"
    if settings.norm_weight:
        yield f"lengths of vectors held to that of tokens on average, weight {settings.norm_weight}"
    if settings.negative_prompt:
        yield f"guided by {settings.guidance_scale or USUAL_GUIDANCE} away from {settings.negative_prompt!r}"


def _timestep_words(settings: TrainSettings) -> Iterator[str]:
    if settings.timestep_distribution != "uniform":
        bias = f" with the bias {_or(settings.timestep_bias, USUAL_BIAS):g}"
        mean, std = _or(settings.logit_mean, USUAL_LOGIT_MEAN), _or(settings.logit_std, USUAL_LOGIT_STD)
        of = {**dict.fromkeys(BIASED, bias), "logit_normal": f" with mean {mean:g} and spread {std:g}"}
        name = settings.timestep_distribution.replace("_", " ")
        yield f"timesteps {name}{of.get(settings.timestep_distribution, '')}"
    if (settings.timestep_min, settings.timestep_max) != (0, 1):
        yield f"timesteps from {settings.timestep_min:g} to {settings.timestep_max:g} of all"
