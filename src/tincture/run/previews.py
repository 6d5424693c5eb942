"""Previews: pictures with fixed seeds, made between steps, that cannot disturb training.

They draw nothing from the run's randomness and leave adapter and model as they were. Every picture carries its prompt
and settings in the webui's ``parameters`` text; a contact sheet, which has all prompts in its own, grows by a row at
each preview.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tincture.adapters.adapter import Adapter
from tincture.adapters.embedding import Embedding
from tincture.drawing.sheets import save_sheet
from tincture.events import Event, PreviewReady, RunStarted, StepEnd
from tincture.formats.embedding_picture import write_embedding_png
from tincture.formats.picture_text import parameters_text, save_png
from tincture.models.sampling import complete, generate
from tincture.models.stable_diffusion import StableDiffusion
from tincture.settings.drawing import Drawing

MAX_AT_ONCE = 16
"""Pictures that are drawn together."""


class Previewer:
    """Draws previews every ``every`` steps, after the last step, and before the first.

    Args:
        prompts: one picture each, all with ``seed``.
        drawing: how.
        folder: pictures go to ``folder/NAME-STEP-N.png``, the sheet to ``folder/contact-sheet.png``.
        emit: told of every preview that is ready.
    """

    def __init__(
        self,
        model: StableDiffusion,
        adapter: Adapter,
        prompts: Sequence[str],
        drawing: Drawing,
        seed: int,
        folder: Path,
        every: int,
        emit: Callable[[Event], None],
    ) -> None:
        self.model, self.adapter, self.prompts = model, adapter, tuple(prompts)
        self.drawing, self.seed = complete(drawing, model), seed
        self.folder, self.every, self.emit = folder, every, emit

    def on_event(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            # A run that goes on draws here only what a kill kept it from drawing: the sheet's rows stay those of the
            # run that was never stopped.
            first = not self._sheet.exists()
            if (first or self._due(event)) and not self._paths(event.global_step)[-1].exists():
                self.draw(event.global_step)
        elif isinstance(event, StepEnd) and self._due(event):
            self.draw(event.global_step)

    def _due(self, event: RunStarted | StepEnd) -> bool:
        return event.global_step % self.every == 0 or event.global_step == event.steps

    def draw(self, global_step: int) -> None:
        """Draws, writes and tells of the previews at ``global_step``; the adapter is attached already."""
        self.adapter.train(False)
        try:
            seeds = [self.seed] * len(self.prompts)
            at_once = 1 if self.model.slicing else MAX_AT_ONCE
            pictures = generate(self.model, self.prompts, self.drawing, seeds=seeds, batch_size=at_once).numpy()
        finally:
            self.adapter.train(True)
        paths = self._paths(global_step)
        for path, prompt, picture in zip(paths, self.prompts, pictures, strict=True):
            save_png(picture, path, self._text(prompt, {}))
        self._write_sheet()
        self.emit(PreviewReady(global_step, paths))

    @property
    def _sheet(self) -> Path:
        return self.folder / "contact-sheet.png"

    def _paths(self, global_step: int) -> tuple[Path, ...]:
        name = self.adapter.name
        return tuple(self.folder / f"{name}-{global_step}-{n}.png" for n in range(len(self.prompts)))

    def _text(self, prompt: str, told: Mapping[str, object]) -> str:
        extra = {"Hypernet": self.adapter.name, **told} if self.adapter.kind == "hypernetwork" else told
        name, short_hash = self.model.name, self.model.hash
        return parameters_text(
            prompt, self.drawing, seed=self.seed, model_name=name, model_hash=short_hash, extra=extra
        )

    def _write_sheet(self) -> None:
        """Composes the sheet anew from the pictures on disk, so that it survives stops and resumes."""
        name = self.adapter.name
        firsts = [path for path in self.folder.glob(f"{name}-*-0.png") if path.stem.split("-")[-2].isdigit()]
        steps = sorted({int(path.stem.split("-")[-2]) for path in firsts})
        rows = {}
        for step in steps:
            paths = [path for path in self._paths(step) if path.exists()]
            rows[f"step {step}"] = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
        told = {"Sheet rows": ", ".join(rows)}
        save_sheet(self._sheet, rows, parameters=self._text("\n".join(self.prompts), told))


class EmbeddingCards:
    """Keeps the embedding of each preview in a picture too, as the webui does: ``folder/NAME-STEP.png``.

    Args:
        model: what it is trained on.
        embedding: with vectors for one text encoder.
        folder: made when the first card is written.
    """

    def __init__(self, model: StableDiffusion, embedding: Embedding, folder: Path) -> None:
        self.model, self.embedding, self.folder = model, embedding, folder

    def on_event(self, event: Event) -> None:
        if isinstance(event, PreviewReady):
            content = self.embedding.content(self.model.name, self.model.hash)
            with Image.open(event.paths[0]) as picture:
                write_embedding_png(self.folder / f"{self.embedding.name}-{event.global_step}.png", content, picture)
