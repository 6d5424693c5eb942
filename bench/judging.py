"""How an adapter for picto is judged: what its previews show, its loss on fixed noise, how far pictures move.

All functions look at what is attached to the model when they are called, however it was trained: by a run, or by a
plain loop. Nothing depends on the way: prompts, seeds and noise of a lesson are the same for all.

- **taught**, **rest**, **both**, **clear**: shares of previews that show what was taught, that show the rest of what
  the prompt says, that show both at once, and that show anything at all. Of a subject, *taught* is what `docs/picto.md`
  calls fidelity, and *both* editability; of a style, *rest* is all six attributes (content), and *both* is the share
  that has style and content in one picture.
- **loss**: the mean squared error of the predicted noise on a grid of pictures x bands of timesteps, with noise that
  depends on picture and band alone. On pictures that are not trained, beside those that are, it shows overfitting.
- **drift**: the mean absolute difference between pictures of the same prompts and seeds, as a part of the whole range
  (0: not one pixel, 1: black against white). Between pictures without and with the adapter, of prompts that are not
  about what was taught, it is how far other pictures moved. Between pictures of a subject's name and those that the
  plain model draws for the subject's own words, it is how far the name is from being as good as the words.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tincture import randomness
from tincture.models.diffusion_model import DiffusionModel
from tincture.models.picto import world
from tincture.models.picto.oracle import ATTRIBUTES
from tincture.models.sampling import generate
from tincture.run import demo
from tincture.settings.drawing import Drawing
from tincture.training.loss import PLAIN

Pictures = NDArray[np.uint8]

DRAWING = Drawing(steps=6, sampler="DPM++ 2M")
"""The plain model's pictures of 24 prompts are all read rightly with it, and with 4 steps as well."""
WORDINGS = (
    "a {thing}, {place}, {ground} background",
    "{thing}, {ground} background, {place}",
    "a picture of a {thing}, {place}, {ground} background",
    "a drawing of {thing}, {ground} background, {place}",
    "{ground} background, {place}, a {thing}",
    "a photo of a {thing}, {place}, {ground} background",
)
"""Previews ask in all of them by turns, so that no template is best by being the one that is asked for. The plain model
obeys each, if the thing is said in its own words."""
BANDS = 6
"""Of timesteps, in which the loss on fixed noise is measured."""
REST = ("position", "background")


@dataclasses.dataclass(frozen=True)
class Asked:
    """What previews are asked for: of each a scene that it should show, a prompt and a seed.

    Attributes:
        taught: attributes of the scenes that the adapter is responsible for.
        rest: those that the rest of the prompt says.
    """

    scenes: Sequence[world.Scene]
    prompts: Sequence[str]
    seeds: Sequence[int]
    taught: tuple[str, ...]
    rest: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Shares:
    """Of the previews, each 0..1; see the module."""

    taught: float
    rest: float
    both: float
    clear: float

    def to_dict(self) -> dict[str, float]:
        """Rounded to what so few pictures can tell."""
        return {name: round(value, 4) for name, value in dataclasses.asdict(self).items()}


# --- what is asked for -----------------------------------------------------------------------------------------------


def worded(scene: world.Scene, thing: str, wording: str) -> str:
    """A prompt for ``scene`` that calls the thing ``thing``."""
    return wording.format(thing=thing, place=world.POSITIONS[scene.position][0], ground=scene.background)


def subject_scenes(
    subject: world.Subject, seed: int, held_out: int, previews: int
) -> tuple[list[world.Scene], list[world.Scene], list[world.Scene]]:
    """Scenes that are trained, held out for the loss, and asked for: no surroundings are in two of the lists."""
    trained, unseen = demo.subject_scenes(subject, seed)
    rng = randomness.generator(seed, "judged subject")
    places = [unseen[int(index)] for index in rng.permutation(len(unseen))]
    rest = places[held_out:]
    return (
        trained,
        [_scene(subject, *place, **world.jitter(rng)) for place in places[:held_out]],
        [_scene(subject, *rest[number % len(rest)]) for number in range(previews)],
    )


def _scene(subject: world.Subject, position: str, background: str, **jitter: Any) -> world.Scene:
    return world.Scene(**dataclasses.asdict(subject), position=position, background=background, **jitter)


def asked_of_subject(scenes: Sequence[world.Scene], seed: int, thing: str = "") -> Asked:
    """Previews of a subject, which prompts call ``thing``; empty: by its own words."""
    prompts = [
        worded(scene, thing or str(scene.subject), WORDINGS[number % len(WORDINGS)])
        for number, scene in enumerate(scenes)
    ]
    return Asked(scenes, prompts, preview_seeds(seed, len(scenes)), demo.SUBJECT_ATTRIBUTES, REST)


def asked_of_style(style: str, count: int, seed: int, purpose: str = "judged style") -> Asked:
    """Previews of random things that should be in ``style``; of "none" they should be as the plain model draws them."""
    scenes = demo.random_scenes(count, seed, purpose, style)
    prompts = [
        worded(scene, str(scene.subject), WORDINGS[number % len(WORDINGS)]) for number, scene in enumerate(scenes)
    ]
    return Asked(scenes, prompts, preview_seeds(seed, count), ("style",), ATTRIBUTES)


def preview_seeds(seed: int, count: int) -> list[int]:
    """One for each preview, other ones for each seed of a lesson."""
    return [randomness.torch_seed(seed, "judged preview", number) % 2**32 for number in range(count)]


# --- what comes of it ------------------------------------------------------------------------------------------------


def drawn(model: DiffusionModel, asked: Asked, drawing: Drawing = DRAWING) -> Pictures:
    """Pictures (B, 64, 64, 3), with what is attached now."""
    pictures: Pictures = generate(model, asked.prompts, drawing, seeds=asked.seeds, batch_size=32).numpy()
    return pictures


def shares(asked: Asked, pictures: Pictures) -> Shares:
    """What the oracle reads in the pictures of what was asked for."""
    judged = demo.judge(asked.scenes, list(pictures))
    return Shares(
        taught=judged.share(asked.taught),
        rest=judged.share(asked.rest),
        both=judged.share((*asked.taught, *asked.rest)),
        clear=float(np.mean([reading.clear for reading in judged.readings])),
    )


def drift(pictures: Pictures, others: Pictures) -> float:
    """How far two lists of pictures of the same prompts and seeds are apart, 0..1."""
    return float(np.abs(pictures.astype(np.float32) - others.astype(np.float32)).mean() / 255)


def pixels(scenes: Sequence[world.Scene]) -> Tensor:
    """Rendered scenes (B, 3, 64, 64), float32 in -1..1."""
    rendered = torch.from_numpy(np.stack([world.render(scene) for scene in scenes]))
    return rendered.permute(0, 3, 1, 2).float() / 127.5 - 1


def encoded(model: DiffusionModel, scenes: Sequence[world.Scene]) -> Tensor:
    """The latents' means (B, 4, h, w) of rendered scenes."""
    with torch.no_grad():
        return model.encode_pictures(pixels(scenes))[0]


@torch.no_grad()
def fixed_noise_loss(model: DiffusionModel, latents: Tensor, prompts: Sequence[str], bands: int = BANDS) -> float:
    """The mean squared error over ``latents`` (B, 4, h, w) with ``prompts``, at one timestep of each of the bands.

    Timesteps and noise depend on the number of the picture and the band alone: nothing but what is attached differs
    from one call to the next.
    """
    process, errors = model.noise_process, []
    conditions = model.encode_prompts(prompts)
    for band in range(bands):
        within = [randomness.generator(0, "judged timestep", number, band).random() for number in range(len(latents))]
        timesteps = process.timesteps_at([(band + float(share)) / bands for share in within]).to(model.device)
        noise = [
            randomness.normal(latents.shape[1:], 0, "judged noise", number, band) for number in range(len(latents))
        ]
        errors.append(
            PLAIN.errors(
                lambda noisy, times: model.predict_noise(noisy, times, conditions),
                process,
                latents,
                torch.stack(noise).to(model.device),
                timesteps,
            ).mean()
        )
    return float(torch.stack(errors).mean())
