"""What is compared when styles are taught: the lessons, and ways to teach them, ours and other trainers'."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from bench.peer_loops import PeerRecipe

from tincture.kinds.hypernetwork import HYPERNETWORK


@dataclasses.dataclass(frozen=True)
class Lesson:
    """One style from so many pictures with one seed."""

    style: str
    pictures: int
    seed: int
    previews: int = 60

    @property
    def key(self) -> str:
        """Its name in results."""
        return f"{self.style}-{self.pictures}-{self.seed}"


OUTLINE = Lesson("outline", 48, 0, previews=40)
SUNSET = Lesson("sunset", 12, 0)


@dataclasses.dataclass(frozen=True)
class Way:
    """How a style is taught: what differs from the preset, or, with ``base``, from that instead.

    ``lesson``: in which it is compared with others.
    """

    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    base: Mapping[str, Any] | None = None
    lesson: Lesson = OUTLINE


SHORT = {
    "learning_rate": "0 -> 4e-3:30, 4e-3 -> 1e-5 cosine",
    "steps": 400,
    "batch_size": 8,
    "caption_drop_out": 0.15,
    "latent_sampling_method": "deterministic",
}
"""What one thing at a time is changed of."""
RELU, XAVIER = {"activation_func": "relu"}, {"activation_func": "relu", "weight_init": "XavierNormal"}
BEST = Way(options=XAVIER)
DEBIASED = {"timestep_weighting": "debiased"}
SOAP = {"optimizer": "SOAP", "learning_rate": "0 -> 3e-3:30, 3e-3 -> 1e-5 cosine"}
FAST = {"optimizer": "SOAP", "learning_rate": "0 -> 8e-3:30, 8e-3 -> 1e-5 cosine"}
LONGER = {**SHORT, **DEBIASED, **FAST, "weight_decay": 1.0, "shuffle_tags": True}
"""What the second half is changed of, with weights that begin as XavierNormal."""
OUTLINE_60 = dataclasses.replace(OUTLINE, previews=60)
DROPOUT = {"dropout_structure": (0, 0.3, 0)}
WAYS: Mapping[str, Way] = {
    "base": Way(options=RELU, base=SHORT),
    "debiased weights": Way(DEBIASED, RELU, SHORT),
    "min-SNR weights": Way({"timestep_weighting": "min_snr"}, RELU, SHORT),
    "linear (1, 1)": Way(options={"layer_structure": (1, 1), "activation_func": "linear"}, base=SHORT),
    "rate 1e-2": Way({"learning_rate": "0 -> 1e-2:30, 1e-2 -> 1e-5 cosine"}, RELU, SHORT),
    "self-attention alone": Way(options={**RELU, "sizes": (96, 128, 144)}, base=SHORT),
    "text alone": Way(options={**RELU, "sizes": (112,)}, base=SHORT),
    "narrow (1, 0.25, 1)": Way(options={**RELU, "layer_structure": (1, 0.25, 1)}, base=SHORT),
    "Xavier weights": Way(options=XAVIER, base=SHORT),
    "weight decay 0.3": Way({"weight_decay": 0.3}, RELU, SHORT),
    "batch 4, 800 steps, debiased": Way({**DEBIASED, "batch_size": 4, "steps": 800}, RELU, SHORT),
    "SOAP, debiased": Way({**DEBIASED, **SOAP}, RELU, SHORT),
    "Xavier, debiased": Way(DEBIASED, XAVIER, SHORT),
    "SOAP 8e-3, Xavier, debiased": Way({**DEBIASED, **FAST}, XAVIER, SHORT),
    "the same, weight decay 1": Way({**DEBIASED, **FAST, "weight_decay": 1.0}, XAVIER, SHORT),
    "the same, dropout 0.3": Way({**DEBIASED, **FAST}, {**XAVIER, **DROPOUT}, SHORT),
    "the same, weight decay 1 and dropout 0.3": Way(
        {**DEBIASED, **FAST, "weight_decay": 1.0}, {**XAVIER, **DROPOUT}, SHORT
    ),
    "frame: SOAP 8e-3, Xavier, debiased": Way({**DEBIASED, **FAST}, XAVIER, SHORT, Lesson("frame", 48, 0)),
    "sunset from 12: SOAP 8e-3, Xavier, debiased": Way({**DEBIASED, **FAST}, XAVIER, SHORT, SUNSET),
    "sunset from 12: the same, weight decay 1": Way({**DEBIASED, **FAST, "weight_decay": 1.0}, XAVIER, SHORT, SUNSET),
    "sunset from 12: the demo's": Way({}, RELU, HYPERNETWORK.preset, SUNSET),
    "shuffled tags, weight decay 1": Way({}, XAVIER, LONGER, OUTLINE_60),
    "the same, 1,200 steps": Way({"steps": 1200}, XAVIER, LONGER, OUTLINE_60),
    "the same, tags left out 0.1": Way({"tag_drop_out": 0.1}, XAVIER, LONGER, OUTLINE_60),
    "the same, input perturbation 0.1": Way({"input_perturbation": 0.1}, XAVIER, LONGER, OUTLINE_60),
    "the same, wide (1, 4, 1)": Way({}, {**XAVIER, "layer_structure": (1, 4, 1)}, LONGER, OUTLINE_60),
    "batch 24": Way({"batch_size": 24}, XAVIER, LONGER, OUTLINE_60),
    "batch 24, not shuffled": Way({"batch_size": 24, "shuffle_tags": False}, XAVIER, LONGER, OUTLINE_60),
    "batch 24, weight decay 0.1": Way({"batch_size": 24, "weight_decay": 0.1}, XAVIER, LONGER, OUTLINE_60),
    "batch 24, min-SNR": Way({"batch_size": 24, "timestep_weighting": "min_snr"}, XAVIER, LONGER, OUTLINE_60),
    "batch 24, narrow (1, 0.25, 1), weight decay 0.1": Way(
        {"batch_size": 24, "weight_decay": 0.1}, {**XAVIER, "layer_structure": (1, 0.25, 1)}, LONGER, OUTLINE_60
    ),
    "batch 24, linear (1, 1), weight decay 0.1": Way(
        {"batch_size": 24, "weight_decay": 0.1},
        {**XAVIER, "layer_structure": (1, 1), "activation_func": "linear"},
        LONGER,
        OUTLINE_60,
    ),
    "batch 24, latents drawn anew": Way(
        {"batch_size": 24, "latent_sampling_method": "random"}, XAVIER, LONGER, OUTLINE_60
    ),
    "batch 24, prior preservation": Way(
        {"batch_size": 24, "prior_prompt": "a picture", "prior_count": 48, "prior_steps": 8}, XAVIER, LONGER, OUTLINE_60
    ),
    "batch 24, ema 0.99": Way({"batch_size": 24, "ema": "0.99"}, XAVIER, LONGER, OUTLINE_60),
    "batch 24, dropout 0.3, weight decay 0.3": Way(
        {"batch_size": 24, "weight_decay": 0.3}, {**XAVIER, **DROPOUT}, LONGER, OUTLINE_60
    ),
    **{
        f"{style}: batch 24, not shuffled": Way(
            {"batch_size": 24, "shuffle_tags": False}, XAVIER, LONGER, Lesson(style, 48, 0)
        )
        for style in ("frame", "sunset", "hatching", "shadow")
    },
    "frame: batch 24, not shuffled, 1,000 steps": Way(
        {"batch_size": 24, "shuffle_tags": False, "steps": 1000}, XAVIER, LONGER, Lesson("frame", 48, 0)
    ),
    "shadow: batch 24": Way({"batch_size": 24}, XAVIER, LONGER, Lesson("shadow", 48, 0)),
}

_KINDS = (
    "a painting",
    "a rendering",
    "a cropped painting",
    "a clean painting",
    "a bright painting",
    "a close-up painting",
)
_STYLE_LINES = tuple(f"{kind} in the style of {{name}}" for kind in _KINDS)
_WEBUI_LINES = tuple(f"{kind} of {{caption}}, art by {{name}}" for kind in _KINDS)
WEBUI_OPTIONS = {"layer_structure": (1, 2, 1), "activation_func": "linear"}
PEERS: Mapping[str, Way | PeerRecipe] = {
    "ours": BEST,
    "webui, hypernetwork": Way({"learning_rate": "1e-5", "weight_decay": 0.01}, WEBUI_OPTIONS, {}),
    "webui, hypernetwork at 1e-3": Way({"learning_rate": "1e-3", "weight_decay": 0.01}, WEBUI_OPTIONS, {}),
    "webui, embedding": PeerRecipe(_WEBUI_LINES, 1, "*", 5e-3, decay=0.0, line_stays=True),
    "diffusers, embedding": PeerRecipe(_STYLE_LINES, 1, "painting", 5e-4, scaled=True, flips=True, samples_anew=True),
    "kohya, embedding at 5e-3": PeerRecipe(("{name}, {caption}",), 4, "painting", 5e-3, clip=1.0),
}
"""At equal steps, with as many pictures in each: the way of the preset, and what others have, as for subjects. Of these
the webui alone trains hypernetworks; its rate of 1e-5 is what its guides begin with."""
PEERS_AT, PEERS_BATCH = (200, 1000), 4
