"""How pictures are drawn: one description for previews, for ``tincture generate`` and for what a PNG says of itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Drawing:
    """The settings of a picture apart from its prompt and its seed.

    Attributes:
        negative_prompt: what to steer away from.
        steps: of the sampler, at least 1.
        sampler: a name in ``tincture.models.samplers.SAMPLERS``.
        guidance_scale: how strictly the prompt is followed; 1 leaves guidance, and half of the work, out. None takes
            the model's own.
        width: pixels, a multiple of the model's ``vae_scale_factor``; None takes the model's own size.
        height: likewise.
        clip_skip: the text encoder's layer, counted from the end, from 1.
    """

    negative_prompt: str = ""
    steps: int = 20
    sampler: str = "Euler a"
    guidance_scale: float | None = None
    width: int | None = None
    height: int | None = None
    clip_skip: int = 1


@dataclass(frozen=True)
class CompleteDrawing(Drawing):
    """A drawing that leaves nothing to the model; the defaults are Stable Diffusion 1's."""

    guidance_scale: float = 7.0
    width: int = 512
    height: int = 512
