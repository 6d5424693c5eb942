from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from tests.support import tiny_model, weights
from tincture.errors import UsageError
from tincture.models import sampling
from tincture.models.conditions import Conditions
from tincture.models.noise_process import Diffusion
from tincture.models.samplers import SAMPLERS
from tincture.models.sampling import complete
from tincture.models.stable_diffusion import StableDiffusion
from tincture.settings.drawing import Drawing

PROMPTS = ["small moon", "a red star", "blue"]


def generate(
    model: StableDiffusion,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    batch_size: int = 16,
    interrupted: Callable[[], bool] | None = None,
    **drawing: Any,
) -> torch.Tensor:
    return sampling.generate(
        model, prompts, Drawing(**drawing), seeds=seeds, batch_size=batch_size, interrupted=interrupted
    )


def close(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Equal but for rounding: another batch size may sum in another order."""
    return bool((first.int() - second.int()).abs().max() <= 1)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_is_a_function_of_its_seeds(sampler: str, shared_model: StableDiffusion) -> None:
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()

    first = generate(shared_model, PROMPTS, seeds=[1, 2, 1], sampler=sampler, steps=4)
    again = generate(shared_model, PROMPTS, seeds=[1, 2, 1], sampler=sampler, steps=4)
    other = generate(shared_model, PROMPTS, seeds=[3, 2, 1], sampler=sampler, steps=4)

    assert first.shape == (3, 64, 64, 3) and first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert not close(first[0], other[0])
    assert close(first[1:], other[1:])
    assert torch.equal(torch_state, torch.get_rng_state())
    assert (numpy_state, python_state) == (np.random.get_state()[1].tolist(), random.getstate())


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M SDE Karras", "LCM", "UniPC"])
def test_a_picture_does_not_depend_on_its_batch(sampler: str, shared_model: StableDiffusion) -> None:
    together = generate(shared_model, PROMPTS, seeds=[1, 2, 3], sampler=sampler, steps=4)
    in_batches = generate(shared_model, PROMPTS, seeds=[1, 2, 3], sampler=sampler, steps=4, batch_size=2)
    alone = generate(shared_model, PROMPTS[1:2], seeds=[2], sampler=sampler, steps=4)

    assert close(together, in_batches)
    assert close(together[1:2], alone)


def record(model: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What the U-Net is given: noisy latents and hidden states of every call."""
    calls: list[tuple[torch.Tensor, torch.Tensor]] = []
    predict = model.predict_noise

    def recorded(latents: torch.Tensor, timesteps: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        calls.append((latents, conditions.hidden_states))
        return predict(latents, timesteps, conditions)

    monkeypatch.setattr(model, "predict_noise", recorded)
    return calls


def test_the_first_noise_is_exactly_each_seeds_own(model: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = record(model, monkeypatch)

    generate(model, PROMPTS[:2], seeds=[7, 8], sampler="DDIM", steps=1, guidance_scale=1)

    latents, _ = calls[0]
    for row, seed in zip(latents, (7, 8), strict=True):
        assert torch.equal(row, torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(seed)))


def test_guidance_doubles_the_batch_and_one_leaves_it_out(
    model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = record(model, monkeypatch)

    generate(model, PROMPTS[:2], negative_prompt="blue", seeds=[1, 2], steps=1)
    generate(model, PROMPTS[:2], negative_prompt="blue", seeds=[1, 2], steps=1, guidance_scale=1.0)

    (guided, hidden_states), (plain, plain_states) = calls
    assert (len(guided), len(plain)) == (4, 2)
    assert torch.equal(hidden_states[:2], model.encode_prompts(["blue"]).hidden_states.expand(2, -1, -1))
    assert torch.equal(hidden_states[2:], plain_states)


class OneLevel:
    """A sampler of one step that begins at noise of a level of its own, and keeps what it is given."""

    init_noise_sigma = 3.5

    def __init__(self) -> None:
        self.latents, self.noise_pred = torch.empty(0), torch.empty(0)

    def set_timesteps(self, steps: int, device: torch.device) -> None:
        self.timesteps = torch.arange(steps, device=device)

    def scale_model_input(self, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return latents / 7

    def step(self, noise_pred: torch.Tensor, timestep: torch.Tensor, latents: torch.Tensor, return_dict: bool) -> Any:
        self.noise_pred, self.latents = noise_pred, latents
        return (latents,)


@pytest.mark.parametrize("guidance_scale", [1.0, 0.0, 2.0, 7.5])
def test_the_step_is_given_the_guided_prediction_and_noise_of_the_first_level(
    guidance_scale: float, model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ho & Salimans 2022, equation 6, written from the negative prompt: negative + scale * (positive - negative)."""
    sampler, given = OneLevel(), []

    def predict(latents: torch.Tensor, timestep: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        given.append(latents)
        return latents + conditions.hidden_states[:, 1, :1, None, None]

    monkeypatch.setattr(Diffusion, "make_scheduler", lambda process, name: sampler)
    monkeypatch.setattr(model, "predict_noise", predict)
    generate(model, ["moon"], negative_prompt="blue", seeds=[4], steps=1, guidance_scale=guidance_scale)

    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    assert torch.equal(sampler.latents, noise * 3.5)
    assert all(torch.equal(row, noise[0] * 3.5 / 7) for row in given[0])
    positive, negative = (model.encode_prompts([text]).hidden_states[0, 1, 0] for text in ("moon", "blue"))
    torch.testing.assert_close(
        sampler.noise_pred, noise / 2 + negative + guidance_scale * (positive - negative), rtol=1e-4, atol=1e-5
    )


def test_a_sampler_over_noise_levels_begins_at_the_highest(
    model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Euler's latents have the last timestep's noise; the U-Net sees them scaled to a variance of 1."""
    calls = record(model, monkeypatch)
    generate(model, ["moon"], seeds=[4], sampler="Euler", steps=2, guidance_scale=1)
    alpha = model.noise_scheduler.alphas_cumprod[999]
    sigma = ((1 - alpha) / alpha).sqrt()
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(calls[0][0], noise * sigma / (sigma**2 + 1).sqrt())


def test_prompt_negative_prompt_guidance_and_clip_skip_matter(shared_model: StableDiffusion) -> None:
    def picture(**settings: object) -> torch.Tensor:
        return generate(shared_model, ["small moon"], seeds=[1], steps=2, **{"guidance_scale": 300.0, **settings})

    plain = picture()
    for settings in ({"negative_prompt": "blue"}, {"guidance_scale": 30.0}, {"clip_skip": 2}):
        assert not torch.equal(plain, picture(**settings)), settings
    assert not torch.equal(plain, generate(shared_model, ["blue"], seeds=[1], steps=2, guidance_scale=300.0))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_follow_the_models_own_schedule(sampler: str, prediction_type: str) -> None:
    model = tiny_model(prediction_type=prediction_type)

    scheduler = model.noise_process.make_scheduler(sampler)

    assert scheduler.config.prediction_type == prediction_type
    assert torch.allclose(scheduler.betas, model.noise_scheduler.betas)
    assert not getattr(scheduler.config, "clip_sample", False)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_finds_the_picture_a_perfect_model_sees(
    sampler: str, model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a model that knows the clean latents, every sampler must end at them."""
    clean = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    alphas = model.noise_scheduler.alphas_cumprod

    def perfect(latents: torch.Tensor, timestep: torch.Tensor, hidden_states: torch.Tensor) -> torch.Tensor:
        # Some samplers stand between two timesteps.
        place = timestep.double().clamp(0, 999)
        low = place.floor().long()
        sigmas = ((1 - alphas) / alphas).sqrt().double().log()
        sigma = torch.lerp(sigmas[low], sigmas[(low + 1).clamp(max=999)], place - low).exp()
        alpha = 1 / (1 + sigma**2)
        return ((latents - alpha.sqrt() * clean) / (1 - alpha).sqrt()).float()

    decoded: list[torch.Tensor] = []

    def decode(latents: torch.Tensor) -> torch.Tensor:
        decoded.append(latents)
        return torch.zeros(len(latents), 3, 64, 64)

    monkeypatch.setattr(model, "predict_noise", perfect)
    monkeypatch.setattr(model, "decode_latents", decode)
    generate(model, ["a"], seeds=[1], sampler=sampler, steps=12, guidance_scale=1)

    # DDIM and PLMS end, by design, with the noise of the first timestep: a thirtieth of the picture's spread.
    assert (decoded[0] - clean).abs().max() < 0.15


def test_width_and_height_are_kept(shared_model: StableDiffusion) -> None:
    assert generate(shared_model, ["a"], seeds=[1], steps=1, width=48, height=80).shape == (1, 80, 48, 3)


def test_pictures_are_decoded_a_few_at_a_time(model: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def decode(latents: torch.Tensor) -> torch.Tensor:
        sizes.append(len(latents))
        return torch.zeros(len(latents), 3, 512, 512)

    monkeypatch.setattr(model, "decode_latents", decode)
    monkeypatch.setattr(model, "predict_noise", lambda latents, *_: latents)

    pictures = generate(model, ["a"] * 6, seeds=range(6), steps=1, width=512, height=512, guidance_scale=1)

    assert sizes == [4, 2] and pictures.shape == (6, 512, 512, 3)
    assert (pictures == 128).all()


def test_an_interrupt_keeps_finished_batches(shared_model: StableDiffusion) -> None:
    answers = iter([False] * 3 + [True])

    pictures = generate(
        shared_model, ["a"] * 3, seeds=[1, 2, 3], steps=2, batch_size=2, interrupted=lambda: next(answers)
    )

    assert torch.equal(pictures, generate(shared_model, ["a"] * 2, seeds=[1, 2], steps=2))


def test_no_prompts_no_pictures(shared_model: StableDiffusion) -> None:
    assert generate(shared_model, [], seeds=[]).shape == (0, 64, 64, 3)


def test_weights_are_left_as_they_were(model: StableDiffusion) -> None:
    before = weights(model)

    generate(model, ["a"], seeds=[1], steps=2)

    assert all(torch.equal(value, before[key]) for key, value in weights(model).items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampler": "euler A"}, "no sampler 'euler A'; did you mean 'Euler a'"),
        ({"seeds": [1, 2]}, "1 prompts and 2 seeds"),
        ({"seeds": [2**64]}, "The seed 18446744073709551616 is not allowed; .* from 0 to 18446744073709551615"),
        ({"steps": 0}, "0 sampling steps"),
        ({"sampler": "LCM", "steps": 100}, "'LCM' cannot make 100 steps"),
        ({"width": 63}, "width 63 .*multiple of 8"),
        ({"height": -8}, "height -8 .*multiple of 8"),
        ({"batch_size": 0}, "Batch size 0"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], message: str, shared_model: StableDiffusion) -> None:
    with pytest.raises(UsageError, match=message):
        generate(shared_model, ["a"], **{"seeds": [1], "steps": 1, **settings})


def test_what_a_drawing_leaves_open_is_the_models_own(model: StableDiffusion) -> None:
    model.guidance_scale = 2.5

    assert complete(Drawing(width=48), model).guidance_scale == 2.5
    assert (complete(Drawing(width=48), model).width, complete(Drawing(), model).height) == (48, 64)
    assert complete(Drawing(guidance_scale=0.0), model).guidance_scale == 0
    assert torch.equal(
        generate(model, ["moon"], seeds=[1], steps=2),
        generate(model, ["moon"], seeds=[1], steps=2, guidance_scale=2.5),
    )


def test_prompts_of_any_length_are_drawn_and_do_not_touch_each_other(shared_model: StableDiffusion) -> None:
    prompts = ["small moon", "a red star BREAK moon", "blue"]
    together = generate(shared_model, prompts, steps=2, seeds=[1, 2, 3])

    for index, prompt in enumerate(prompts):
        alone = generate(shared_model, [prompt], steps=2, seeds=[index + 1])
        assert close(together[index : index + 1], alone)


def test_a_longer_negative_prompt_lengthens_the_prompt(
    shared_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = record(shared_model, monkeypatch)

    generate(shared_model, ["blue"], steps=1, negative_prompt="red BREAK moon", seeds=[1])

    expected = shared_model.encode_prompts(["red BREAK moon", "blue"]).hidden_states
    torch.testing.assert_close(calls[0][1], expected)


ZERO_TERMINAL_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name not in ("Heun", "DPM2", "DPM2 a", "PLMS")])
def test_a_model_of_zero_terminal_snr_is_drawn_from_pure_noise(sampler: str) -> None:
    model = tiny_model(prediction_type="v_prediction")
    model.noise_scheduler = DDPMScheduler.from_config(model.noise_scheduler.config, **ZERO_TERMINAL_SNR)

    scheduler = model.noise_process.make_scheduler(sampler)
    scheduler.set_timesteps(4)

    assert int(scheduler.timesteps[0]) == 999
    assert scheduler.alphas_cumprod[-1] < 1e-6
    pictures = generate(model, ["small moon"], seeds=[1], steps=2, sampler=sampler)
    assert pictures.float().std() > 0


@pytest.mark.parametrize("sampler", ["Heun", "DPM2", "DPM2 a", "PLMS"])
def test_a_sampler_that_cannot_is_refused_for_it(sampler: str) -> None:
    model = tiny_model(prediction_type="v_prediction")
    model.noise_scheduler = DDPMScheduler.from_config(model.noise_scheduler.config, **ZERO_TERMINAL_SNR)

    with pytest.raises(UsageError, match=f"{sampler!r} cannot begin at pure noise.*use Euler"):
        model.noise_process.make_scheduler(sampler)
