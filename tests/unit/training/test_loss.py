from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.support import tiny_model
from tincture.training.loss import PLAIN, TrainingLoss


def drawn(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 4, 3, 3, generator=generator) for _ in range(count)]


def test_noise_is_added_by_the_schedule_and_the_error_squared() -> None:
    model = tiny_model()
    scheduler = model.noise_scheduler
    latents, noise, prediction = drawn(3)
    timesteps = torch.tensor([10, 900])
    seen: list[Tensor] = []

    def predict(noisy: Tensor, at: Tensor) -> Tensor:
        seen.append(noisy)
        return prediction

    loss = PLAIN.errors(predict, model.noise_process, latents, noise, timesteps).mean()
    kept = scheduler.alphas_cumprod[timesteps].view(2, 1, 1, 1)
    torch.testing.assert_close(seen[0], kept.sqrt() * latents + (1 - kept).sqrt() * noise)
    torch.testing.assert_close(loss, ((prediction - noise) ** 2).mean())


def test_v_prediction_aims_at_v() -> None:
    model = tiny_model(prediction_type="v_prediction")
    scheduler = model.noise_scheduler
    latents, noise = drawn(2)
    timesteps = torch.tensor([10, 900])
    kept = scheduler.alphas_cumprod[timesteps].view(2, 1, 1, 1)
    v = kept.sqrt() * noise - (1 - kept).sqrt() * latents
    loss = PLAIN.errors(lambda noisy, at: v, model.noise_process, latents, noise, timesteps).mean()
    assert loss.item() == pytest.approx(0, abs=1e-12)


def test_weights_count_per_cell() -> None:
    process = tiny_model().noise_process
    latents, noise, prediction = drawn(3)
    weights = torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(2))
    loss = PLAIN.errors(lambda *_: prediction, process, latents, noise, torch.tensor([1, 2]), weights).mean()
    torch.testing.assert_close(loss, ((prediction - noise) ** 2 * weights).mean())


def test_a_process_may_weigh_timesteps_beside_the_weights_of_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    process = tiny_model().noise_process
    monkeypatch.setattr(process, "loss_weights", lambda timesteps: timesteps.float() / 100)
    latents, noise, prediction = drawn(3)
    cells = torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(2))
    timesteps = torch.tensor([100, 300])
    errors = (prediction - noise) ** 2 * torch.tensor([1.0, 3.0])[:, None, None, None]
    for weights, expected in ((None, errors.mean()), (cells, (errors * cells).mean())):
        loss = PLAIN.errors(lambda *_: prediction, process, latents, noise, timesteps, weights).mean()
        torch.testing.assert_close(loss, expected)


def test_the_error_is_taken_in_float32() -> None:
    """A difference of 300 squared is beyond float16."""
    process = tiny_model().noise_process
    latents, noise = drawn(2)
    far = torch.full_like(noise, 300.0).half()
    loss = PLAIN.errors(lambda *_: far, process, latents, noise, torch.tensor([1, 2])).mean()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, ((300 - noise) ** 2).mean())


def plain_error(name: str, difference: float, scale: float) -> float:
    size = abs(difference)
    if name == "l1":
        return size
    huber = size**2 / 2 if size <= scale else scale * (size - scale / 2)
    return {"mse": size**2, "huber": huber, "smooth_l1": huber / scale}[name]


@pytest.mark.parametrize("scale", [0.1, 2.0])
@pytest.mark.parametrize("name", ["mse", "l1", "huber", "smooth_l1"])
def test_errors_are_what_their_names_say(name: str, scale: float) -> None:
    process = tiny_model().noise_process
    latents, noise, prediction = drawn(3)
    weights = torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(2))
    at = torch.tensor([1, 2])
    errors = TrainingLoss(name, scale).errors(lambda *_: prediction, process, latents, noise, at, weights)
    differences = (prediction.double() - noise.double()).flatten().tolist()
    assert min(map(abs, differences)) < 0.1 and max(map(abs, differences)) > 2
    expected = torch.tensor([plain_error(name, difference, scale) for difference in differences])
    torch.testing.assert_close(errors, expected.view_as(errors).float() * weights)
