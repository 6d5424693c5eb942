"""What a step makes smaller: which error, how much of it counts, and at which noise and timesteps it is taken."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tincture.settings.checks import Bounds, part, share
from tincture.settings.fields import CheckedSettings, setting
from tincture.settings.optimizers import averages_by_itself
from tincture.settings.schedule import Schedule, schedule_fault, schedule_faults, weight_faults, weight_text

GROUP = "Loss and noise"
SCALED = ("huber", "smooth_l1")
"""Losses with a scale."""
ANY_STEPS = 10**12
"""No phase of a schedule lies beyond, so that all are seen."""
BIASED = ("early", "late")
"""Distributions with a bias."""

# (setting, its default, the setting that it belongs to with its default, values of that, what it says without)
_BELONGING: tuple[tuple[str, Any, str, str, tuple[str, ...], str], ...] = (
    ("loss_scale", None, "loss", "mse", SCALED, "has no scale"),
    ("min_snr_gamma", "", "timestep_weighting", "none", ("min_snr",), "has no gamma"),
    ("timestep_bias", None, "timestep_distribution", "uniform", BIASED, "has no bias that could be given"),
    ("logit_mean", None, "timestep_distribution", "uniform", ("logit_normal",), "has no mean"),
    ("logit_std", None, "timestep_distribution", "uniform", ("logit_normal",), "has no spread that could be given"),
)

_ABOVE_0 = (("min_snr_gamma", "5"), ("norm_limit", "2"))
"""Schedules whose values divide something, or would leave nothing, with a usual value."""


@dataclass(frozen=True, kw_only=True)
class LossSettings(CheckedSettings):
    """Errors, weights of timesteps, noise and timesteps."""

    loss: Literal["mse", "l1", "huber", "smooth_l1"] = setting(
        "mse",
        GROUP,
        "Error of a prediction: squared, absolute, or squared up to a scale and absolute beyond (huber; smooth_l1 is "
        "that divided by the scale).",
    )
    loss_scale: float | None = setting(
        None,
        GROUP,
        "Up to which difference huber and smooth_l1 are squared; not given: 0.1.",
        Bounds("at least 0.000001", 1e-6),
    )
    timestep_weighting: Literal["none", "min_snr", "debiased"] = setting(
        "none",
        GROUP,
        "How much the error at a timestep counts by its ratio of signal to noise: all alike, min(SNR, gamma) / SNR "
        "(min_snr) or 1 / sqrt(SNR) (debiased), or what corresponds where a model predicts v.",
    )
    min_snr_gamma: str = setting(
        "", GROUP, "Gamma of min_snr, or its schedule; empty: 5.", number=True, schedule=True, largest=2000
    )
    offset_noise: float = setting(
        0.0, GROUP, "Noise added to whole channels of a picture's latents, to learn brightness and colour.", part
    )
    input_perturbation: float = setting(
        0.0, GROUP, "Second noise in what the model sees, which it is not asked to find.", part
    )
    timestep_distribution: Literal["uniform", "early", "late", "late_curriculum", "growing_range", "logit_normal"] = (
        setting(
            "uniform",
            GROUP,
            "Which timesteps come more often: none, those of little noise (early) or of much (late), late ones the "
            "more the longer the run goes on (late_curriculum), none in a range that grows from no noise up "
            "(growing_range), those in the middle (logit_normal).",
        )
    )
    timestep_bias: float | None = setting(
        None, GROUP, "How much more often early or late timesteps come, from 0 to 1; not given: 1.", part
    )
    logit_mean: float | None = setting(
        None,
        GROUP,
        "Mean of logit_normal: above 0 more noise, below less; not given: 0.",
        Bounds("at least -10 and at most 10", -10, 10),
    )
    logit_std: float | None = setting(
        None, GROUP, "Spread of logit_normal; not given: 1.", Bounds("at least 0.01 and at most 10", 0.01, 10)
    )
    timestep_min: float = setting(
        0.0, GROUP, "Least noise that is trained: a part of all timesteps, 0.2 of 1000 being timestep 200.", share
    )
    timestep_max: float = setting(
        1.0,
        GROUP,
        "Most noise that is trained: a part of all timesteps.",
        Bounds("above 0 and at most 1", 1e-6, 1),
    )

    norm_limit: str = setting(
        "",
        GROUP,
        "Longest that an embedding's vectors may become, as a multiple of the mean norm of the model's own tokens, or "
        "its schedule; empty: no limit.",
        schedule=True,
        largest=2000,
    )
    norm_weight: str = setting(
        "",
        GROUP,
        "Weight of a loss that draws the norms of an embedding's vectors to that mean, or its schedule; empty: none.",
        schedule=True,
        largest=2000,
        meaning=weight_text,
    )

    @classmethod
    def faults_between(cls, values: Mapping[str, Any], faulty: Collection[str]) -> list[str]:
        faults = schedule_faults(values, faulty, ("min_snr_gamma", "norm_limit"))
        faults += weight_faults(values, faulty, "norm_weight", "so that it would never count; leave it out")
        for name, default, owner, usual, having, lacks in _BELONGING:
            given, chosen = values.get(name, default), values.get(owner, usual)
            if given != default and owner not in faulty and chosen not in having:
                faults.append(
                    f"{name} is {given!r}, but {owner} is {chosen!r}, which {lacks}; leave it out, or choose "
                    f"{' or '.join(having)}"
                )
        for name, usual in _ABOVE_0:
            text = "" if name in faulty else values.get(name)
            phases = Schedule.parse(text, ANY_STEPS).phases if text and not schedule_fault(text, {}) else ()
            if any(0 in (phase.rate, phase.goal) for phase in phases):
                faults.append(f"{name} is {text!r}, but must be above 0 in every step; a usual one is {usual}")
        optimizer = values.get("optimizer", "")
        if values.get("norm_limit") and "optimizer" not in faulty and averages_by_itself(optimizer):
            faults.append(
                f"norm_limit is {values['norm_limit']!r}, but {optimizer} keeps averages of its own that would stay "
                "longer; leave one out, or give norm_weight"
            )
        least, most = values.get("timestep_min", 0.0), values.get("timestep_max", 1.0)
        if least >= most and not {"timestep_min", "timestep_max"} & set(faulty):
            faults.append(f"timestep_min is {least:g}, but must be below timestep_max, {most:g}: no timestep is left")
        return faults
