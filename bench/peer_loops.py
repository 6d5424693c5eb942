"""How other trainers teach an embedding, as plain loops of our own: what they train with, not how they are written.

Each recipe is what a program does when its documentation is followed for a subject. What is taken from where:

- **diffusers**, `examples/textual_inversion` with its README's command: the templates for objects, no captions; one
  vector that begins as the class word; pictures mirrored half of the time; latents drawn anew in every step; AdamW
  with a decay of 0.01; a rate of 5e-4 multiplied by the pictures in a step (`--scale_lr`); a batch of 1, accumulated
  4 times.
- **kohya**, sd-scripts' `train_textual_inversion.py`: captions that hold the name, gradients clipped to a norm of 1,
  AdamW with a decay of 0.01, a class word as the start of 4 vectors, latents drawn once. Its documentation has a rate
  of 1e-6, with which nothing is learned in hundreds of steps; so it is measured with 5e-3 too, the webui's.
- **webui**, the Train tab: one vector that begins as "*", a rate of 5e-3, AdamW without decay, its template for
  subjects with captions, of which each picture gets one line for the whole run, latents drawn once.

The text encoder's other vectors, which two of them train and put back, are not trained here; the result is the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tincture.adapters.embedding import Embedding, create_embedding
from tincture.models.diffusion_model import DiffusionModel

_LOOKS = (
    "{} of a {name}",
    "{} of the {name}",
    "{} of a clean {name}",
    "{} of a cool {name}",
    "{} of a nice {name}",
    "{} of a small {name}",
    "{} of a weird {name}",
    "{} of one {name}",
    "{} of my {name}",
)
_KINDS = ("a photo", "a rendering", "a cropped photo", "a close-up photo", "a bright photo", "a good photo")
OBJECT_LINES = (
    *(look.replace("{}", "a photo") for look in _LOOKS),
    *(look.replace("{}", kind) for kind in _KINDS[1:] for look in _LOOKS[:2]),
)
"""What the lists of CLIP's authors, which these programs have, are made of: photos of a clean, a cool, a small one."""


@dataclasses.dataclass(frozen=True)
class PeerRecipe:
    """One program's way; see the module.

    Attributes:
        lines: prompts with ``{name}``, and ``{caption}`` where captions count; one is drawn for each sample.
        line_stays: a picture's line is drawn once.
        init: text that the vectors begin as; ``{class}`` is the class word.
        rate: of AdamW, constant; multiplied by the pictures in a step where ``scaled``.
        batch, accumulation: pictures at a time, and how often before a step, as documented.
        samples_anew: whether the latents are drawn in every step, or once.
        clip: norm that gradients are clipped to; 0: they are not.
    """

    lines: tuple[str, ...]
    vectors: int
    init: str
    rate: float
    scaled: bool = False
    decay: float = 1e-2
    clip: float = 0.0
    flips: bool = False
    line_stays: bool = False
    samples_anew: bool = False
    batch: int = 1
    accumulation: int = 1


PEERS = {
    "diffusers": PeerRecipe(
        OBJECT_LINES, 1, "{class}", 5e-4, scaled=True, flips=True, samples_anew=True, accumulation=4
    ),
    "kohya": PeerRecipe(("{name}, {caption}",), 4, "{class}", 1e-6, clip=1.0),
    "kohya at 5e-3": PeerRecipe(("{name}, {caption}",), 4, "{class}", 5e-3, clip=1.0),
    "webui": PeerRecipe(
        tuple(f"{line}, {{caption}}" for line in OBJECT_LINES), 1, "*", 5e-3, decay=0.0, line_stays=True
    ),
}


@dataclasses.dataclass(frozen=True)
class Material:
    """What is taught: ``pixels`` (B, 3, H, W) in -1..1, their captions, and the word for what they show."""

    name: str
    pixels: Tensor
    captions: Sequence[str]
    class_word: str


def teach(
    model: DiffusionModel, recipe: PeerRecipe, material: Material, at: Sequence[int], seed: int, batch: int = 0
) -> Iterator[tuple[int, Embedding]]:
    """The embedding, attached to ``model``, after each of the steps ``at``, ascending.

    Args:
        batch: pictures in a step, all at once; 0: as the recipe has it.
    """
    pictures = batch or recipe.batch * recipe.accumulation
    rng = torch.Generator().manual_seed(seed)
    embedding = create_embedding(
        material.name, model, recipe.vectors, recipe.init.replace("{class}", material.class_word)
    )
    optimizer = torch.optim.AdamW(
        embedding.parameters(), recipe.rate * (pictures if recipe.scaled else 1), weight_decay=recipe.decay
    )
    samples = _Samples(model, recipe, material, rng)
    with embedding.attach(model):
        for step in range(1, at[-1] + 1):
            latents, prompts = samples.next(pictures)
            noise = torch.randn(latents.shape, generator=rng)
            timesteps = torch.randint(0, 1000, (pictures,), generator=rng)
            noisy = model.noise_process.add_noise(latents, noise, timesteps)
            predicted = model.predict_noise(noisy, timesteps, model.encode_prompts(prompts))
            loss = torch.nn.functional.mse_loss(predicted.float(), noise)
            loss.backward()  # type: ignore[no-untyped-call]
            if recipe.clip:
                torch.nn.utils.clip_grad_norm_(embedding.parameters(), recipe.clip)
            optimizer.step()
            optimizer.zero_grad()
            if step in at:
                yield step, embedding


class _Samples:
    """Pictures in an order drawn anew in each epoch, with a prompt each."""

    def __init__(self, model: DiffusionModel, recipe: PeerRecipe, material: Material, rng: torch.Generator) -> None:
        self.recipe, self.material, self.rng = recipe, material, rng
        with torch.no_grad():
            sides = [material.pixels, material.pixels.flip(-1)] if recipe.flips else [material.pixels]
            self.encoded = [model.encode_pictures(pixels) for pixels in sides]
        self.once = [mean + spread * self._normal(mean) for mean, spread in self.encoded]
        self.lines = [self._line() for _ in material.captions]
        self.order: list[int] = []

    def next(self, count: int) -> tuple[Tensor, list[str]]:
        """Latents (count, 4, h, w) and prompts."""
        chosen = [self._one() for _ in range(count)]
        latents = torch.stack([latents for latents, _ in chosen])
        return latents, [prompt for _, prompt in chosen]

    def _one(self) -> tuple[Tensor, str]:
        if not self.order:
            self.order = torch.randperm(len(self.material.captions), generator=self.rng).tolist()
        index = self.order.pop()
        side = self._below(2) if self.recipe.flips else 0
        latents = self.once[side][index]
        if self.recipe.samples_anew:
            mean, spread = (part[index] for part in self.encoded[side])
            latents = mean + spread * self._normal(mean)
        line = self.lines[index] if self.recipe.line_stays else self._line()
        return latents, line.format(name=self.material.name, caption=self.material.captions[index])

    def _line(self) -> str:
        return self.recipe.lines[self._below(len(self.recipe.lines))]

    def _below(self, count: int) -> int:
        return int(torch.randint(count, (), generator=self.rng))

    def _normal(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.rng)
