from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from tests.support import SCHEDULER, tiny_model
from tests.toy_family import Flow
from tincture.models.noise_process import Diffusion, NoiseProcess
from tincture.settings.schedule import Schedule
from tincture.training.loss import TrainingLoss
from tincture.training.weighting import Debiased, MinSNR, TimestepWeighting

V = {"prediction_type": "v_prediction"}
ZERO = {"rescale_betas_zero_snr": True}
ALL = torch.arange(1000)


def process(**config: object) -> Diffusion:
    return Diffusion(DDPMScheduler(**{**SCHEDULER, **config}))


def snr_of(config: dict[str, object]) -> np.ndarray:
    """From the betas, in float64, without the model's scheduler."""
    first, last = (float(str(SCHEDULER[name])) ** 0.5 for name in ("beta_start", "beta_end"))
    kept = np.cumprod(1 - np.linspace(first, last, 1000) ** 2)
    if "rescale_betas_zero_snr" in config:  # Lin et al. 2023, algorithm 1
        root = np.sqrt(kept)
        kept = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    with np.errstate(divide="ignore"):
        return np.asarray(kept / (1 - kept))


def expected(kind: str, snr: np.ndarray, is_v: bool, gamma: float) -> np.ndarray:
    """The formulas as papers and other trainers have them, one for each kind of model."""
    if kind == "min_snr":
        with np.errstate(divide="ignore"):
            of_noise = np.minimum(1.0, gamma / snr)
        return np.asarray(np.minimum(snr, gamma) / (snr + 1) if is_v else of_noise)
    snr = np.clip(snr, 1e-3, 1e3)
    return np.asarray(np.sqrt(snr) / (snr + 1) if is_v else 1 / np.sqrt(snr))


@pytest.mark.parametrize("config", [{}, V, ZERO, {**V, **ZERO}], ids=str)
@pytest.mark.parametrize(
    ("kind", "weighting"),
    [("min_snr", MinSNR(Schedule.parse("5", 100))), ("debiased", Debiased())],
    ids=["min_snr", "debiased"],
)
def test_weights_are_those_of_the_papers_for_each_kind_of_model(
    kind: str, weighting: TimestepWeighting, config: dict[str, object]
) -> None:
    found = weighting.weights(process(**config), ALL, 0)
    assert found.dtype == torch.float32
    wanted = expected(kind, snr_of(config), config.get("prediction_type") == "v_prediction", 5.0)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=2e-3, atol=1e-7)
    assert wanted.std() > 0.01  # it is no constant


def test_pure_noise_has_a_finite_weight() -> None:
    """The last timestep of these models has an SNR of 0."""
    last = torch.tensor([999])
    assert process(**ZERO).snr(last).item() == 0
    for weighting, of_noise in ((MinSNR(Schedule.parse("5", 1)), 1.0), (Debiased(), math.sqrt(1000))):
        assert weighting.weights(process(**ZERO), last, 0).item() == pytest.approx(of_noise, rel=1e-4)
        assert 0 <= weighting.weights(process(**ZERO, **V), last, 0).item() < 0.05


def test_min_snr_weighs_one_error_of_the_clean_latents_alike_whatever_is_predicted() -> None:
    """A model of noise, one of v and one of another process that are as wrong about the picture have one loss."""
    latents, wrong = torch.randn(2, 1, 4, 3, 3, generator=torch.Generator().manual_seed(3)).unbind()
    noise = torch.randn(1, 4, 3, 3, generator=torch.Generator().manual_seed(4))
    loss = TrainingLoss(weighting=MinSNR(Schedule.parse("5", 1)))
    flow = Flow()
    flow.loss_weights = lambda timesteps: None  # type: ignore[assignment,method-assign,return-value]

    def value(of: NoiseProcess, at: torch.Tensor, kept: float, spread: float) -> float:
        noisy = kept * latents + spread * noise
        seen = latents + wrong  # what the model takes for the picture
        predicted = of.target(seen, (noisy - kept * seen) / spread, at)
        return loss.errors(lambda *_: predicted, of, latents, noise, at).mean().item()

    timestep = torch.tensor([600])
    kept = float(process().scheduler.alphas_cumprod[600])
    share = (1 - kept) ** 0.5 / (kept**0.5 + (1 - kept) ** 0.5)  # the point of the straight line with this SNR
    of_clean = min(kept / (1 - kept), 5) * wrong.square().mean().item()
    for model in (process(), process(**V)):
        assert value(model, timestep, kept**0.5, (1 - kept) ** 0.5) == pytest.approx(of_clean, rel=1e-3)
    assert value(flow, torch.tensor([share]), 1 - share, share) == pytest.approx(of_clean, rel=1e-3)


def test_gamma_may_follow_a_schedule() -> None:
    weighting, at = MinSNR(Schedule.parse("5:10, 1", 20)), torch.tensor([10])
    early, late = (weighting.weights(process(), at, step).item() for step in (9, 10))
    assert early == pytest.approx(5 * late)


def test_weights_of_timesteps_come_on_top_of_those_of_the_process_and_of_masks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = tiny_model().noise_process
    monkeypatch.setattr(own, "loss_weights", lambda timesteps: timesteps.float() / 100)
    generator = torch.Generator().manual_seed(1)
    latents, noise, prediction = (torch.randn(2, 4, 3, 3, generator=generator) for _ in range(3))
    cells, at = torch.rand(2, 1, 3, 3, generator=generator), torch.tensor([100, 300])
    loss = TrainingLoss("l1", weighting=Debiased())
    found = loss.errors(lambda *_: prediction, own, latents, noise, at, cells)
    of_timesteps = Debiased().weights(own, at, 0) * torch.tensor([1.0, 3.0])
    torch.testing.assert_close(found, (prediction - noise).abs() * of_timesteps[:, None, None, None] * cells)
