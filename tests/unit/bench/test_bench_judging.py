"""What lessons are judged by, on pictures whose judgement is known beforehand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from bench import judging

from tincture.adapters.embedding import Embedding, create_embedding
from tincture.models.diffusion_model import DiffusionModel
from tincture.models.loading.load import load_model
from tincture.models.picto import world

SUBJECT = world.parse_subject("large cyan plain star")


@pytest.fixture(scope="module")
def picto() -> DiffusionModel:
    return load_model("picto")


def rendered(scenes: list[world.Scene]) -> judging.Pictures:
    return np.stack([world.render(scene) for scene in scenes])


def test_a_subject_is_asked_for_in_every_wording_and_in_no_surroundings_that_are_trained_or_held_out() -> None:
    trained, held_out, wanted = judging.subject_scenes(SUBJECT, seed=3, held_out=6, previews=12)
    places = [{(scene.position, scene.background) for scene in scenes} for scenes in (trained, held_out, wanted)]
    assert [len(found) for found in places] == [5, 6, 12]
    assert not (places[0] & places[1] or places[0] & places[2] or places[1] & places[2])
    asked = judging.asked_of_subject(wanted, seed=3, thing="glimmer")
    assert all("glimmer" in prompt and "star" not in prompt for prompt in asked.prompts)
    starts = {wording.split("{")[0] for wording in judging.WORDINGS}
    assert all(any(prompt.startswith(start) for prompt in asked.prompts) for start in starts - {""})
    assert "star" in judging.asked_of_subject(wanted, seed=3).prompts[0]


def test_shares_tell_what_was_taught_from_the_rest_and_from_both() -> None:
    scenes = judging.asked_of_style("sunset", 4, seed=0).scenes
    asked = dataclasses.replace(judging.asked_of_style("sunset", 4, seed=0), scenes=scenes)
    plain = [dataclasses.replace(scene, style="none") for scene in scenes]
    elsewhere = [
        dataclasses.replace(scene, background="mint" if scene.background != "mint" else "sand") for scene in scenes
    ]
    shown = [scenes[0], plain[1], elsewhere[2], scenes[3]]
    pictures = rendered(shown)
    pictures[3] = np.random.default_rng(0).integers(0, 256, pictures[3].shape)
    assert judging.shares(asked, pictures) == judging.Shares(taught=0.5, rest=0.5, both=0.25, clear=0.75)


def test_drift_is_a_part_of_the_whole_range() -> None:
    black, white = np.zeros((2, 64, 64, 3), np.uint8), np.full((2, 64, 64, 3), 255, np.uint8)
    assert judging.drift(black, black) == 0
    assert judging.drift(black, white) == judging.drift(white, black) == 1
    half = np.concatenate([black[:1], white[:1]])
    assert judging.drift(black, half) == pytest.approx(0.5)


def test_the_loss_on_fixed_noise_is_the_same_each_time_and_lower_for_the_words_that_fit(
    picto: DiffusionModel,
) -> None:
    trained, _, _ = judging.subject_scenes(SUBJECT, seed=0, held_out=0, previews=0)
    latents = judging.encoded(picto, trained)
    right = [scene.caption() for scene in trained]
    wrong = [dataclasses.replace(scene, colour="red", shape="ring").caption() for scene in trained]
    loss = judging.fixed_noise_loss(picto, latents, right)
    torch.manual_seed(7)
    assert judging.fixed_noise_loss(picto, latents, right) == loss
    assert loss < judging.fixed_noise_loss(picto, latents, wrong)


def test_what_is_attached_acts_on_the_loss_and_on_the_pictures(picto: DiffusionModel) -> None:
    asked = judging.asked_of_subject(judging.subject_scenes(SUBJECT, 0, 0, 2)[2], 0, "glimmer")
    words = create_embedding("glimmer", picto, 4, str(SUBJECT))
    other = Embedding("glimmer", {"clip_l": torch.zeros(4, words.vectors["clip_l"].shape[1])})
    few = dataclasses.replace(judging.DRAWING, steps=2)
    latents = judging.encoded(picto, asked.scenes)
    with words.attach(picto):
        good = judging.fixed_noise_loss(picto, latents, asked.prompts), judging.drawn(picto, asked, few)
    with other.attach(picto):
        bad = judging.fixed_noise_loss(picto, latents, asked.prompts), judging.drawn(picto, asked, few)
    assert good[0] < bad[0] and judging.drift(good[1], bad[1]) > 0
