"""Components that several tabs use."""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components.slider import Slider

SEND_CLICKS = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) trigger("click", { ...button.dataset });
});"""
"""JavaScript for a panel whose buttons the server shall hear of: a click brings their data attributes."""


def panel(
    value: Any = "",
    *,
    script: str | None = None,
    template: str = "${value}",
    elem_id: str | None = None,
    visible: bool = True,
) -> gr.HTML:
    """HTML of our own making, with none of Gradio's looks; it takes no room while it is empty.

    Args:
        script: JavaScript that runs once, see ``gr.HTML``.
        template: what is shown of the value, see ``gr.HTML``.
    """
    return gr.HTML(
        value,
        html_template=template,
        js_on_load=script,
        apply_default_css=False,
        padding=False,
        elem_id=elem_id,
        visible=visible,
        elem_classes="panel",
        min_width=0,
    )


def script(beside: str, name: str) -> str:
    """The JavaScript file ``name`` in the folder of the module whose ``__file__`` is ``beside``."""
    return Path(beside).with_name(name).read_text(encoding="utf-8")


def leave_empty(page: gr.Blocks) -> None:
    """Empties numbers that have no value: the browser, which Gradio does not tell of None, begins with 0.

    Within ``page``, once all its inputs are there.
    """
    empty = [block for block in page.blocks.values() if isinstance(block, gr.Number) and block.value is None]
    page.load(None, None, empty, js=f"() => Array({len(empty)}).fill(null)", api_visibility="private")


def _as_typed(self: Slider, payload: float | None) -> float | None:
    return self.value if payload is None else payload


# Made past Gradio's own way of making classes, which writes a stub file beside the module of each.
TypedSlider: Any = ABCMeta.__new__(
    type(Slider), "TypedSlider", (Slider,), {"__module__": __name__, "is_template": True, "preprocess": _as_typed}
)
"""A slider whose number may be empty, or out of its range, as long as it is being typed.

Gradio fails at the one and refuses the other in words of its own, which name no label. Empty it counts as what it began
with, since its handle stands somewhere all the same; what is out of range the checks of what is asked for refuse. It
is a class, since Gradio makes a component anew whenever an answer changes it.
"""


def updates(filled: Mapping[Any, Any], outputs: Iterable[Any]) -> dict[Any, Any]:
    """What a listener answers that fills some of its ``outputs``, be it none: Gradio takes no empty mapping."""
    return dict(filled) or {next(iter(outputs)): gr.skip()}
