"""What describes pictures in words, and how to load one.

A captioner is called with pictures and gives one text for each. ``load_captioner`` makes one from BLIP, which writes a
sentence; ``tagging.load_tagger`` makes one that writes tags. Nothing heavy is imported before a captioner is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from PIL import Image

DEFAULT_BATCH_SIZE = 8


class Captioner(Protocol):
    """Describes pictures."""

    def __call__(self, pictures: Sequence[Image.Image]) -> list[str]:
        """One text for each of ``pictures``, which are RGB, of any size and any number; it may be empty.

        Raises:
            ModelError: not even one picture fits into the memory of the device.
        """


def load_captioner(
    model: str,
    *,
    device: str = "auto",
    precision: str = "fp32",
    prompt: str = "",
    max_new_tokens: int = 40,
    min_new_tokens: int = 0,
    num_beams: int = 3,
    batch_size: int = DEFAULT_BATCH_SIZE,
) -> Captioner:
    """A captioner that writes a sentence about each picture by BLIP, the same whenever it is asked.

    Args:
        model: a folder in transformers' layout, or a model of the hub such as Salesforce/blip-image-captioning-base.
        device: ``auto`` for the best there is, or a device of torch.
        precision: fp32, bf16 or fp16.
        prompt: words that the model goes on from, such as "a picture of"; the caption is what follows them.
        max_new_tokens: where a caption is cut off, in tokens; a word is one to three.
        min_new_tokens: no caption ends before.
        num_beams: how many beginnings are followed up at a time; 1 takes the likeliest word at each step.
        batch_size: pictures at a time; halved by itself where memory runs out.

    Raises:
        UsageError: an argument that is not allowed, or a device that is not there.
        ModelError: there is no such model, it cannot be read, or is none of BLIP that captions.
    """
    from tincture.preprocessing.blip import load_blip

    return load_blip(
        model,
        device=device,
        precision=precision,
        prompt=prompt,
        max_new_tokens=max_new_tokens,
        min_new_tokens=min_new_tokens,
        num_beams=num_beams,
        batch_size=batch_size,
    )
