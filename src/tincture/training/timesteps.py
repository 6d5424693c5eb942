"""Which timesteps a run trains: from the noise process's own draw to shares of its range that come more often.

A share, from 0 (hardly any noise) up to 1 (pure noise), says below which part of all that the noise process draws a
timestep lies; of a diffusion model with 1000 timesteps 0.25 is timestep 250.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from tincture import randomness
from tincture.models.noise_process import NoiseProcess

Distribution = Literal["uniform", "early", "late", "late_curriculum", "growing_range", "logit_normal"]
"""How shares are spread; what each means stands in ``TimestepDraw``."""
_LARGEST_SHARE = math.nextafter(1.0, 0.0)


@dataclass(frozen=True)
class TimestepDraw:
    """Draws the timesteps of a step: each a function of seed, step and slot alone.

    Attributes:
        distribution: of the shares, where v is one within the range:
            ``uniform``: all alike; with the whole range, the noise process's own draw, bit for bit;
            ``early`` and ``late``: with a density that falls, or rises, along a line: 1 - bias (2 v - 1), and
            1 + bias (2 v - 1);
            ``late_curriculum``: late, with a bias that grows from step to step, from 1 / steps to 1;
            ``growing_range``: alike in a range that grows from step to step, from 1 / steps of it to the whole (as the
            training scheduler of the webui's extension Hypernetwork-MonkeyPatch-Extension, 2023);
            ``logit_normal``: the sigmoid of a normal number (Esser et al. 2024, arXiv:2403.03206, section 3.1).
        minimum, maximum: the range of shares, 0 <= minimum < maximum <= 1.
        bias: of ``early`` and ``late``, from 0 (none) to 1 (no timestep at the far end).
        mean, std: of the normal number.
        steps: of the whole run.
    """

    distribution: Distribution = "uniform"
    minimum: float = 0.0
    maximum: float = 1.0
    bias: float = 1.0
    mean: float = 0.0
    std: float = 1.0
    steps: int = 1

    def draw(self, process: NoiseProcess, seed: int, global_step: int, slots: Sequence[int]) -> Tensor:
        """(B,), on the CPU, as ``process`` has timesteps."""
        if self.distribution == "uniform" and (self.minimum, self.maximum) == (0, 1):
            return process.draw_timesteps(seed, global_step, slots)
        return process.timesteps_at([self.share(seed, global_step, slot) for slot in slots])

    def share(self, seed: int, global_step: int, slot: int) -> float:
        """Of one sample, at least ``minimum`` and below ``maximum``."""
        within = self._within(randomness.generator(seed, "timestep", global_step, slot), global_step)
        return min(self.minimum + (self.maximum - self.minimum) * within, _LARGEST_SHARE)

    def _within(self, rng: np.random.Generator, global_step: int) -> float:
        """Where in the range, from 0 to 1."""
        if self.distribution == "logit_normal":
            return 1 / (1 + math.exp(-(self.mean + self.std * float(rng.standard_normal()))))
        even, done = float(rng.random()), min(1.0, (global_step + 1) / self.steps)
        match self.distribution:
            case "early":
                return 1 - _later(1 - even, self.bias)
            case "late":
                return _later(even, self.bias)
            case "late_curriculum":
                return _later(even, done)
            case "growing_range":
                return even * done
        return even


OWN = TimestepDraw()
"""What the noise process draws by itself."""


def _later(even: float, bias: float) -> float:
    """The number below which a part ``even`` of the density 1 + bias (2 v - 1) lies: the inverse of v + bias (v - 1) v.

    Written so that it is exact for a bias near 0 too.
    """
    rest = 1 - bias
    root = math.sqrt(rest * rest + 4 * bias * even)
    return 2 * even / (rest + root) if rest + root else 0.0
