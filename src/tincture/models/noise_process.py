"""How noise comes into latents, and what a denoiser learns to see in them: all that knows what a timestep is.

A family with another process, such as flow matching, brings another ``NoiseProcess``; the trainer, the loss and the
sampling loop hand timesteps on without looking at them.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Protocol

import diffusers
import torch
from torch import Tensor

from tincture import randomness
from tincture.errors import UsageError
from tincture.models.samplers import SAMPLERS, require_sampler


class NoiseProcess(Protocol):
    """What training and sampling ask. Latents, noise and targets are (B, channels, h, w) float32.

    Timesteps are a tensor (B,) of the process's own: of any dtype and range, made by ``draw_timesteps`` and understood
    by the denoiser of the same model.
    """

    @property
    def predicts(self) -> str:
        """What the denoiser predicts, in words: "noise"."""
        ...

    def draw_timesteps(self, seed: int, global_step: int, slots: Sequence[int]) -> Tensor:
        """Of the samples ``slots`` of a step, on the CPU: each a function of seed, step and slot alone."""
        ...

    def timesteps_at(self, shares: Sequence[float]) -> Tensor:
        """(B,) on the CPU: the timesteps below which these shares, 0 up to 1, of all that are drawn lie.

        Shares that are spread evenly stand for what ``draw_timesteps`` gives in the long run.
        """
        ...

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The noisy latents that the denoiser is given."""
        ...

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the denoiser should answer."""
        ...

    def loss_weights(self, timesteps: Tensor) -> Tensor | None:
        """(B,) float32, how much the error at each timestep counts; None where all count alike."""
        ...

    def snr(self, timesteps: Tensor) -> Tensor:
        """(B,) float32, the ratio of signal to noise at each timestep: 0 where there is noise alone."""
        ...

    def error_scale(self, snr: Tensor) -> Tensor:
        """How large the squared error of what is predicted is, where that of the clean latents in it would be 1.

        Args:
            snr: of the timesteps, (B,) float32, above 0.
        """
        ...

    def make_scheduler(self, sampler: str) -> Any:
        """A fresh sampler, used as diffusers' schedulers are.

        That is ``set_timesteps(steps, device=)``, ``timesteps``, ``init_noise_sigma``, ``scale_model_input`` and
        ``step``.

        Raises:
            UsageError: there is no sampler of that name, or it cannot be used with the model.
        """
        ...


class Diffusion:
    """Stable Diffusion's process: 1000 levels of noise (Ho et al. 2020), of which each is drawn equally often.

    Args:
        scheduler: diffusers' DDPMScheduler with the model's own betas and prediction type, ``epsilon`` or
            ``v_prediction``. Timesteps are int64 in 0..999.
    """

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler

    @property
    def predicts_v(self) -> bool:
        """Whether the denoiser predicts v (Salimans and Ho 2022, section 4) and not the noise."""
        return bool(self.scheduler.config.prediction_type == "v_prediction")

    @property
    def zero_terminal_snr(self) -> bool:
        """Whether the last timestep is pure noise."""
        return bool(self.scheduler.config.get("rescale_betas_zero_snr"))

    @property
    def predicts(self) -> str:
        """In words: "v with zero terminal SNR"."""
        return f"{'v' if self.predicts_v else 'noise'}{' with zero terminal SNR' if self.zero_terminal_snr else ''}"

    def draw_timesteps(self, seed: int, global_step: int, slots: Sequence[int]) -> Tensor:
        """(B,) int64, every timestep equally likely."""
        count = self.scheduler.config.num_train_timesteps
        drawn = (randomness.generator(seed, "timestep", global_step, slot).integers(count) for slot in slots)
        return torch.tensor([int(timestep) for timestep in drawn])

    def timesteps_at(self, shares: Sequence[float]) -> Tensor:
        """(B,) int64."""
        count = self.scheduler.config.num_train_timesteps
        return torch.tensor([min(int(share * count), count - 1) for share in shares])

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Ho et al. 2020, equation 4."""
        noisy: Tensor = self.scheduler.add_noise(latents, noise, timesteps)
        return noisy

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The noise, or v."""
        if not self.predicts_v:
            return noise
        velocity: Tensor = self.scheduler.get_velocity(latents, noise, timesteps)
        return velocity

    def loss_weights(self, timesteps: Tensor) -> None:
        """All timesteps count alike (Ho et al. 2020, equation 14)."""
        return None

    def snr(self, timesteps: Tensor) -> Tensor:
        """The part of the latents' variance that is kept, by that of the noise (Kingma et al. 2021, section 3.1)."""
        signal: Tensor = self.scheduler.alphas_cumprod.to(timesteps.device)[timesteps].float()
        return signal / (1 - signal)

    def error_scale(self, snr: Tensor) -> Tensor:
        """SNR for the noise, SNR + 1 for v (Salimans and Ho 2022, section 4)."""
        return snr + 1 if self.predicts_v else snr

    def make_scheduler(self, sampler: str) -> Any:
        """A fresh scheduler of diffusers for ``sampler``, with the model's betas and prediction type.

        Raises:
            UsageError: an unknown sampler, or one that cannot begin at pure noise for a model that was taught to.
        """
        require_sampler(sampler)
        name, overrides = SAMPLERS[sampler]
        kind = getattr(diffusers, name)
        if self.zero_terminal_snr:
            if "rescale_betas_zero_snr" not in inspect.signature(kind.__init__).parameters:
                raise UsageError(
                    f"The sampler {sampler!r} cannot begin at pure noise, as this model (zero terminal SNR) needs it; "
                    "use Euler, Euler a, DPM++ 2M, DDIM, UniPC or LCM."
                )
            # Lin et al. 2023, arXiv:2305.08891, section 3.3: the first step must be the last timestep.
            overrides = {**overrides, "timestep_spacing": "trailing"}
        # Latents are not bound to -1..1, so no predicted sample may be clipped, whatever a class's default says.
        return kind.from_config(self.scheduler.config, clip_sample=False, **overrides)
