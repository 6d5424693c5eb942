from __future__ import annotations

import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from tests.support import SCHEDULER, tiny_model
from tincture import randomness
from tincture.models.noise_process import Diffusion


def test_the_first_and_the_last_timestep_are_drawn_and_none_beyond() -> None:
    few = Diffusion(DDPMScheduler(**{**SCHEDULER, "num_train_timesteps": 3}))
    assert set(few.draw_timesteps(0, 0, range(64)).tolist()) == {0, 1, 2}
    drawn = tiny_model().noise_process.draw_timesteps(0, 0, range(8000))
    assert (drawn.dtype, int(drawn.min()), int(drawn.max())) == (torch.int64, 0, 999)


def test_timesteps_are_those_of_runs_that_began_before_there_were_other_processes() -> None:
    """A run that goes on must draw what it would have drawn: the purpose and the counters stay as they are."""
    process = tiny_model().noise_process
    expected = [int(randomness.generator(5, "timestep", 7, slot).integers(1000)) for slot in (3, 4)]
    assert process.draw_timesteps(5, 7, range(3, 5)).tolist() == expected == [273, 499]


def test_what_is_predicted_is_said_in_words() -> None:
    def words(**config: object) -> str:
        return Diffusion(DDPMScheduler(**{**SCHEDULER, **config})).predicts

    assert words() == "noise"
    assert words(prediction_type="v_prediction") == "v"
    assert words(prediction_type="v_prediction", rescale_betas_zero_snr=True) == "v with zero terminal SNR"
