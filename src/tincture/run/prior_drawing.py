"""Regularisation pictures that the frozen model draws itself before a run, and that later runs find again.

So a model is held to what it drew before (Ruiz et al. 2023, arXiv:2208.12242, section 3.2) where nobody has pictures.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tincture.data.listing import PICTURE_SUFFIXES, Source
from tincture.errors import UsageError
from tincture.events import Emit, Stage
from tincture.formats.files import write_text
from tincture.formats.picture_text import parameters_text, save_png
from tincture.models.diffusion_model import DiffusionModel
from tincture.models.samplers import require_samplers
from tincture.models.sampling import complete, generate
from tincture.settings.drawing import CompleteDrawing, Drawing
from tincture.settings.train import TrainSettings
from tincture.workspace import Workspace

RECORD = "drawn.json"
"""In the folder of the pictures: what they were drawn by."""
STAGE = "drawing prior pictures"
USUAL_COUNT = 50
AT_ONCE = 4
"""Pictures drawn together. Numbers alone decide which these are, so that a picture never depends on what is there."""


@dataclass(frozen=True)
class PriorDrawing:
    """Pictures ``00000.png`` and so on of one prompt, each with a seed of its own and the prompt as its caption.

    Attributes:
        folder: where they lie, or will.
        by: what they are drawn by, as JSON has it; another thing gives other pictures.
    """

    folder: Path
    prompt: str
    drawing: CompleteDrawing
    seed: int
    count: int
    by: Mapping[str, Any]

    def path(self, number: int) -> Path:
        """Of a picture."""
        return self.folder / f"{number:05}.png"

    def missing(self) -> list[int]:
        """The numbers of those that are not there yet.

        Raises:
            UsageError: the folder holds other pictures.
        """
        found = {path.name for path in self.folder.glob("*") if path.suffix.lower() in PICTURE_SUFFIXES}
        own = {self.path(number).name for number in range(self.count)}
        if strange := sorted(found - own if self._record() == dict(self.by) else found):
            raise UsageError(
                f"{self.folder} holds pictures that --prior-prompt did not draw so, such as {strange[0]}; name another "
                "folder by --prior-data or none, or leave --prior-prompt out to train these."
            )
        return [number for number in range(self.count) if self.path(number).name not in found]

    def draw(self, model: DiffusionModel, device: torch.device, emit: Emit) -> None:
        """Draws those that are missing, each being there as soon as its batch is done.

        Args:
            device: where the model shall compute, wherever it lies.
            emit: is told how far it is.
        """
        missing = set(self.missing())
        if not missing:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / RECORD, json.dumps(self.by, indent=1))
        batches = [range(first, min(first + AT_ONCE, self.count)) for first in range(0, self.count, AT_ONCE)]
        with _computing_on(model, device), Stage(emit, STAGE, self.count) as stage:
            stage.advance(self.count - len(missing))
            for numbers in (batch for batch in batches if missing & set(batch)):
                self._draw_batch(model, numbers, missing, stage)

    def _draw_batch(self, model: DiffusionModel, numbers: Sequence[int], missing: set[int], stage: Stage) -> None:
        prompts, seeds = [self.prompt] * len(numbers), [self.seed + number for number in numbers]
        pictures = generate(
            model, prompts, self.drawing, seeds=seeds, on_step=lambda done, of: stage.advance(None, done, of)
        )
        for number, seed, picture in zip(numbers, seeds, pictures.numpy(), strict=True):
            if number in missing:
                write_text(self.path(number).with_suffix(".txt"), self.prompt)
                about = parameters_text(
                    self.prompt, self.drawing, seed=seed, model_name=model.name, model_hash=model.hash
                )
                save_png(picture, self.path(number), about)
                missing.remove(number)
        stage.advance(self.count - len(missing))

    def _record(self) -> Any:
        try:
            return json.loads((self.folder / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None


def prior_drawing(settings: TrainSettings, model: DiffusionModel, workspace: Workspace) -> PriorDrawing | None:
    """What the model shall draw; None: nothing.

    Raises:
        UsageError: there is no such sampler.
    """
    if not settings.prior_prompt:
        return None
    require_samplers(settings.prior_sampler)
    drawing = complete(
        Drawing(
            negative_prompt=settings.prior_negative_prompt,
            steps=settings.prior_steps,
            sampler=settings.prior_sampler,
            guidance_scale=settings.prior_guidance_scale,
            width=settings.width,
            height=settings.height,
            clip_skip=settings.clip_skip,
        ),
        model,
    )
    known = {"model": model.hash or model.name, "prompt": settings.prior_prompt, "seed": settings.prior_seed}
    by = {**known, **dataclasses.asdict(drawing)}
    count = settings.prior_count or USUAL_COUNT
    digest = hashlib.sha256(json.dumps([by, count], sort_keys=True).encode()).hexdigest()[:16]
    named = [Source.parse(folder).folder.resolve() for folder in settings.prior_folders]
    folder = named[0] if named else workspace.prior_pictures.resolve() / digest
    return PriorDrawing(folder, settings.prior_prompt, drawing, settings.prior_seed, count, by)


def with_drawn(settings: TrainSettings, drawing: PriorDrawing | None) -> TrainSettings:
    """The settings of a run for which ``drawing`` was done: its folder is that of the pictures."""
    if drawing is None or settings.prior_folders:
        return settings
    return settings.replace(prior_data=str(drawing.folder))


@contextlib.contextmanager
def _computing_on(model: DiffusionModel, device: torch.device) -> Iterator[None]:
    """Inside, the model computes on the device, its parts coming there by turns where it lies elsewhere."""
    if model.device == device:
        yield
        return
    model.placement.offload(device)
    try:
        yield
    finally:
        model.placement.forget()
