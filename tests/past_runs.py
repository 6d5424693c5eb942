"""Folders of runs for tests, as a run leaves them, without one being made."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tincture.formats.picture_text import save_png

SETTINGS: dict[str, Any] = {
    "kind": "embedding",
    "name": "rex",
    "data": "dogs",
    "model": "picto",
    "steps": 4,
    "learning_rate": "0.005",
    "batch_size": 2,
    "seed": 0,
}


def past_run(
    root: Path,
    folder: str,
    *,
    losses: Sequence[float] = (0.4, 0.3, 0.2, 0.1),
    previews: Sequence[int] = (0, 4),
    prompts: Sequence[str] = ("a rex at sea", "a cat"),
    ended: dict[str, Any] | None = None,
    validation: Sequence[tuple[int, float]] = (),
    at: int = 0,
    **settings: Any,
) -> Path:
    """The folder of a run below the logs of ``root``; ``at``: when it was written, in seconds since 1970."""
    place = root / "textual_inversion" / folder
    (place / "images").mkdir(parents=True)
    values = {**SETTINGS, "name": place.name, **settings}
    record: dict[str, Any] = {"settings": values, "model_name": values["model"], "data_hash": "d1"}
    if ended is not None:
        record["ended"] = {"global_step": len(losses), "interrupted": False, "ending": "", **ended}
    (place / "run.json").write_text(json.dumps(record))
    rows = "".join(f"{step},0,0,{loss},{0.01 / step}\n" for step, loss in enumerate(losses, start=1))
    (place / "textual_inversion_loss.csv").write_text(f"step,epoch,epoch_step,loss,learn_rate\n{rows}")
    if validation:
        rows = "".join(f"{step},{loss},0,0,0,\n" for step, loss in validation)
        head = "step,validation_loss,validation_error,training_loss,training_error,best_step\n"
        (place / "validation_loss.csv").write_text(head + rows)
    for step in previews:
        for number, prompt in enumerate(prompts):
            pixels = np.full((16, 16, 3), 40 * number + step, np.uint8)
            save_png(pixels, place / "images" / f"{values['name']}-{step}-{number}.png", f"{prompt}\nSteps: 2, Seed: 1")
    Image.new("RGB", (4, 4)).save(place / "images" / "contact-sheet.png")
    if at:
        os.utime(place / "run.json", (at, at))
    return place
