"""The pictures that are trained: their sizes, captions, prompts and masks."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tincture.kinds.registry import for_each
from tincture.settings.checks import (
    MOST_PIXELS,
    at_least,
    filled_each,
    multiple_of_8,
    regular_expression,
    share,
    side_or_chosen,
    text_encoding,
)
from tincture.settings.fields import CheckedSettings, setting
from tincture.settings.schedule import weight_faults, weight_text

GROUP = "Pictures and captions"


@dataclass(frozen=True, kw_only=True)
class PictureSettings(CheckedSettings):
    """Where pictures come from, and how training sees them."""

    data: str | tuple[str, ...] = setting(
        dataclasses.MISSING,
        GROUP,
        "Folder of pictures; FOLDER:3 for each 3 times an epoch; repeat for several folders.",
        filled_each,
        path=True,
    )
    recursive: bool = setting(False, GROUP, "Take the pictures in inner folders too.")
    folder_repeats: bool = setting(False, GROUP, "A folder called 10_rex gives each of its pictures 10 times an epoch.")
    flip: bool = setting(False, GROUP, "Train each picture mirrored left to right too.")
    width: int = setting(0, GROUP, "Width in pixels; 0: the model's own size.", multiple_of_8, largest=MOST_PIXELS)
    height: int = setting(0, GROUP, "Height in pixels; 0: the model's own size.", multiple_of_8, largest=MOST_PIXELS)
    resize: Literal["stretch", "crop"] = setting(
        "crop", GROUP, "Bring pictures of other proportions to width and height by stretching or by cropping."
    )
    varsize: bool = setting(False, GROUP, "Keep each picture's own size; a batch holds pictures of one size.")
    buckets: bool = setting(
        False, GROUP, "Crop each picture as little as sizes of the same area (width times height) allow."
    )
    bucket_step: int = setting(
        0,
        GROUP,
        "Sides of buckets are multiples of this; 0: 64, or less for small models.",
        side_or_chosen,
        largest=MOST_PIXELS,
    )
    bucket_min: int = setting(
        0, GROUP, "Shortest side of a bucket in pixels; 0: half a square's.", side_or_chosen, largest=MOST_PIXELS
    )
    bucket_max: int = setting(
        0, GROUP, "Longest side of a bucket in pixels; 0: twice a square's.", side_or_chosen, largest=MOST_PIXELS
    )
    small_pictures: Literal["enlarge", "skip"] = setting(
        "enlarge", GROUP, "What becomes of pictures that are smaller than they are to be trained."
    )
    template: str = setting(
        "",
        GROUP,
        lambda: f"Prompt template, by name or path; empty: {for_each(lambda kind: kind.template)}.",
        path=True,
    )
    word_regex: str = setting(
        "",
        GROUP,
        "Regular expression that finds the words of a caption in a file name.",
        regular_expression,
        largest=200,
    )
    join_string: str = setting(" ", GROUP, "What joins the words found by --word-regex.")
    caption_encoding: str = setting(
        "utf-8", GROUP, "Encoding of caption files that don't begin with a byte order mark.", text_encoding
    )
    shuffle_tags: bool = setting(False, GROUP, "Shuffle a caption's comma-separated tags each time it is used.")
    keep_tags: int = setting(0, GROUP, "So many first tags stay in their place and are never left out.", at_least(0))
    tag_drop_out: float = setting(0.0, GROUP, "Probability of leaving out a tag each time it is used.", share)
    caption_drop_out: float = setting(
        0.0, GROUP, "Probability of training a picture without its caption each time it is used.", share
    )
    latent_sampling_method: Literal["once", "deterministic", "random"] = setting(
        "once", GROUP, "Latents of a picture: one sample kept, the mean, or a new sample at every use."
    )
    cache_dir: str = setting(
        "", GROUP, "Folder that keeps the pictures' latents for later runs; empty: none are kept.", path=True
    )
    use_weight: bool = setting(False, GROUP, "Weigh the loss by mask pictures, or by the pictures' alpha channel.")
    masks: str = setting(
        "", GROUP, "Folder of mask pictures; empty: folders called mask beside the pictures.", path=True
    )
    unmasked_weight: float = setting(0.0, GROUP, "What counts where a mask is black, when white counts 1.", share)
    attention_mask_weight: str = setting(
        "",
        GROUP,
        "Weight of a loss that holds the attention to an embedding's name to the masks, or its schedule; empty: none.",
        schedule=True,
        largest=2000,
        meaning=weight_text,
    )

    @classmethod
    def faults_between(cls, values: Mapping[str, Any], faulty: Collection[str]) -> list[str]:
        faults = weight_faults(values, faulty, "attention_mask_weight", "so that it would never count; leave it out")
        if values.get("varsize") and values.get("buckets"):
            faults.append(
                "varsize and buckets are both on, but a picture has its own size or a bucket's; give one of them"
            )
        if 0 < values.get("bucket_max", 0) < values.get("bucket_min", 0):
            faults.append(
                f"bucket_min is {values['bucket_min']}, but must be at most bucket_max, {values['bucket_max']}"
            )
        attention = values.get("attention_mask_weight")
        if values.get("masks") and not values.get("use_weight") and not attention:
            faults.append(
                f"masks is {values['masks']!r}, but use_weight is off and attention_mask_weight is 0, so that no mask "
                "would count; give one of them"
            )
        return faults
