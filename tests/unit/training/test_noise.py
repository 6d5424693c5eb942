from __future__ import annotations

import torch

from tests.support import tiny_model
from tincture import randomness
from tincture.training.loss import TrainingLoss
from tincture.training.noise import NoiseDraw

SHAPE = (4, 6, 5)


def stacked(purpose: str, shape: tuple[int, ...], slots: range) -> torch.Tensor:
    return torch.stack([randomness.normal(shape, 5, purpose, 7, slot) for slot in slots])


def test_plain_noise_is_that_of_ever() -> None:
    noise, of_input = NoiseDraw().draw(SHAPE, 5, 7, range(2, 5))
    assert torch.equal(noise, stacked("noise", SHAPE, range(2, 5)))
    assert of_input is noise


def test_offset_noise_moves_whole_channels_of_each_sample() -> None:
    plain, _ = NoiseDraw().draw(SHAPE, 5, 7, range(40))
    noise, of_input = NoiseDraw(offset=0.25).draw(SHAPE, 5, 7, range(40))
    assert of_input is noise
    moved = noise - plain
    torch.testing.assert_close(moved, moved.mean(dim=(2, 3), keepdim=True).expand_as(moved), atol=1e-6, rtol=0)
    each = moved.mean(dim=(2, 3)).flatten()
    assert len(set(each.tolist())) == 160
    assert 0.2 < each.std() < 0.3 and abs(each.mean()) < 0.07
    assert torch.equal(noise[10:12], NoiseDraw(offset=0.25).draw(SHAPE, 5, 7, range(10, 12))[0])


def test_perturbation_is_in_the_input_alone() -> None:
    """What the denoiser sees has more noise than what it is to find."""
    draw, slots = NoiseDraw(offset=0.25, perturbation=0.5), range(3)
    noise, of_input = draw.draw(SHAPE, 5, 7, slots)
    assert torch.equal(noise, NoiseDraw(offset=0.25).draw(SHAPE, 5, 7, slots)[0])
    torch.testing.assert_close(of_input, noise + 0.5 * stacked("input perturbation", SHAPE, slots))
    process, seen = tiny_model(prediction_type="v_prediction").noise_process, []
    latents, at = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(1)), torch.tensor([5, 500, 990])
    kept = process.scheduler.alphas_cumprod[at].view(3, 1, 1, 1)
    velocity: torch.Tensor = kept.sqrt() * noise - (1 - kept).sqrt() * latents

    def predict(noisy: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        seen.append(noisy)
        return velocity

    errors = TrainingLoss(noise=draw).errors(predict, process, latents, noise, at, input_noise=of_input)
    torch.testing.assert_close(errors, torch.zeros_like(errors), atol=1e-10, rtol=0)
    torch.testing.assert_close(seen[0], kept.sqrt() * latents + (1 - kept).sqrt() * of_input)
