"""What is compared: ways to teach an embedding with a run, each a change of the one that is the default."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tincture.kinds.embedding import EMBEDDING

_EARLIER_KINDS = (
    *("a photo", "a picture", "a close view", "a clear, sharp picture", "a bright picture", "a dim picture"),
    *("a cropped picture", "an amateur snapshot", "a studio shot"),
)
EARLIER_LINES = ("[name], [filewords]", *(f"{kind} of [name], [filewords]" for kind in _EARLIER_KINDS))
"""Of the template ``subject_filewords`` before these measurements."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One way.

    Attributes:
        settings: those of the run.
        options: those that the embedding is created with; ``{class}`` in ``init_text`` is the class word.
        lines: of the template; none: as ``settings`` have it.
        needs_length: whether the schedule depends on the length of the run: then it is trained for each length.
    """

    settings: Mapping[str, Any]
    options: Mapping[str, Any]
    lines: tuple[str, ...] = ()
    needs_length: bool = False

    def changed(self, lines: tuple[str, ...] = (), options: Mapping[str, Any] | None = None, **settings: Any) -> Recipe:
        """The same with other settings."""
        return dataclasses.replace(
            self,
            settings={**self.settings, **settings},
            options={**self.options, **(options or {})},
            lines=lines or self.lines,
        )


BASE = Recipe(
    {
        **{name: value for name, value in EMBEDDING.preset.items() if name != "steps"},
        "batch_size": 5,
        "gradient_accumulation_steps": 1,
    },
    dict(EMBEDDING.preset_options),
)
"""What the embedded model's preset has now, with all five pictures once in each step."""
EARLIER = Recipe(
    {"learning_rate": "0.005:200, 0.002", "batch_size": 5, "latent_sampling_method": "deterministic"},
    {"num_vectors": 6, "init_text": "*"},
    EARLIER_LINES,
)
"""What it had before these measurements."""


STAR = BASE.changed(options={"init_text": "*"})
"""The baseline of the switches begins as the webui does: it is learned less surely within 50 steps than the default, so
that there is room for better and for worse."""


def with_line(line: str) -> Recipe:
    """The baseline with another template."""
    return STAR.changed((line,))


EARLIER_ALONE = (
    *(f"{kind} of [name]" for kind in (*_EARLIER_KINDS[:7], "a detailed portrait", *_EARLIER_KINDS[7:])),
    *("[name] in full view", "one [name], nothing else"),
)
"""Of the template ``subject``, without captions."""
_PRIOR: Mapping[str, Any] = {"prior_prompt": "a picture", "prior_count": 12, "prior_steps": 8}
SWITCHES: Mapping[str, Recipe] = {
    "baseline": STAR,
    "template: earlier lines": STAR.changed(EARLIER_LINES),
    "template: a name, caption": with_line("a [name], [filewords]"),
    "template: name, caption": with_line("[name], [filewords]"),
    "template: a photo of a name": with_line("a photo of a [name], [filewords]"),
    "1 vector": STAR.changed(options={"num_vectors": 1}),
    "4 vectors": STAR.changed(options={"num_vectors": 4}),
    "8 vectors": STAR.changed(options={"num_vectors": 8}),
    "init class word": STAR.changed(options={"init_text": "{class}"}),
    "init * * * * * and class word": STAR.changed(options={"init_text": "* * * * * {class}"}),
    "init a thing": STAR.changed(options={"init_text": "a thing"}),
    "ema 0.9": STAR.changed(ema="0.9"),
    "min-SNR 5": STAR.changed(timestep_weighting="min_snr"),
    "debiased": STAR.changed(timestep_weighting="debiased"),
    "offset noise 0.05": STAR.changed(offset_noise=0.05),
    "loss l1": STAR.changed(loss="l1"),
    "loss huber": STAR.changed(loss="huber"),
    "caption dropout 0.1": STAR.changed(caption_drop_out=0.1),
    "tag dropout 0.2": STAR.changed(tag_drop_out=0.2),
    "timesteps late": STAR.changed(timestep_distribution="late"),
    "timesteps early": STAR.changed(timestep_distribution="early"),
    "norm limit 1.5": STAR.changed(norm_limit="1.5"),
    "norm weight 0.01": STAR.changed(norm_weight="0.01"),
    "prior preservation": STAR.changed(**_PRIOR),
    "Prodigy": STAR.changed(optimizer="Prodigy", learning_rate=""),
    "ScheduleFreeAdamW": STAR.changed(optimizer="ScheduleFreeAdamW", learning_rate=""),
    "rate 0.0025": STAR.changed(learning_rate="0.0025"),
    "rate 0.01": STAR.changed(learning_rate="0.01"),
    "cosine": dataclasses.replace(STAR.changed(learning_rate="0.005 -> 1e-4 cosine"), needs_length=True),
    "rate 0.01, cosine": dataclasses.replace(STAR.changed(learning_rate="0.01 -> 1e-4 cosine"), needs_length=True),
    "warm-up 10 %, cosine": dataclasses.replace(
        STAR.changed(learning_rate="0 -> 0.01:10%, 0.01 -> 1e-4 cosine"), needs_length=True
    ),
    "latents sampled anew": STAR.changed(latent_sampling_method="random"),
    "clip norm 1": STAR.changed(clip_grad_mode="norm", clip_grad_value="1"),
    "2 vectors": STAR.changed(options={"num_vectors": 2}),
    "ema 0.99": STAR.changed(ema="0.99"),
    "shuffled tags": STAR.changed(shuffle_tags=True),
    "caption dropout 0.3": STAR.changed(caption_drop_out=0.3),
    "timesteps logit-normal": STAR.changed(timestep_distribution="logit_normal"),
    "loss smooth_l1": STAR.changed(loss="smooth_l1"),
    "input perturbation 0.1": STAR.changed(input_perturbation=0.1),
    "weight decay 0.01": STAR.changed(weight_decay=0.01),
    "flip": STAR.changed(flip=True),
    "Lion": STAR.changed(optimizer="Lion", learning_rate=""),
    "Adafactor": STAR.changed(optimizer="Adafactor", learning_rate=""),
    "init picture": STAR.changed(options={"init_text": "picture"}),
    "init zeros": STAR.changed(options={"init_text": ""}),
    "no captions, earlier lines": STAR.changed(EARLIER_ALONE),
    "no captions, plain lines": STAR.changed(("a [name]", "[name]")),
}
"""Each a change of the baseline by itself, those of which most was expected first."""
