"""How much the error at each timestep counts, by its ratio of signal to noise.

Both weightings are of the error of the clean latents, which the noise process turns into that of what its denoiser
predicts. So one formula holds for models of noise and of v, and stays finite where a timestep is pure noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from tincture.models.noise_process import NoiseProcess
from tincture.settings.schedule import Schedule

_LEAST_SNR, _MOST_SNR = 1e-8, 1e8
"""What keeps the quotients finite at pure noise and without noise; no other timestep of a model lies beyond."""
_MOST_DEBIASED = 1e3
"""Of the ratio and of its inverse: weights of errors of the noise stay within 1/31.6 and 31.6."""


class TimestepWeighting(Protocol):
    """Weights of timesteps, which those of the noise process itself and of masks come on top of."""

    def weights(self, process: NoiseProcess, timesteps: Tensor, global_step: int) -> Tensor:
        """(B,) float32, at least 0, on the device of ``timesteps``, in the step from ``global_step`` on."""
        ...


@dataclass(frozen=True)
class MinSNR:
    """min(SNR, gamma) of the clean latents' error (Hang et al. 2023, arXiv:2303.09556).

    Of errors of the noise that is min(SNR, gamma) / SNR, of errors of v min(SNR, gamma) / (SNR + 1).
    """

    gamma: Schedule

    def weights(self, process: NoiseProcess, timesteps: Tensor, global_step: int) -> Tensor:
        """See ``TimestepWeighting``."""
        snr = process.snr(timesteps).clamp(_LEAST_SNR, _MOST_SNR)
        return snr.clamp(max=self.gamma.at(global_step)) / process.error_scale(snr)


@dataclass(frozen=True)
class Debiased:
    """sqrt(SNR) of the clean latents' error (Yu et al. 2023, arXiv:2310.08442).

    Of errors of the noise that is 1 / sqrt(SNR), of errors of v sqrt(SNR) / (SNR + 1). An SNR beyond 1/1000 and 1000
    counts as these.
    """

    def weights(self, process: NoiseProcess, timesteps: Tensor, global_step: int) -> Tensor:
        """See ``TimestepWeighting``."""
        snr = process.snr(timesteps).clamp(1 / _MOST_DEBIASED, _MOST_DEBIASED)
        return snr.sqrt() / process.error_scale(snr)
