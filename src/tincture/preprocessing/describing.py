"""Captions for crops by models: crops wait until there are enough for a batch, while processes cut further ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from PIL import Image

from tincture.formats.pictures import open_picture
from tincture.preprocessing.blip_files import find_blip
from tincture.preprocessing.captioning import Captioner, load_captioner
from tincture.preprocessing.tagger_files import find_tagger
from tincture.preprocessing.tagging import load_tagger
from tincture.settings.preprocess import PreprocessSettings

KeyT = TypeVar("KeyT")


def find_models(settings: PreprocessSettings) -> None:
    """Whether the captioner and the tagger that the settings name are there; those of the hub are fetched.

    Raises:
        ModelError, UsageError: one of them cannot be had.
    """
    if settings.captioner:
        find_blip(settings.captioner)
    if settings.tagger:
        find_tagger(settings.tagger, character_threshold=settings.tag_character_threshold)


def load_models(settings: PreprocessSettings) -> list[Captioner]:
    """The captioner and the tagger that the settings name, in this order.

    Raises:
        ModelError, UsageError: one of them cannot be had.
    """
    models: list[Captioner] = []
    if settings.captioner:
        models.append(
            load_captioner(
                settings.captioner,
                precision=settings.captioner_precision,
                prompt=settings.captioner_prompt,
                num_beams=settings.captioner_beams,
                min_new_tokens=settings.captioner_min_tokens,
                max_new_tokens=settings.captioner_max_tokens,
                device=settings.device,
                batch_size=settings.caption_batch_size,
            )
        )
    if settings.tagger:
        models.append(
            load_tagger(
                settings.tagger,
                threshold=settings.tag_threshold,
                character_threshold=settings.tag_character_threshold,
                order=settings.tag_order,
                replace_underscores=not settings.tag_underscores,
                escape_brackets=settings.tag_escapes,
                exclude=settings.excluded_tags,
                device=settings.device,
                batch_size=settings.caption_batch_size,
            )
        )
    return models


@dataclass
class Describer(Generic[KeyT]):
    """Describes the crops of one source after the other, in batches.

    Attributes:
        load: makes the models, by ``prepare`` or when the first crop comes.
        batch_size: crops that wait for a batch.
    """

    load: Callable[[], Sequence[Captioner]]
    batch_size: int
    models: Sequence[Captioner] | None = None
    waiting: list[tuple[KeyT, Sequence[Path]]] = field(default_factory=list)

    def prepare(self) -> None:
        """Load the models now."""
        if self.models is None:
            self.models = self.load()

    def add(self, key: KeyT, crops: Sequence[Path]) -> Iterator[tuple[KeyT, list[list[str]]]]:
        """Take the crops of a source; gives back the sources that got their words by this, see `flush`."""
        self.waiting.append((key, crops))
        if sum(len(crops) for _, crops in self.waiting) >= self.batch_size:
            yield from self.flush()

    def flush(self) -> Iterator[tuple[KeyT, list[list[str]]]]:
        """Describe what waits: for each source, and each of its crops, what each model says."""
        waiting, self.waiting = self.waiting, []
        if not waiting:
            return
        self.prepare()
        texts = self._describe([crop for _, crops in waiting for crop in crops])
        for key, crops in waiting:
            yield key, [next(texts) for _ in crops]

    def _describe(self, paths: Sequence[Path]) -> Iterator[list[str]]:
        for start in range(0, len(paths), self.batch_size):
            pictures = [_read(path) for path in paths[start : start + self.batch_size]]
            texts = [model(pictures) for model in self.models or ()]
            yield from ([text[number] for text in texts] for number in range(len(pictures)))


def _read(path: Path) -> Image.Image:
    with open_picture(path) as picture:
        return picture.convert("RGB")
