"""Previews of a run side by side, growing as they are drawn, with a slider to look at any step beside the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from tincture.server.page.parts.components import panel, script
from tincture.server.page.parts.markup import file_url

SKELETON = """<div class="film" hidden>
<select aria-label="Prompt of the previews"></select>
<div class="compare"><figure><img alt=""><figcaption></figcaption></figure>
<figure><img alt=""><figcaption></figcaption></figure></div>
<label class="reel"><span>Step</span><input type="range" min="0" max="0" step="1" value="0"><output></output></label>
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
    rows: dict[int, list[dict[str, Any]]] = {}
    for step, paths in previews.items():
        for row, path in enumerate(paths):
            rows.setdefault(row, []).append({"step": step, "url": file_url(path)})
    named = {row: prompts[row] if row < len(prompts) else f"Preview {row + 1}" for row in rows}
    return {"run": run, "rows": [{"prompt": named[row], "frames": found} for row, found in rows.items()]}
