"""Previews of a run, all prompts in one grid, growing as they are drawn; a slider chooses their step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from tincture.server.page.parts.components import panel, script
from tincture.server.page.parts.markup import file_url

SKELETON = """<div class="film" hidden>
<div class="shots"></div>
<label class="reel"><span>Step</span><input type="range" min="0" max="0" step="1" value="0"><output></output></label>
<label class="before"><input type="checkbox"> Beside the first</label>
<div class="frames" tabindex="0" role="group" aria-label="Previews by step"></div></div>"""


def film_strip() -> gr.HTML:
    """The component; its value is what ``frames`` returns."""
    return panel({}, template=SKELETON, script=script(__file__, "film_strip.js"), elem_id="previews")


def frames(run: str, previews: Mapping[int, Sequence[Path]], prompts: Sequence[str] = ()) -> dict[str, Any]:
    """What the film strip shows: a row per prompt, in it a frame per step.

    Args:
        run: tells one job from another.
        previews: pictures by step, ascending; in each step one per prompt.
        prompts: in the pictures' order; those that are not known get a number.
    """
    return {"run": run, "before": True, "rows": rows_of(previews, prompts)}


def rows_of(previews: Mapping[int, Sequence[Path]], prompts: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of ``frames``."""
    rows: dict[int, list[dict[str, Any]]] = {}
    for step, paths in previews.items():
        for row, path in enumerate(paths):
            rows.setdefault(row, []).append({"step": step, "url": file_url(path)})
    named = {row: prompts[row] if row < len(prompts) else f"Preview {row + 1}" for row in rows}
    return [{"prompt": named[row], "frames": found} for row, found in rows.items()]
