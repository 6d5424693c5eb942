"""Previews: pictures with fixed seeds, made between steps, that cannot disturb training.

They draw nothing from the run's randomness and leave adapter and model as they were. Every picture carries its prompt
and settings in the webui's ``parameters`` text; a contact sheet, which has all prompts in its own, grows by a row at
each preview.
"""

from __future__ import annotations

import glob
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tincture.adapters.adapter import Adapter
from tincture.drawing.sheets import save_sheet
from tincture.events import Event, PreviewReady, RolledBack, RunStarted, Stage, StepEnd
from tincture.formats.picture_text import parameters_text, save_png
from tincture.formats.pictures import open_picture
from tincture.kinds.registry import find_kind
from tincture.models.diffusion_model import DiffusionModel
from tincture.models.sampling import complete, generate
from tincture.run.duration import DRAWING
from tincture.run.preview_request import take_request
from tincture.settings.drawing import Drawing
from tincture.training.trainer import Trainer

MAX_AT_ONCE = 16
"""Pictures that are drawn together."""


class Previewer:
    """Draws previews every ``every`` steps, after the last step, even of a run that ends early, and before the first.

    It also draws after a step during which ``request_preview`` was called for ``run_dir``; with an ``every`` of 0, only
    then. Of several processes each draws some of the pictures, and the main one writes them.

    Args:
        trainer: whose adapter is shown, with the weights to publish, and who emits that a preview is ready.
        prompts: one picture each, all with ``seed``.
        drawing: how.
        run_dir: of the run.
        folder: pictures go to ``folder/NAME-STEP-N.png``, the sheet to ``folder/contact-sheet.png``.
        cards: each gets the first picture of each preview.
    """

    def __init__(
        self,
        trainer: Trainer,
        prompts: Sequence[str],
        drawing: Drawing,
        seed: int,
        run_dir: Path,
        folder: Path,
        every: int,
        cards: Sequence[Cards] = (),
    ) -> None:
        self.trainer, self.model, self.adapter = trainer, trainer.model, trainer.adapter
        self.processes = trainer.processes
        self.prompts, self.drawing, self.seed = tuple(prompts), complete(drawing, trainer.model), seed
        self.run_dir, self.folder, self.every, self.cards = run_dir, folder, every, cards
        self._rows: dict[int, list[NDArray[np.uint8]]] | None = None

    def on_event(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            if self.every:
                self._catch_up(event)
        elif isinstance(event, StepEnd):
            # Also where they are due, so that they are drawn once.
            asked = self.processes.any(self.processes.is_main and take_request(self.run_dir))
            if self._due(event):
                self.draw(event.global_step)
            elif asked:
                self._draw_as_asked(event.global_step)
        elif isinstance(event, RolledBack) and self.processes.is_main:
            self._forget_after(event.global_step)

    def _catch_up(self, event: RunStarted) -> None:
        """Draws the first preview of a run. One that goes on makes here only what a kill kept it from making: the
        sheet's rows stay those of the run that was never stopped."""
        if self.processes.from_main(lambda: self._lacks(event)):
            self.draw(event.global_step)

    def _lacks(self, event: RunStarted) -> bool:
        """Whether the pictures of this step are still to be drawn; their sheet and card come right here."""
        due, at = self._due(event), event.global_step
        if not self._is_drawn(at) or (due and at not in self._earlier_rows()):
            return due or not any(map(self._is_drawn, self._steps_on_disk()))
        if due:
            self._write_sheet_and_card(at)  # the pictures come before them
        return False

    def _forget_after(self, global_step: int) -> None:
        """Previews of steps that the run went back from show what it is no more."""
        gone = [step for step in self._steps_on_disk() if step > global_step]
        for step in gone:
            for path in (*self._paths(step), *(card.path(step) for card in self.cards)):
                path.unlink(missing_ok=True)
        self._rows = None
        if gone and self._earlier_rows():
            self._write_sheet()

    def _draw_as_asked(self, global_step: int) -> None:
        """A run for which no previews were planned may have no memory for them, and goes on without."""
        try:
            self.draw(global_step)
        except torch.OutOfMemoryError:
            warnings.warn(
                f"There was not enough memory for previews at step {global_step}; the training goes on without them.",
                stacklevel=2,
            )

    def _due(self, event: RunStarted | StepEnd) -> bool:
        if not self.every:
            return False
        # A run that ends early was ended by one who watches it before this one does.
        return event.global_step % self.every == 0 or event.global_step == event.steps or bool(self.trainer.ending)

    def draw(self, global_step: int) -> None:
        """Draws, writes and tells of the previews at ``global_step``, within the trainer's run."""
        with self.trainer.publishing(), Stage(self.trainer.emit, DRAWING, len(self.prompts)) as stage:
            pictures = self._drawn(stage)
        if not self.processes.is_main:
            return
        paths = self._paths(global_step)
        for path, prompt, picture in zip(paths, self.prompts, pictures, strict=True):
            save_png(picture, path, self._text(prompt, {}))
        self._rows = {**self._earlier_rows(global_step), global_step: pictures}
        self._write_sheet_and_card(global_step)
        self.trainer.emit(PreviewReady(global_step, paths, self.prompts))

    def _drawn(self, stage: Stage) -> list[NDArray[np.uint8]]:
        """A picture of each prompt, of which this process draws some.

        Raises:
            torch.OutOfMemoryError: one of the processes had not enough memory.
        """
        if self.processes.world_size == 1:
            return list(self._pictures(self.prompts, stage))
        own: dict[int, NDArray[np.uint8]] | None = {}
        numbers = self.processes.share(range(len(self.prompts)))
        try:
            if numbers:
                made = self._pictures([self.prompts[number] for number in numbers], stage)
                own = dict(zip(numbers, made, strict=True))
        except torch.OutOfMemoryError:
            own = None
        found: dict[int, NDArray[np.uint8]] = {}
        for part in self.processes.gathered(own):
            if part is None:
                raise torch.OutOfMemoryError("A process had not enough memory for previews.")
            found |= part
        return [found[number] for number in range(len(self.prompts))]

    def _pictures(self, prompts: Sequence[str], stage: Stage) -> NDArray[np.uint8]:
        return generate(
            self.model,
            prompts,
            self.drawing,
            seeds=[self.seed] * len(prompts),
            batch_size=1 if self.model.slicing else MAX_AT_ONCE,
            on_step=lambda step, steps: stage.advance(step=step, steps=steps),
            on_pictures=stage.advance,
        ).numpy()

    @property
    def _sheet(self) -> Path:
        return self.folder / "contact-sheet.png"

    def _paths(self, global_step: int) -> tuple[Path, ...]:
        name = self.adapter.name
        return tuple(self.folder / f"{name}-{global_step}-{n}.png" for n in range(len(self.prompts)))

    def _text(self, prompt: str, more: Mapping[str, object]) -> str:
        name, short_hash = self.model.name, self.model.hash
        keys = [
            (find_kind(one.published().kind).picture_key, one.name)
            for one in (*self.adapter.members(), *self.adapter.fixed)
        ]
        extra = {**{key: name for key, name in reversed(keys) if key}, **more}
        return parameters_text(
            prompt, self.drawing, seed=self.seed, model_name=name, model_hash=short_hash, extra=extra
        )

    def _write_sheet_and_card(self, global_step: int) -> None:
        self._write_sheet()
        for card in self.cards:
            card.save(global_step, self._earlier_rows()[global_step][0])

    def _write_sheet(self) -> None:
        rows = {f"step {step}": row for step, row in sorted(self._earlier_rows().items())}
        text = self._text("\n".join(self.prompts), {"Sheet rows": ", ".join(rows)})
        save_sheet(self._sheet, rows, parameters=text)

    def _earlier_rows(self, but: int | None = None) -> dict[int, list[NDArray[np.uint8]]]:
        """The rows of the sheet by their steps; the first time from the pictures on disk, without those of ``but``.

        They are as many numbers as the sheet itself has, which is made of all of them at each preview. A row that lost
        a picture is left out.
        """
        if self._rows is None:
            rows = {step: [_read(path) for path in self._paths(step)] for step in sorted(self._steps_on_disk() - {but})}
            self._rows = {
                step: whole for step, row in rows.items() if len(whole := [p for p in row if p is not None]) == len(row)
            }
        return self._rows

    def _steps_on_disk(self) -> set[int]:
        paths = self.folder.glob(f"{glob.escape(self.adapter.name)}-*-0.png")
        return {int(step) for step in (path.stem.split("-")[-2] for path in paths) if step.isdigit()}

    def _is_drawn(self, global_step: int) -> bool:
        return self._paths(global_step)[-1].exists()


def _read(path: Path) -> NDArray[np.uint8] | None:
    """The pixels of a preview; None, with a warning, if it cannot be read."""
    try:
        with open_picture(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:  # as Pillow tells of damage
        warnings.warn(f"{path} cannot be read ({error}); the contact sheet leaves its row out.", stacklevel=2)
        return None


class Cards:
    """Keeps the adapter of each preview in a picture too, as the webui does: ``folder/NAME-STEP.png``.

    Args:
        model: what it is trained on.
        adapter: of a kind that a picture can hold.
        folder: made when the first card is written.
    """

    def __init__(self, model: DiffusionModel, adapter: Adapter, folder: Path) -> None:
        self.model, self.adapter, self.folder = model, adapter, folder

    def path(self, global_step: int) -> Path:
        """Where the card of ``global_step`` lies."""
        return self.folder / f"{self.adapter.name}-{global_step}.png"

    def save(self, global_step: int, picture: NDArray[np.uint8]) -> None:
        """Draws the card of ``global_step`` on ``picture`` (H, W, 3)."""
        shown = self.adapter.published()
        shown.save_card(
            self.path(global_step), Image.fromarray(picture), model_name=self.model.name, model_hash=self.model.hash
        )
