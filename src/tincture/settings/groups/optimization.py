"""The steps: how many, how large, at which rate and by which optimizer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tincture.kinds.registry import AdapterKind, find_kind, for_each
from tincture.randomness import LARGEST_REQUESTED_SEED
from tincture.settings.checks import at_least, filled
from tincture.settings.companions import WITH, sound_companions
from tincture.settings.drawing import Drawing
from tincture.settings.fields import CheckedSettings, same_as, setting
from tincture.settings.optimizers import EXAMPLE, ONE_RATE, arguments_faults, known_name, usual_rate
from tincture.settings.schedule import USUAL_STEPS, Schedule, schedule_fault, schedule_faults

GROUP = "Optimization"
DECAYS_APART = ("weight_decay_bias", "weight_decay_norm")
"""Settings of weight decays for parts of an adapter."""


def _usual_weight_decay(kind: AdapterKind) -> str:
    return "the optimizer's own" if kind.weight_decay is None else f"{kind.weight_decay:g}"


@dataclass(frozen=True, kw_only=True)
class OptimizationSettings(CheckedSettings):
    """How the weights are changed."""

    steps: int = setting(
        1000, GROUP, "Optimizer steps in all, those of earlier runs included.", at_least(1), largest=10**7
    )
    learning_rate: str = setting(
        "",
        GROUP,
        lambda: (
            "Rate, or schedule such as '0.005:100, 1e-3' or '0 -> 0.005:10%, 0.005 -> 1e-5 cosine'; empty: "
            f"{for_each(lambda kind: kind.learning_rate)} with AdamW, what is usual with others."
        ),
        schedule=True,
        largest=2000,
    )
    batch_size: int = setting(1, GROUP, "Pictures in a micro-batch.", at_least(1), largest=1024)
    gradient_accumulation_steps: int = setting(
        1, GROUP, "Micro-batches whose gradients make up one step.", at_least(1), largest=10**4
    )
    optimizer: str = setting(
        "",
        GROUP,
        "Name of an optimizer of torch.optim or pytorch-optimizer, such as Prodigy; empty: that whose state lies "
        "beside the adapter's file, or AdamW.",
        strip=True,
        largest=100,
    )
    optimizer_args: str = setting(
        "", GROUP, f"Further arguments of the optimizer, such as '{EXAMPLE}'.", strip=True, largest=1000
    )
    weight_decay: float | None = setting(
        None, GROUP, lambda: f"Weight decay; not given: {for_each(_usual_weight_decay)}.", at_least(0)
    )
    weight_decay_bias: float | None = setting(
        None, GROUP, "Weight decay of a hypernetwork's biases, such as 0; not given: as of all.", at_least(0)
    )
    weight_decay_norm: float | None = setting(
        None, GROUP, "Weight decay of a hypernetwork's layer norms, such as 0; not given: as of all.", at_least(0)
    )
    clip_grad_mode: Literal["none", "value", "norm"] = setting("none", GROUP, "How gradients are clipped.")
    clip_grad_value: str = setting(
        "0.1", GROUP, "Clipping threshold, or its schedule 'value:step, value'.", filled, schedule=True, largest=2000
    )
    clip_skip: int = same_as(Drawing, "clip_skip", group=GROUP)
    seed: int = setting(
        0,
        GROUP,
        "Every random draw of the run depends on this number.",
        at_least(0),
        largest=LARGEST_REQUESTED_SEED,
    )

    @classmethod
    def faults_between(cls, values: Mapping[str, Any], faulty: Collection[str]) -> list[str]:
        faults = schedule_faults(values, faulty, ("learning_rate", "clip_grad_value"))
        arguments = values.get("optimizer_args", "")
        decays = [name for name in ("weight_decay", *DECAYS_APART) if values.get(name) is not None]
        faults += arguments_faults(arguments, decays) if arguments else []
        return [*faults, *_rate_faults(values, faults)]


def _rate_faults(values: Mapping[str, Any], faults: Sequence[str]) -> list[str]:
    """Optimizers that take one rate for all need the same for all that is trained together."""
    optimizer = known_name(values.get("optimizer", ""))
    others = sound_companions(values)
    if optimizer not in ONE_RATE or not others or faults or "kind" not in values:
        return []
    own = values.get("learning_rate") or usual_rate(optimizer, find_kind(values["kind"]).learning_rate)
    rates = {own, *(str(other.resolved(optimizer).learning_rate) for other in others)}
    steps = values.get("steps", USUAL_STEPS)
    if any(schedule_fault(rate, values) for rate in rates) or len({Schedule.parse(r, steps) for r in rates}) == 1:
        return []
    return [
        f"optimizer is {optimizer!r}, which takes one learning rate for all that is trained together, but {WITH} and "
        "learning_rate give several; give all the same, or choose another optimizer"
    ]
