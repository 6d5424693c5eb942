"""Tags of booru sites for pictures, by the taggers that people have on their disks.

- The WD14 family: ``model.onnx`` and ``selected_tags.csv`` in a folder or on the hub, or NAME.onnx and NAME.csv side
  by side, as ComfyUI's node for it keeps them.
- DeepDanbooru as the webui uses it: ``model-resnet_custom_v3.pt``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tincture.preprocessing.booru_labels import Label, Order, TagStyle
from tincture.preprocessing.captioning import DEFAULT_BATCH_SIZE, Captioner
from tincture.preprocessing.tagger_files import find_tagger
from tincture.preprocessing.wd_tagger import WdTagger

WD_THRESHOLD, WD_CHARACTER_THRESHOLD = 0.35, 0.85
DEEPDANBOORU_THRESHOLD = 0.5


class _Network(Protocol):
    @property
    def labels(self) -> Sequence[Label]: ...

    def probabilities(self, pictures: Sequence[Image.Image]) -> list[NDArray[np.float32]]: ...


class Tagger:
    """A ``Captioner`` whose texts are tags."""

    def __init__(self, network: _Network, style: TagStyle) -> None:
        self._network = network
        self._style = style

    def __call__(self, pictures: Sequence[Image.Image]) -> list[str]:
        found = self._network.probabilities(pictures)
        return [self._style.caption(self._network.labels, values.tolist()) for values in found]


def load_tagger(
    model: str,
    *,
    threshold: float | None = None,
    character_threshold: float | None = None,
    replace_underscores: bool = True,
    escape_brackets: bool = True,
    order: Order = "score",
    exclude: Sequence[str] = (),
    batch_size: int = DEFAULT_BATCH_SIZE,
    device: str = "auto",
) -> Captioner:
    """A captioner that writes the tags a picture would have on a booru site, joined by commas; ratings are left out.

    Args:
        model: a folder, a file (.onnx or .pt), or a model of the hub such as SmilingWolf/wd-vit-tagger-v3.
        threshold: lowest probability of a tag, 0..1; None for what is usual: 0.35, for DeepDanbooru 0.5.
        character_threshold: the same for names of characters; None for 0.85. DeepDanbooru does not tell them apart.
        replace_underscores: write blanks for underscores, but not in emoticons such as ^_^.
        escape_brackets: write \\( and \\) for brackets, so that prompts do not take them for weights.
        order: ``score`` for the likeliest tag first, or ``alphabet``.
        exclude: tags that are never written, with blanks or underscores.
        batch_size: pictures at a time; halved by itself where memory runs out.
        device: ``auto`` for the best there is; ``cpu``, ``cuda`` or ``cuda:N``; for DeepDanbooru any device of torch.

    Raises:
        UsageError: an argument that is not allowed, or a device that is not there.
        ModelError: there is no such model, it cannot be read, is of another kind, or needs the extra ``tag``.
    """
    file, labels = find_tagger(model, character_threshold=character_threshold)
    usual = (WD_THRESHOLD, WD_CHARACTER_THRESHOLD) if labels else (DEEPDANBOORU_THRESHOLD, DEEPDANBOORU_THRESHOLD)
    style = TagStyle(
        threshold=usual[0] if threshold is None else threshold,
        character_threshold=usual[1] if character_threshold is None else character_threshold,
        replace_underscores=replace_underscores,
        escape_brackets=escape_brackets,
        order=order,
        exclude=frozenset(exclude),
    )
    if labels:
        return Tagger(WdTagger(file, labels, device=device, batch_size=batch_size), style)
    from tincture.preprocessing.deepdanbooru import DeepDanbooru

    return Tagger(DeepDanbooru(file, device=device, batch_size=batch_size), style)
